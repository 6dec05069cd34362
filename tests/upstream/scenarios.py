"""Runs the scenarios of humidor with PostgreSQL: scenarios.py BINARY (short | all | NAME…)."""

import os
import shutil
import subprocess
import sys
import tempfile
import time
import traceback

import cluster
import emulated
import figures
import single
from servers import Servers



class Program:
    """The program that is tested."""

    def __init__(self, binary):
        self.binary = os.path.abspath(binary)

    def __call__(self, *arguments, env):
        env = {"PATH": os.environ["PATH"]} | env
        return subprocess.run([self.binary, *arguments], env=env, capture_output=True, text=True)


def run(scenario, binary):
    """Runs one scenario; whether it passed."""
    print(f"{scenario.__name__}: {scenario.__doc__}", flush=True)
    begun = time.monotonic()
    folder = tempfile.mkdtemp(prefix="humidor-upstream-")
    servers = Servers(folder)
    try:
        scenario(servers, Program(binary))
    except Exception:  # noqa: BLE001 (each scenario is told, then the next one runs)
        print(traceback.format_exc(), flush=True)
        for name in sorted(os.listdir(folder)):
            if name.endswith(".log"):
                print(f"--- {name}\n{servers.text(name)[-3000:]}", flush=True)
        return False
    finally:
        servers.end()
        shutil.rmtree(folder, ignore_errors=True)
    print(f"  passed in {time.monotonic() - begun:.0f} s", flush=True)
    return True


def at_once(names, binary):
    """Runs scenarios side by side, each as a process of its own; those that failed."""
    started = [
        (name, subprocess.Popen([sys.executable, __file__, binary, name], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True))
        for name in names
    ]
    failed = []
    for name, process in started:
        told, _ = process.communicate()
        print("\n".join(told.rstrip().splitlines()[:-1]), flush=True)
        if process.returncode:
            failed.append(name)
    return failed


def main():
    binary, *names = sys.argv[1:]
    every = single.SHORT + single.LONG + cluster.ALL
    known = {scenario.__name__: scenario for scenario in [*every, emulated.emulated, figures.figures, figures.ingest]}
    if names == ["short"]:
        names = [scenario.__name__ for scenario in single.SHORT]
        failed = at_once(names, binary)
    else:
        names = names if names not in ([], ["all"]) else [scenario.__name__ for scenario in every]
        failed = [name for name in names if not run(known[name], binary)]
    print(f"{len(names) - len(failed)} of {len(names)} scenarios passed" + (f"; failed: {', '.join(failed)}" if failed else ""))
    sys.exit(bool(failed))


main()
