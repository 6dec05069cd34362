"""Boards that publish readings over MQTT 3.1.1 at QoS 1 and note what was acknowledged."""

import json
import socket
import struct
import threading
import time

WINDOW = 64


def text(value):
    return struct.pack(">H", len(value.encode())) + value.encode()


def packet(kind, body):
    length, head = len(body), bytes([kind])
    while True:
        length, low = divmod(length, 128)
        head += bytes([low | (0x80 if length else 0)])
        if not length:
            return head + body


class Mqtt:
    """One connection. Raises OSError when it breaks or nothing comes in time."""

    def __init__(self, port, client, timeout=5.0):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=timeout)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.buffer = b""
        self.socket.sendall(packet(0x10, text("MQTT") + bytes([4, 2, 0, 0]) + text(client)))
        kind, body = self.read()
        if kind != 0x20 or body[1] != 0:
            raise OSError(f"CONNACK {body!r}")

    def read(self):
        while True:
            if len(self.buffer) >= 2:
                length, shift, at = 0, 0, 1
                while at < len(self.buffer):
                    byte = self.buffer[at]
                    length, shift, at = length | (byte & 127) << shift, shift + 7, at + 1
                    if byte < 128:
                        if len(self.buffer) >= at + length:
                            kind, body = self.buffer[0], self.buffer[at : at + length]
                            self.buffer = self.buffer[at + length :]
                            return kind, body
                        break
            more = self.socket.recv(65536)
            if not more:
                raise OSError("closed")
            self.buffer += more

    def publish(self, messages):
        """Sends (packet id, topic, payload) at QoS 1."""
        self.socket.sendall(
            b"".join(packet(0x32, text(topic) + struct.pack(">H", number) + payload) for number, topic, payload in messages)
        )

    def acknowledged(self):
        """The packet id of the next PUBACK."""
        while True:
            kind, body = self.read()
            if kind == 0x40:
                return struct.unpack(">H", body[:2])[0]

    def close(self):
        try:
            self.socket.close()
        except OSError:
            pass


class Board(threading.Thread):
    """Publishes readings 1, 2, … to one of several brokers; what is not acknowledged is sent again, perhaps to another."""

    def __init__(self, node, ports, rate=200, window=WINDOW, patience=5.0):
        super().__init__(daemon=True)
        self.node, self.ports, self.rate, self.window, self.patience = node, ports, rate, window, patience
        self.boot = f"run-{time.time_ns():x}"
        self.taken = 0
        self.waiting = []
        self.acknowledged = set()
        self.delays = []
        self.stopping = threading.Event()
        self.draining = threading.Event()
        self.started = time.monotonic()

    def take(self):
        """The readings that were taken since the last call join those that wait."""
        due = self.taken if self.draining.is_set() else int((time.monotonic() - self.started) * self.rate)
        while self.taken < due and len(self.waiting) < 5000:
            self.taken += 1
            self.waiting.append((self.taken, time.monotonic()))

    def payload(self, seq):
        return json.dumps(
            {"boot": self.boot, "seq": seq, "at": int(time.time() * 1000), "clock": "synced", "mono": seq,
             "temperature": 20 + seq % 10 / 10, "humidity": 50.5}
        ).encode()

    def run(self):
        n = hash(self.node)
        while not self.stopping.is_set():
            n += 1
            try:
                mqtt = Mqtt(self.ports[n % len(self.ports)], f"humidor-{self.node}", self.patience)
            except OSError:
                time.sleep(0.05)
                continue
            try:
                self.session(mqtt)
            except OSError:
                pass
            finally:
                mqtt.close()
            time.sleep(0.02)

    def session(self, mqtt):
        topic = f"humidor/{self.node}/sensor/hall"
        while not self.stopping.is_set():
            self.take()
            if not self.waiting:
                if self.draining.is_set():
                    return
                time.sleep(0.005)
                continue
            sent = self.waiting[: self.window]
            begun = time.monotonic()
            mqtt.publish([(n + 1, topic, self.payload(seq)) for n, (seq, _) in enumerate(sent)])
            for _ in sent:
                seq = sent[mqtt.acknowledged() - 1][0]
                self.acknowledged.add(seq)
                self.delays.append(time.monotonic() - begun)
            del self.waiting[: len(sent)]

    def drain(self, limit=60):
        """Takes no more readings and waits until all are acknowledged."""
        self.draining.set()
        end = time.monotonic() + limit
        while self.waiting and time.monotonic() < end:
            time.sleep(0.05)
        self.stopping.set()
        self.join(10)
        return not self.waiting
