"""Power cuts and failing writes under a real file system: what was acknowledged is there, and everything starts again.

    cuts.py BINARY TESTS CUTS FAILURES    TESTS: the test binary `power_cuts`, whose worker fills an outbox
"""

import glob
import os
import shutil
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
from contextlib import closing

import device

HOUR_MS = 3_600_000
START_MS = 489_000 * HOUR_MS
# Readings that are sent before their acknowledgements are waited for.
BURST = 40
# The control: under it no sync does anything.
EATMYDATA = next(iter(glob.glob('/usr/lib/*/libeatmydata.so')), '')


class Gone(Exception):
    """The process ended."""


class Client:
    """A bare MQTT 3.1.1 client."""

    def __init__(self, port, name, clean=True):
        self.socket = socket.create_connection(('127.0.0.1', port))
        self.socket.settimeout(30)
        self.number = 0
        text = name.encode()
        self.send(0x10, b'\0\4MQTT\4' + bytes([2 if clean else 0]) + b'\0\0' + len(text).to_bytes(2, 'big') + text)
        self.expect(0x20)

    def send(self, kind, body):
        size, length = len(body), b''
        while True:
            size, digit = divmod(size, 128)
            length += bytes([digit | (128 if size else 0)])
            if not size:
                break
        try:
            self.socket.sendall(bytes([kind]) + length + body)
        except OSError as error:
            raise Gone from error

    def read(self, count):
        data = b''
        while len(data) < count:
            try:
                more = self.socket.recv(count - len(data))
            except ConnectionError as error:
                raise Gone from error
            if not more:
                raise Gone
            data += more
        return data

    def expect(self, kind):
        found, size = self.read(2)
        body = self.read(size)
        if found & 0xf0 != kind:
            raise SystemExit(f'packet {found:#x} where {kind:#x} was expected')
        return body

    def publish(self, topic, payload, retain=False):
        self.number = self.number % 60000 + 1
        self.send(0x33 if retain else 0x32, len(topic).to_bytes(2, 'big') + topic.encode() + self.number.to_bytes(2, 'big') + payload)

    def subscribe(self, topic):
        self.send(0x82, b'\0\1' + len(topic).to_bytes(2, 'big') + topic.encode() + b'\1')
        self.expect(0x90)


class Broker:
    """The binary at work on a folder."""

    def __init__(self, binary, data, preload=None, keep='forever'):
        self.binary, self.data = binary, data
        environment = {'PATH': os.environ['PATH'], 'NO_COLOR': '1', 'HUMIDOR_KEEP_RAW': keep, 'HUMIDOR_ANONYMOUS': 'yes'}
        if preload:
            environment['LD_PRELOAD'] = preload
        self.log = tempfile.TemporaryFile('w+')
        self.process = subprocess.Popen(
            [binary, 'broker', '--data', data, '--mqtt-listen', '127.0.0.1:0', '--http-listen', 'off'],
            env=environment, stdout=subprocess.DEVNULL, stderr=self.log)
        deadline = time.monotonic() + 30
        while 'listening for MQTT' not in (said := self.said()):
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                raise Gone(said)
            time.sleep(0.02)
        line = next(line for line in said.splitlines() if 'listening for MQTT' in line)
        self.port = int(line.rsplit(':', 1)[1])

    def said(self):
        self.log.seek(0)
        return self.log.read()

    def command(self, *arguments, text=''):
        done = subprocess.run([self.binary, *arguments], input=text, text=True, capture_output=True, env={'PATH': os.environ['PATH']})
        return done.returncode == 0

    def kill(self):
        self.process.kill()
        self.process.wait()


def reading(seq):
    return (f'{{"boot":"b","seq":{seq},"at":{START_MS + seq * 600_000},"clock":"synced","mono":{seq * 600_000},'
            f'"temperature":20.0}}').encode()


def flood(broker, facts, told, bursts):
    """Publishes bursts of readings; `told` is called after each acknowledgement."""
    client = Client(broker.port, 'flood')
    for _ in range(bursts):
        first = facts.get('readings', 0) + 1
        for seq in range(first, first + BURST):
            client.publish('humidor/n/sensor/s', reading(seq))
        for seq in range(first, first + BURST):
            client.expect(0x40)
            facts['readings'] = seq
            told(facts)


def work(broker, folder, told):
    """First start, flood with retention and checkpoints, retained messages, sessions, users, backups."""
    facts, client = {}, Client(broker.port, 'retainer')
    for turn in range(1, 7):
        flood(broker, facts, told, 6)
        client.publish(f'note/{turn}', b'kept', retain=True)
        client.expect(0x40)
        facts['retained'] = turn
        told(facts)
        Client(broker.port, f'session{turn}', clean=False).subscribe('t/#')
        facts['sessions'] = turn
        told(facts)
        if turn % 2 and broker.command('user', 'add', f'user{turn}', '--data', broker.data, text='a-long-password\n'):
            facts['users'] = facts.get('users', []) + [f'user{turn}']
            told(facts)
        elif turn % 2 == 0 and broker.command('db', 'backup', f'{folder}/backup{turn}.db', '--data', broker.data):
            facts['backups'] = facts.get('backups', []) + [f'backup{turn}.db']
            told(facts)


def lost_of_log(folder, facts):
    """What was acknowledged and is not there."""
    data, lost = f'{folder}/data', []
    if not facts:
        return lost
    try:
        with closing(sqlite3.connect(f'{data}/humidor.db')) as log:
            if (verdict := log.execute('PRAGMA integrity_check').fetchone()[0]) != 'ok':
                lost.append(verdict)
            seqs = [seq for seq, in log.execute('SELECT seq FROM readings')]
            if len(set(seqs)) != len(seqs):
                lost.append('a reading is there twice')
            # Those that are too old to be a row were counted when they arrived, and have a place until they are folded.
            there = {*seqs, *(seq for seq, in log.execute('SELECT seq FROM arrival'))}
            for first, last in log.execute('SELECT first, last FROM pruned'):
                there.update(range(first, last + 1))
            wanted = facts.get('readings', 0)
            if missing := wanted - len(there & set(range(1, wanted + 1))):
                lost.append(f'{missing} of {wanted} readings')
            for table, key, condition in (
                ('retained', 'retained', "topic LIKE 'note/%'"),
                ('session', 'sessions', "client_id LIKE 'session%'"),
            ):
                found = log.execute(f'SELECT count(*) FROM {table} WHERE {condition}').fetchone()[0]
                if found < facts.get(key, 0):
                    lost.append(f'{key}: {found} of {facts[key]}')
        for name in facts.get('users', []):
            if f'[user.{name}]' not in open(f'{data}/users.toml').read():
                lost.append(name)
        for name in facts.get('backups', []):
            with closing(sqlite3.connect(f'file:{folder}/{name}?mode=ro', uri=True)) as backup:
                if (verdict := backup.execute('PRAGMA integrity_check').fetchone()[0]) != 'ok':
                    lost.append(f'{name}: {verdict}')
                backup.execute('SELECT count(*) FROM readings')
    except (sqlite3.Error, OSError) as error:
        lost.append(f'{error}')
    return lost


def lost_of_outbox(folder, facts):
    if not facts:
        return []
    try:
        with closing(sqlite3.connect(f'{folder}/data/outbox.db')) as outbox:
            verdict = outbox.execute('PRAGMA integrity_check').fetchone()[0]
            kept = {number for number, in outbox.execute('SELECT id FROM waiting')}
    except sqlite3.Error as error:
        return [f'{error}']
    # The worker removes these, as acknowledged by a broker.
    lost = [number for number in range(1, facts['readings'] + 1) if number not in kept and number % 10 != 9]
    return ([verdict] if verdict != 'ok' else []) + ([f'{len(lost)} of {facts["readings"]}'] if lost else [])


def starts(binary, folder):
    """The broker starts on what the cut has left, acknowledges, and has not called the file damaged."""
    try:
        broker = Broker(binary, f'{folder}/data')
    except Gone as said:
        return [f'does not start: {said}']
    client = Client(broker.port, 'after')
    client.publish('humidor/after/sensor/s', reading(1))
    client.expect(0x40)
    broker.kill()
    return ['found damaged'] if 'damaged' in broker.said() else []


class Outbox:
    """The worker of the tests that fills an outbox and says how many readings are safe."""

    def __init__(self, tests, data, preload=None):
        environment = {**os.environ, 'POWER_LIVE': data}
        if preload:
            environment['LD_PRELOAD'] = preload
        os.makedirs(data, exist_ok=True)
        self.process = subprocess.Popen(
            [tests, 'outbox_worker', '--exact', '--ignored', '--nocapture'], env=environment, text=True,
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)

    def follow(self, told, until=1 << 30):
        facts = {}
        for line in self.process.stderr:
            if line.startswith('acknowledged '):
                facts['readings'] = int(line.split()[1])
                told(facts)
                if facts['readings'] >= until:
                    break
        return facts

    def kill(self):
        self.process.kill()
        self.process.wait()


def record(kind, folder, binary, tests, role, keep, preload):
    """Records one run of a role from its first start."""
    made = device.Device(kind, folder)
    if role == 'broker':
        broker = Broker(binary, made.data, preload, keep)
        work(broker, made.mount.folder, made.acknowledged)
        broker.kill()
    else:
        outbox = Outbox(tests, made.data, preload)
        outbox.follow(made.acknowledged)
        outbox.kill()
    return device.Recording(made, made.close())


def cut_often(kind, folder, binary, tests, role, cuts, seed, preload=None, until_lost=False):
    """Cuts one recording at random entries; returns the number of cuts and the faults."""
    choose, faults, made = device.seeded(seed), [], 0
    # Every other time all readings are too old, and retention folds them.
    recording = record(kind, folder, binary, tests, role, '1d' if seed % 2 else 'forever', preload)
    numbers = sorted(choose.randrange(len(recording.entries)) for _ in range(cuts))
    for number in numbers:
        unflushed = choose.choice(device.UNFLUSHED)
        image, facts = recording.cut(number, unflushed, choose)
        with device.Mount(kind, image, f'{folder}/after') as after:
            found = (lost_of_log if role == 'broker' else lost_of_outbox)(after, facts)
            if role == 'broker' and not found and not preload:
                found = starts(binary, after)
        made += 1
        if found:
            faults.append(f'{kind} {role} seed {seed}, entry {number}, {unflushed} of what was not flushed: {", ".join(found)}')
            if until_lost:
                break
            print('FAULT', faults[-1], flush=True)
    recording.close()
    shutil.rmtree(folder)
    return made, faults


def fail_once(kind, folder, binary, tests, role, seed):
    """One device write fails; then the power goes."""
    choose = device.seeded(seed)
    made = device.Device(kind, folder, fails=True)
    facts = {}
    if role == 'broker':
        broker = process = Broker(binary, made.data)
        try:
            flood(broker, facts, lambda _: None, choose.randrange(1, 8))
            made.fail_next_write()
            flood(broker, facts, lambda _: None, choose.randrange(1, 12))
        except Gone:
            pass
        told = 'disk error' in broker.said() or 'disk failed' in broker.said()
    else:
        process = Outbox(tests, made.data)
        process.follow(lambda _: None, choose.randrange(10, 60))
        made.fail_next_write()
        facts = process.follow(lambda _: None, choose.randrange(60, 180))
        told = False
    process.kill()
    image = made.image()
    with device.Mount(kind, image, f'{folder}/after') as after:
        found = (lost_of_log if role == 'broker' else lost_of_outbox)(after, facts)
        if role == 'broker' and not found:
            found = starts(binary, after)
    made.close()
    shutil.rmtree(folder)
    return told, [f'{kind} {role} seed {seed}, a failed write: {", ".join(found)}'] if found else []


def main():
    binary, tests, cuts, failures = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    folder = tempfile.mkdtemp(prefix='humidor-power-')
    faults, runs = [], [(kind, role) for kind in ('ext4', 'xfs') for role in ('broker', 'node')]
    try:
        for kind in ('ext4', 'xfs'):
            made, lost = cut_often(kind, f'{folder}/control', binary, tests, 'broker', 20, 1, EATMYDATA, until_lost=True)
            print(f'control, {kind}: {"loses after" if lost else "loses nothing in"} {made} cuts without a sync', flush=True)
            if not lost:
                faults.append(f'{kind}: the control loses nothing: this rig sees nothing')
        each, seed = max(1, min(25, cuts // 4)), 2
        for turn in range(-(-cuts // each)):
            kind, role = runs[(turn + turn // len(runs)) % len(runs)]
            made, lost = cut_often(kind, f'{folder}/cuts', binary, tests, role, min(each, cuts - turn * each), seed + turn)
            faults += lost
            print(f'{kind}, {role}: {made} cuts, {len(lost)} with a fault', flush=True)
        told = 0
        for turn in range(failures):
            kind, role = runs[turn % len(runs)]
            said, lost = fail_once(kind, f'{folder}/fails', binary, tests, role, seed + turn)
            told, faults = told + said, faults + lost
        print(f'{failures} failed writes, {told} of them told by the broker', flush=True)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    for fault in faults:
        print('FAULT', fault)
    print(f'{cuts} power cuts, {failures} failed writes, {len(faults)} faults')
    return 1 if faults else 0


if __name__ == '__main__':
    sys.exit(main())
