"""What the browser's tests share: checks with a deadline, programs with their logs, and headless Chromium. BROKER in the
environment names another program to run as the broker."""
import os
import re
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
    for argument in ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars",
                     # Names that the broker does not know.
                     "--host-resolver-rules=MAP *.example 127.0.0.1"]:
        options.add_argument(argument)
    options.add_experimental_option("prefs", {"intl.accept_languages": language})
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    return webdriver.Chrome(options=options, service=Service("/usr/bin/chromedriver"))


def shape(page, width, height, dark):
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]})
    page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride",
                         {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600})


def violations(page):
    """What axe-core, whose script is the third argument of the program, finds."""
    page.execute_script(Path(sys.argv[3]).read_text())
    found = page.execute_async_script("const done = arguments[arguments.length - 1]; axe.run(document).then(done);")
    return [f"{rule['id']}: {node['html'][:120]}" for rule in found["violations"] for node in rule["nodes"]]


def accessible(page, name):
    """Checks that nothing is wider than the screen, and that axe finds nothing: light and dark, on a phone and a desktop."""
    for scheme, dark in [("light", False), ("dark", True)]:
        for width in [390, 1280]:
            shape(page, width, 900, dark)
            wide = lambda: page.execute_script("return document.documentElement.scrollWidth <= innerWidth")
            check(f"{name}, {scheme}, {width} px: nothing is wider than the screen", wide, 3)
            found = violations(page)
            check(f"{name}, {scheme}, {width} px: axe finds nothing {found or ''}", lambda: not found, 0.1)
    shape(page, 1280, 900, False)


# Words that are the same in both languages, and names.
ENGLISH_ALLOWED = {"humidor", "CSV", "API", "C"}


def english_sentences(page):
    """How many texts a page shows, and those among them that are English sentences. Commands are the same in each language."""
    texts = page.execute_script("""
        const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT), found = [];
        while (walker.nextNode()) {
          const parent = walker.currentNode.parentElement;
          if (parent.checkVisibility() && !parent.closest("script, noscript, .uplot, code, pre")) found.push(walker.currentNode.data.trim());
        }
        for (const element of document.querySelectorAll("[aria-label], [title], [placeholder]"))
          for (const name of ["aria-label", "title", "placeholder"]) found.push(element.getAttribute(name) ?? "");
        return found.filter((text) => text);""")
    # Korean text quotes commands and settings; a topic is a name.
    quoted = re.compile(r"humidor user [a-z -]+|[A-Z]+_[A-Z_]+(=\S+)?|\S+[/=]\S+")
    words = lambda text: set(re.findall(r"(?<!\S)[A-Za-z]{2,}(?=[.,:;!?”]?(?:\s|$))", quoted.sub("", text))) - ENGLISH_ALLOWED
    return len(texts), [text for text in texts if len(words(text)) > 2]


def stop():
    """Ends the programs that still run."""
    for process in processes:
        if process.poll() is None:
            process.terminate()
            process.wait(PATIENCE_S)


def verdict():
    print(f"{len(failures)} failed")
    sys.exit(1 if failures else 0)
