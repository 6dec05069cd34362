"""A file system on a block device that remembers every write and flush in its order, and fails one write when told.

file system ← loop device ← a file that FUSE exports ← qemu-storage-daemon: blklogwrites (the log) or blkdebug (the failure)

A test's client writes what was acknowledged into a spare sector behind the file system, so that the log orders
acknowledgements against writes. `Recording.cut` then makes the disk as it is when the power goes at any entry of the log:
what was flushed is there, and of the rest nothing, some writes, torn writes, or everything.
"""

import json
import os
import random
import shutil
import socket
import struct
import subprocess
import time

MIB = 1 << 20
SECTOR = 512
# The smallest that mkfs.xfs makes, and ext4 with a journal.
SIZES = {'ext4': 200 * MIB, 'xfs': 320 * MIB}
MAKE = {
    'ext4': ['mkfs.ext4', '-q', '-F', '-b', '4096', '-E', 'nodiscard,lazy_itable_init=0,lazy_journal_init=0'],
    'xfs': ['mkfs.xfs', '-q', '-K'],
}
# A copy has the same identity as its original, which XFS refuses twice at once.
MOUNT = {'ext4': [], 'xfs': ['-o', 'nouuid']}
# Flags of the log, Linux's dm-log-writes format.
FLUSH, FUA, DISCARD = 1, 2, 4
SPARE = b'acknowledged '
LOG_BYTES = 8 << 30


def run(*command):
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f'{" ".join(command)}: {done.stderr.strip()}')
    return done.stdout.strip()


def copy(source, target):
    run('cp', '--sparse=always', source, target)


class Mount:
    """A file system in a file."""

    def __init__(self, kind, image, folder):
        os.makedirs(folder, exist_ok=True)
        self.folder = folder
        self.loop = run('losetup', '--show', '-f', image)
        try:
            run('mount', *MOUNT[kind], self.loop, folder)
        except SystemExit:
            run('losetup', '-d', self.loop)
            raise

    def close(self):
        for _ in range(100):
            if subprocess.run(['umount', self.folder], capture_output=True).returncode == 0:
                break
            time.sleep(0.05)
        run('losetup', '-d', self.loop)

    def __enter__(self):
        return self.folder

    def __exit__(self, *_):
        self.close()


class Device:
    """The device and its file system, mounted on `folder`/mnt."""

    def __init__(self, kind, folder, fails=False):
        self.kind, self.folder, self.orders = kind, folder, 0
        shutil.rmtree(folder, ignore_errors=True)
        os.makedirs(folder)
        self.disk, self.log, self.export = (f'{folder}/{name}' for name in ('disk', 'log', 'export'))
        self.size = SIZES[kind]
        with open(self.disk, 'wb') as disk:
            disk.truncate(self.size)
        run(*MAKE[kind], self.disk)
        os.truncate(self.disk, self.size + MIB)
        copy(self.disk, f'{folder}/start')
        for name in (self.log, self.export):
            open(name, 'wb').close()
        os.truncate(self.log, LOG_BYTES)
        nodes = [f'driver=file,node-name=disk,filename={self.disk}']
        if fails:
            nodes.append('driver=raw,node-name=top,file=disk')
        else:
            nodes.append(f'driver=file,node-name=log,filename={self.log}')
            nodes.append(f'driver=blklogwrites,node-name=top,file=disk,log=log,log-sector-size={SECTOR}')
        command = ['qemu-storage-daemon', '--chardev', f'socket,path={folder}/qmp,server=on,wait=off,id=c', '--monitor', 'chardev=c']
        for node in nodes:
            command += ['--blockdev', node]
        command += ['--export', f'type=fuse,id=e,node-name=top,mountpoint={self.export},writable=on,growable=off']
        self.daemon = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=open(f'{folder}/daemon', 'w'))
        deadline = time.monotonic() + 20
        while os.path.getsize(self.export) != self.size + MIB:
            if self.daemon.poll() is not None or time.monotonic() > deadline:
                raise SystemExit('no export: ' + open(f'{folder}/daemon').read())
            time.sleep(0.02)
        self.mount = Mount(kind, self.export, f'{folder}/mnt')
        self.data = f'{self.mount.folder}/data'
        self.spare = os.open(self.export, os.O_RDWR)

    def acknowledged(self, facts):
        """Notes what was acknowledged by now."""
        os.pwrite(self.spare, (SPARE + json.dumps(facts).encode()).ljust(4096), self.size)

    def ask(self, command, **arguments):
        with socket.socket(socket.AF_UNIX) as monitor:
            monitor.connect(f'{self.folder}/qmp')
            stream = monitor.makefile('rw')
            stream.readline()
            for execute, with_arguments in (('qmp_capabilities', {}), (command, arguments)):
                stream.write(json.dumps({'execute': execute, 'arguments': with_arguments}))
                stream.flush()
                while 'return' not in (answer := json.loads(stream.readline())):
                    if 'error' in answer:
                        raise SystemExit(f'{command}: {answer}')

    def fail_next_write(self):
        """The next write of the device fails with EIO, once."""
        self.orders += 1
        name = f'fails{self.orders}'
        rule = {'event': 'none', 'iotype': 'write', 'errno': 5, 'once': True}
        self.ask('blockdev-add', **{'driver': 'blkdebug', 'node-name': name, 'image': 'disk', 'inject-error': [rule]})
        self.ask('blockdev-reopen', options=[{'driver': 'raw', 'node-name': 'top', 'file': name}])

    def image(self):
        """A copy of what the device has now: the power went, and all that it was told to write was written."""
        copy(self.disk, f'{self.folder}/cut')
        return f'{self.folder}/cut'

    def close(self):
        """Ends the recording; writes of the unmounting are not part of it."""
        os.close(self.spare)
        end = sum(1 for _ in entries(self.log))
        self.mount.close()
        self.daemon.terminate()
        self.daemon.wait()
        return end


def entries(log):
    """Offset, bytes and flags of each write, and where its data is in the log."""
    with open(log, 'rb', buffering=0) as file:
        at = SECTOR
        while True:
            sector, sectors, flags, _ = struct.unpack('<4Q', os.pread(file.fileno(), 32, at))
            if not sectors and not flags:
                return
            yield sector * SECTOR, sectors * SECTOR, flags, at + SECTOR
            at += SECTOR + (0 if flags & DISCARD else sectors * SECTOR)


class Recording:
    """What a device did. Cuts are asked for in rising order."""

    def __init__(self, device, end):
        self.folder, self.at = device.folder, 0
        self.log = os.open(device.log, os.O_RDONLY)
        self.entries = list(entries(device.log))[:end]
        copy(f'{self.folder}/start', f'{self.folder}/durable')
        self.durable = os.open(f'{self.folder}/durable', os.O_RDWR)
        self.facts = []
        for number, (offset, size, _, data) in enumerate(self.entries):
            if offset == device.size and size and (text := os.pread(self.log, 4096, data)).startswith(SPARE):
                self.facts.append((number, json.loads(text[len(SPARE):])))

    def write(self, disk, entry, sectors=None):
        offset, size, flags, data = entry
        if flags & DISCARD or not size:
            return
        for sector in [None] if sectors is None else sectors:
            start, length = (0, size) if sector is None else (sector * SECTOR, SECTOR)
            os.pwrite(disk, os.pread(self.log, length, data + start), offset + start)

    def cut(self, number, unflushed, choose):
        """The disk when the power goes before entry `number`, and what was acknowledged before."""
        flushes = [n for n in range(self.at, number) if self.entries[n][2] & FLUSH]
        if flushes:
            for entry in self.entries[self.at:flushes[-1]]:
                self.write(self.durable, entry)
            # Data of a flushing write follows the flush.
            self.at = flushes[-1]
        copy(f'{self.folder}/durable', f'{self.folder}/cut')
        disk = os.open(f'{self.folder}/cut', os.O_RDWR)
        for entry in self.entries[self.at:number]:
            if entry[2] & FUA or unflushed == 'all' or (unflushed == 'some' and choose.random() < 0.5):
                self.write(disk, entry)
            elif unflushed == 'torn':
                self.write(disk, entry, [s for s in range(entry[1] // SECTOR) if choose.random() < 0.5])
        os.close(disk)
        facts = [facts for at, facts in self.facts if at < number]
        return f'{self.folder}/cut', facts[-1] if facts else {}

    def close(self):
        os.close(self.log)
        os.close(self.durable)


UNFLUSHED = ('none', 'some', 'torn', 'all')


def seeded(seed):
    return random.Random(seed)
