"""What the browser's tests share: checks with a deadline, programs with their logs, and headless Chromium. BROKER in the
environment names another program to run as the broker."""
import os
import subprocess
import sys
import time
from pathlib import Path

from selenium import webdriver
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service

BINARY, WORK = sys.argv[1], Path(sys.argv[2])
BROKER = os.environ.get("BROKER", BINARY)
PATIENCE_S = int(os.environ.get("PATIENCE", "30"))
failures = []
processes = []


def check(name, holds, patience=PATIENCE_S):
    """Waits until `holds` is true; returns the seconds that took."""
    start, why = time.monotonic(), ""
    while time.monotonic() - start < patience:
        try:
            if holds():
                took = time.monotonic() - start
                print(f"ok    {name} ({took:.1f} s)")
                return took
        except Exception as error:
            why = f": {error}"
        time.sleep(0.02)
    failures.append(name)
    print(f"FAIL  {name}{why}")
    return None


def start(log, program, *arguments):
    # Caddy writes its configuration below HOME, and into the working folder where there is none.
    environment = {"PATH": os.environ["PATH"], "NO_COLOR": "1", "HOME": str(WORK)}
    process = subprocess.Popen([program, *arguments], env=environment, stderr=open(WORK / log, "w"), stdout=subprocess.DEVNULL)
    processes.append(process)
    return process


def logged(log, text):
    """Waits for the line of `log` that contains `text`; returns the port in it."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        for line in (WORK / log).read_text().splitlines():
            if text in line:
                return line.rsplit(":", 1)[1].strip()
        time.sleep(0.05)
    raise SystemExit(f"{log} has no line with `{text}`:\n{(WORK / log).read_text()}")


def browser(language="en-GB"):
    options = Options()
    for argument in ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars"]:
        options.add_argument(argument)
    options.add_experimental_option("prefs", {"intl.accept_languages": language})
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    return webdriver.Chrome(options=options, service=Service("/usr/bin/chromedriver"))


def shape(page, width, height, dark):
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]})
    page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride",
                         {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600})


def stop():
    """Ends the programs that still run."""
    for process in processes:
        if process.poll() is None:
            process.terminate()
            process.wait(PATIENCE_S)


def verdict():
    print(f"{len(failures)} failed")
    sys.exit(1 if failures else 0)
