#!/usr/bin/env python3
"""10,000 sockets that never say who they are, against the real binary: half_open.py BINARY

Meanwhile a node that behaves publishes, and new ones come. Prints one line of JSON; exits with 1 when an
acknowledgement or a new connection takes a second, or memory grows past its bound.
"""

import json
import os
import re
import resource
import socket
import subprocess
import sys
import tempfile
import time

SOCKETS = 10_000
SECONDS_MAX = 1.0
# Over what it has before: an unoptimised binary is half of it.
GROWTH_MAX_KIB = 20 * 1024

binary = sys.argv[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (SOCKETS + 500, max(SOCKETS + 500, resource.getrlimit(resource.RLIMIT_NOFILE)[1])))


def text(value):
    return len(value).to_bytes(2, "big") + value.encode()


def packet(kind, body):
    length, rest = b"", len(body)
    while True:
        rest, byte = divmod(rest, 128)
        length += bytes([byte | (0x80 if rest else 0)])
        if not rest:
            return bytes([kind]) + length + body


def connect(port, client_id):
    client = socket.create_connection(("127.0.0.1", port), timeout=10)
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    client.sendall(packet(0x10, text("MQTT") + b"\x04\x02\x00\x3c" + text(client_id)))
    assert client.recv(4) == b"\x20\x02\x00\x00", "no CONNACK"
    return client


def publish(client, number):
    reading = {"boot": "b", "seq": number, "at": 1760000000123, "clock": "synced", "mono": number, "temperature": 20.5}
    packet_id = (number % 65535 + 1).to_bytes(2, "big")
    began = time.monotonic()
    client.sendall(packet(0x32, text("humidor/press/sensor/hall") + packet_id + json.dumps(reading).encode()))
    assert client.recv(4) == b"\x40\x02" + packet_id, "no PUBACK"
    return time.monotonic() - began


def rss_kib(pid):
    with open(f"/proc/{pid}/status") as status:
        return int(re.search(r"VmRSS:\s+(\d+)", status.read())[1])


with tempfile.TemporaryDirectory() as data:
    environment = {"PATH": os.environ["PATH"], "NO_COLOR": "1"}
    arguments = [binary, "broker", "--data", data, "--mqtt-listen", "127.0.0.1:0", "--http-listen", "127.0.0.1:0"]
    broker = subprocess.Popen(arguments, env=environment, stderr=subprocess.PIPE, text=True)
    try:
        for line in broker.stderr:
            if found := re.search(r"listening for MQTT.*address=127\.0\.0\.1:(\d+)", line):
                port = int(found[1])
                break
        node = connect(port, "humidor-press")
        before = rss_kib(broker.pid)
        silent, acknowledged, opened, memory = [], [publish(node, 1)], [], before
        for number in range(1, SOCKETS + 1):
            silent.append(socket.create_connection(("127.0.0.1", port), timeout=10))
            if number % 50 == 0:
                acknowledged.append(publish(node, len(acknowledged) + 1))
            if number % 500 == 0:
                began = time.monotonic()
                connect(port, f"new-{number}").close()
                opened.append(time.monotonic() - began)
                memory = max(memory, rss_kib(broker.pid))
        print(json.dumps({
            "half_open_sockets": len(silent), "publishes": len(acknowledged),
            "slowest_puback_ms": round(max(acknowledged) * 1000, 1),
            "slowest_connect_ms": round(max(opened) * 1000, 1),
            "rss_before_kib": before, "rss_most_kib": memory,
            "descriptors": len(os.listdir(f"/proc/{broker.pid}/fd")),
        }))
        good = max(acknowledged + opened) < SECONDS_MAX and memory < before + GROWTH_MAX_KIB
    finally:
        broker.terminate()
        ended = broker.wait(timeout=20)
sys.exit(0 if good and ended == 0 else 1)
