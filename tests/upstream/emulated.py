"""The binaries of other processors, under emulation, with PostgreSQL over TLS. By name only: scenarios.py BINARY emulated."""

import os
import shutil

from servers import Broker, Postgres, certificate, upstream_env, wait
from single import publish, reading, say

# As docker/build.sh leaves them, and Debian's qemu-user-static runs them.
PROCESSORS = {"arm64": "qemu-aarch64-static", "armv7": "qemu-arm-static"}


def emulated(servers, broker):
    """100 readings of each processor's binary in dist/ (HUMIDOR_DIST) arrive over TLS; a wrong authority is refused."""
    dist = os.environ.get("HUMIDOR_DIST", "dist")
    postgres = Postgres(servers).start().database(broker)
    stranger = certificate(servers.folder, "stranger")
    for processor, emulator in PROCESSORS.items():
        binary = os.path.abspath(f"{dist}/{processor}/humidor")
        assert os.path.exists(binary), f"no {binary}: docker/build.sh {processor} makes it"
        assert shutil.which(emulator), f"no {emulator}: apt-get install qemu-user-static"
        emulation = f"{servers.folder}/{processor}.sh"
        with open(emulation, "w") as script:
            script.write(f'#!/bin/sh\nexec {emulator} {binary} "$@"\n')
        os.chmod(emulation, 0o755)
        hall = Broker(servers, emulation, processor, upstream_env([postgres.port], stranger)).start()
        publish(hall, [(None, reading(seq, temperature=-seq / 10)) for seq in range(1, 51)], processor, 60)
        # On a busy machine an emulated login may take longer than its limit.
        wait("the authority is refused", lambda: "none of the authorities" in hall.run("upstream", "status").stderr, 90)
        hall.restart(HUMIDOR_UPSTREAM_CA=postgres.ca)
        publish(hall, [(None, reading(seq, temperature=-seq / 10)) for seq in range(51, 101)], processor, 60)
        hall.caught_up(120)
        found = postgres.rows(f"SELECT count(*), min(temperature), sum(seq) FROM humidor.readings WHERE node = '{processor}'")
        assert found == "100|-10|5050", found
        assert postgres.rows("SELECT bool_and(ssl) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE usename = 'humidor'") == "t"
        wait("the status", lambda: "this broker's log, up to date" in hall.run("upstream", "status").stdout, 90)
        assert hall.stop() == 0
        say(f"{processor}: 100 of 100 upstream over TLS")
