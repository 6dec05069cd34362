"""Figures of a machine, by name only: scenarios.py BINARY figures, or ingest. FIGURES_SCALE=0.1 tries them with less."""

import os
import sqlite3
import struct
import subprocess
import threading
import time

from board import Board, Mqtt, packet, text
from servers import BIN, Broker, Postgres, upstream_env, wait
from single import say


SCALE = float(os.environ.get("FIGURES_SCALE", "1"))


def scaled(rows):
    """So many thousands, at least four."""
    return max(4, int(rows * SCALE) // 4000 * 4) * 1000


def copied(postgres, rows):
    """Rows a second of \\copy in chunks of 1,000 rows, one transaction each."""
    postgres.rows("CREATE TABLE copied (LIKE humidor.reading INCLUDING ALL)")
    script = []
    for first in range(0, rows, 1000):
        script.append("COPY copied FROM STDIN;\n")
        script += [f"many\trun\t{seq}\thall\t{1760000000000 + seq}\t1\t{seq}\t20.5\t50.5\t\\N\t8417aa8c-8373-41ff-8df7-82837690c5bf\n" for seq in range(first, first + 1000)]
        script.append("\\.\n")
    begun = time.monotonic()
    subprocess.run([f"{BIN}/psql", "-XAtq", "-v", "ON_ERROR_STOP=1", "-h", "127.0.0.1", "-p", str(postgres.port), "-U", "humidor", "-d", "humidor", "-c", "SELECT 1"], capture_output=True)
    done = subprocess.run(
        [f"{BIN}/psql", "-XAtq", "-v", "ON_ERROR_STOP=1", "-h", postgres.data, "-p", str(postgres.port), "-U", "postgres", "-d", "humidor"],
        input="".join(script), text=True, capture_output=True,
    )
    assert done.returncode == 0, done.stderr
    return rows / (time.monotonic() - begun)


def flood(hall, rows, prefix, connections=4, window=500):
    """Readings acknowledged a second."""
    share = rows // connections
    packets = []
    for n in range(connections):
        topic = text(f"humidor/{prefix}{n}/sensor/hall")
        chunks = []
        for first in range(1, share + 1, window):
            chunk = b""
            for k, seq in enumerate(range(first, min(first + window, share + 1))):
                payload = b'{"boot":"run","seq":%d,"at":%d,"clock":"synced","mono":%d,"temperature":20.5,"humidity":50.5}' % (seq, 1764200000000 + seq, seq)
                chunk += packet(0x32, topic + struct.pack(">H", k + 1) + payload)
            chunks.append((chunk, min(window, share + 1 - first)))
        packets.append(chunks)

    def run(n):
        mqtt = Mqtt(hall.port, f"flood-{prefix}{n}", 60)
        for chunk, count in packets[n]:
            mqtt.socket.sendall(chunk)
            # PUBACK has four bytes.
            left = 4 * count
            while left:
                more = mqtt.socket.recv(min(left, 65536))
                assert more
                left -= len(more)
        mqtt.close()

    threads = [threading.Thread(target=run, args=(n,)) for n in range(connections)]
    begun = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return rows / (time.monotonic() - begun)


def rss(process):
    with open(f"/proc/{process.pid}/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmRSS")) / 1000


def operation(seq):
    """A reading as the queue has it."""
    def count(value):
        out = b""
        while value >= 128:
            out, value = out + bytes([value & 127 | 128]), value >> 7
        return out + bytes([value])

    def name(value):
        return count(len(value)) + value

    return b"\x01" + name(b"many") + name(b"run") + count(seq) + name(b"hall") + struct.pack("<q", 1760000000000 + seq) + b"\x07" + count(seq) + struct.pack("<dd", 20.5, 50.5)


def cpu(process):
    """Seconds of processors that a process has used, and those of its thread that stores."""
    def used(path):
        with open(path) as stat:
            name, rest = stat.read().rsplit(") ", 1)
        return name, sum(map(int, rest.split()[11:13])) / os.sysconf("SC_CLK_TCK")

    threads = [used(f"/proc/{process.pid}/task/{thread}/stat") for thread in os.listdir(f"/proc/{process.pid}/task")]
    return used(f"/proc/{process.pid}/stat")[1], sum(seconds for name, seconds in threads if name.endswith("(store"))


def ingest(servers, broker):
    """Ingest with and without forwarding: what is forwarded meanwhile, and how long the rest takes."""
    # Who is preferred depends on the priorities of threads only.
    servers.apart = False
    postgres = Postgres(servers).start().database(broker)
    plain = Broker(servers, broker.binary, "plain", {}).start()
    hall = Broker(servers, broker.binary, "hall", upstream_env([postgres.port], postgres.ca)).start()
    hall.caught_up()
    compare(plain, hall, 300_000)


def rested(at):
    """Waits until what an earlier flood has left to do is done."""
    def rests():
        before = cpu(at.process)[0]
        time.sleep(0.4)
        return cpu(at.process)[0] - before < 0.02

    wait(f"{at.name} rests", rests, 120)


def compare(plain, hall, rows, rounds=int(os.environ.get("FIGURES_ROUNDS", "6"))):
    """In turn, since the machine has other work, and either of them first."""
    rows = scaled(rows)
    ratios = []
    for n in range(rounds):
        rates, used = {}, {}
        for at in (plain, hall) if n % 2 else (hall, plain):
            rested(plain)
            rested(hall)
            before, forwarded = cpu(at.process), at.metrics().get("humidor_upstream_forwarded_total", 0)
            rates[at] = flood(at, rows, f"{at.name}{n}-")
            used[at] = [now - then for now, then in zip(cpu(at.process), before)]
            if at == hall:
                meanwhile = hall.metrics()["humidor_upstream_forwarded_total"] - forwarded
                begun = time.monotonic()
                hall.caught_up(300)
                rest = time.monotonic() - begun
        ratios.append(rates[hall] / rates[plain])
        took = rows / rates[hall]
        say(
            f"ingest of {rows:,}: {rates[plain]:.0f} a second without forwarding, {rates[hall]:.0f} with it: {ratios[-1]:.2f}. {meanwhile / took:.0f} a second were forwarded meanwhile,"
            f" {meanwhile / rows:.0%} of them; the rest {rest:.1f} s later, so {rows / (took + rest):.0f} a second from the first reading on."
            f" Seconds of processors: broker {used[plain][0]:.2f} and {used[hall][0]:.2f}, its thread `store` {used[plain][1]:.2f} and {used[hall][1]:.2f}"
        )
    ratios.sort()
    say(f"ingest with forwarding by that without: {(ratios[(rounds - 1) // 2] + ratios[rounds // 2]) / 2:.2f} in the middle of {rounds}, {ratios[0]:.2f} to {ratios[-1]:.2f}")


def figures(servers, broker):
    """Rates beside \\copy, ingest with and without forwarding, delays of HUMIDOR_ACK=upstream, memory of a backlog."""
    servers.apart = False
    postgres = Postgres(servers).start().database(broker)
    env = upstream_env([postgres.port], postgres.ca)
    plain = Broker(servers, broker.binary, "plain", {}).start()
    hall = Broker(servers, broker.binary, "hall", env).start()
    hall.caught_up()
    compare(plain, hall, 100_000)
    plain.kill()

    postgres.stop()
    flood(hall, scaled(200_000), "late-")
    postgres.start()
    wait("connected", lambda: hall.metrics().get("humidor_upstream_connected") == 1)
    begun, before = time.monotonic(), hall.metrics()["humidor_upstream_forwarded_total"]
    hall.caught_up(120)
    rate = (hall.metrics()["humidor_upstream_forwarded_total"] - before) / (time.monotonic() - begun)
    copy = copied(postgres, scaled(200_000))
    say(f"forwarded {rate:.0f} rows a second, \\copy {copy:.0f}: {rate / copy:.2f}")

    hall.stop()
    hall.start(HUMIDOR_ACK="upstream")
    hall.caught_up()
    load = [Board(f"a{n}", [hall.port], rate=50, window=1) for n in range(20)]
    for board in load:
        board.start()
    time.sleep(15)
    delays = sorted(delay for board in load for delay in board.delays)
    for board in load:
        board.stopping.set()
    say(f"HUMIDOR_ACK=upstream, {len(delays) / 15:.0f} a second: p50 {delays[len(delays) // 2] * 1000:.1f} ms, p99 {delays[len(delays) * 99 // 100] * 1000:.1f} ms")

    hall.stop()
    log = sqlite3.connect(f"{hall.data}/humidor.db")
    position, size = log.execute("SELECT max(position), max(bytes) FROM forward").fetchone()
    blob = b"".join(operation(seq) for seq in range(1, 1001))
    with log:
        for n in range(scaled(5_000_000) // 1000):
            position, size = position + 1000, size + len(blob)
            log.execute("INSERT INTO forward VALUES (?, 1000, ?, 0, ?, ?)", (position, size, n + 1, blob))
    log.close()
    hall.env |= {"HUMIDOR_MAX_DB": "4GiB", "HUMIDOR_UPSTREAM_BACKLOG": "1GiB", "HUMIDOR_ACK": "stored"}
    postgres.stop()
    hall.start()
    time.sleep(3)
    away = rss(hall.process)
    postgres.start()
    begun, most = time.monotonic(), 0
    wait("connected", lambda: hall.metrics().get("humidor_upstream_connected") == 1)
    while time.monotonic() < begun + 20:
        most = max(most, rss(hall.process))
        time.sleep(0.2)
    lag = hall.metrics()["humidor_upstream_lag"]
    say(f"a backlog of {scaled(5_000_000):,}: {away:.0f} MB while PostgreSQL is away, {most:.0f} MB at most while it is sent ({lag:.0f} left)")
