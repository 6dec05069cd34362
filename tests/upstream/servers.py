"""PostgreSQL, Patroni, etcd and humidor on loopback, in a temporary folder, started and stopped by their process ids."""

import glob
import json
import os
import pwd
import shutil
import signal
import socket
import subprocess
import time
import urllib.request

BIN = sorted(glob.glob("/usr/lib/postgresql/*/bin"))[-1]
OWNER = pwd.getpwnam("postgres")


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait(what, condition, limit=30.0):
    """Waits for a condition; its value."""
    end = time.monotonic() + limit
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(f"not within {limit} s: {what}")
        time.sleep(0.05)


def as_owner(command, **options):
    """PostgreSQL refuses to run as root."""
    if os.geteuid() == 0:
        options |= {"user": OWNER.pw_uid, "group": OWNER.pw_gid, "extra_groups": []}
    return subprocess.Popen(command, **({"start_new_session": True} | options))


def tree(pid):
    """A process and its descendants, the youngest last."""
    found = [pid]
    for path in glob.glob(f"/proc/{pid}/task/*/children"):
        try:
            with open(path) as children:
                for child in children.read().split():
                    found += tree(int(child))
        except OSError:
            pass
    return found


def kill(process, number=signal.SIGKILL):
    """Ends a process with all that it started."""
    for pid in tree(process.pid):
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            pass
    try:
        process.wait(30)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


class Servers:
    """What a scenario has started; all of it is ended with it."""

    def __init__(self, folder):
        self.folder = folder
        self.running = []
        # A session of its own for each: with autogroups the kernel shares processors by sessions.
        self.apart = True
        os.makedirs(folder, exist_ok=True)
        os.chmod(folder, 0o755)

    def start(self, command, log, owner=False, env=None):
        with open(os.path.join(self.folder, log), "ab") as out:
            options = {"stdout": out, "stderr": out, "stdin": subprocess.DEVNULL, "cwd": "/", "env": env}
            options["start_new_session"] = self.apart
            process = as_owner(command, **options) if owner else subprocess.Popen(command, **options)
        self.running.append(process)
        return process

    def end(self):
        for process in reversed(self.running):
            if process.poll() is None:
                for pid in tree(process.pid):
                    try:
                        os.kill(pid, signal.SIGCONT)
                    except ProcessLookupError:
                        pass
                kill(process)

    def text(self, log):
        with open(os.path.join(self.folder, log), errors="replace") as file:
            return file.read()


def certificate(folder, name, how="good"):
    """A server's certificate and key, as the advice or as PostgreSQL's manual has them. Returns the certificate."""
    key, crt = os.path.join(folder, f"{name}.key"), os.path.join(folder, f"{name}.crt")
    begin = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "825"]
    good = ["-addext", "basicConstraints=critical,CA:FALSE", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    if how == "good":
        commands = [begin + ["-subj", "/CN=localhost", *good, "-keyout", key, "-out", crt]]
    elif how == "self-signed":  # 19.9.5: openssl req -new -x509 -days 365 -nodes
        commands = [["openssl", "req", "-new", "-x509", "-days", "365", "-nodes", "-subj", "/CN=localhost", "-keyout", key, "-out", crt]]
    elif how == "other-name":
        other = ["-addext", "basicConstraints=critical,CA:FALSE", "-addext", "subjectAltName=DNS:pg.example.org"]
        commands = [begin + ["-subj", "/CN=pg", *other, "-keyout", key, "-out", crt]]
    elif how == "version-1":  # 19.9.5: openssl x509 -req of a request, signed by an authority
        root = os.path.join(folder, f"{name}.root")
        commands = [
            ["openssl", "req", "-new", "-x509", "-days", "365", "-nodes", "-subj", "/CN=root", "-keyout", f"{root}.key", "-out", f"{root}.crt"],
            ["openssl", "req", "-new", "-nodes", "-subj", "/CN=localhost", "-keyout", key, "-out", f"{root}.csr"],
            ["openssl", "x509", "-req", "-in", f"{root}.csr", "-days", "365", "-CA", f"{root}.crt", "-CAkey", f"{root}.key", "-CAcreateserial", "-out", crt],
        ]
    elif how in ("expired", "not-yet"):
        days = {"expired": ("20200101000000Z", "20210101000000Z"), "not-yet": ("20900101000000Z", "20910101000000Z")}[how]
        base = os.path.join(folder, f"{name}.{how}")
        with open(f"{base}.cnf", "w") as file:
            file.write(
                f"[ca]\ndefault_ca=one\n[one]\ndatabase={base}.txt\nnew_certs_dir={folder}\nrand_serial=yes\ndefault_md=sha256\npolicy=any\n"
                "x509_extensions=good\nunique_subject=no\n[any]\ncommonName=supplied\n"
                "[good]\nbasicConstraints=critical,CA:FALSE\nsubjectAltName=DNS:localhost,IP:127.0.0.1\n"
            )
        open(f"{base}.txt", "w").close()
        commands = [
            ["openssl", "req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=localhost", "-keyout", key, "-out", f"{base}.csr"],
            ["openssl", "ca", "-batch", "-notext", "-selfsign", "-config", f"{base}.cnf", "-keyfile", key, "-in", f"{base}.csr", "-startdate", days[0], "-enddate", days[1], "-out", crt],
        ]
    else:
        raise ValueError(how)
    for command in commands:
        subprocess.run(command, check=True, capture_output=True)
    if os.geteuid() == 0:
        os.chown(key, OWNER.pw_uid, OWNER.pw_gid)
    os.chmod(key, 0o600)
    return f"{root}.crt" if how == "version-1" else crt


class Postgres:
    """One server with TLS and passwords."""

    def __init__(self, servers, name="pg", how="good"):
        self.servers, self.name = servers, name
        self.data = os.path.join(servers.folder, name)
        self.port = free_port()
        self.ca = certificate(servers.folder, name, how)
        os.makedirs(self.data)
        if os.geteuid() == 0:
            os.chown(self.data, OWNER.pw_uid, OWNER.pw_gid)
        init = as_owner(
            [f"{BIN}/initdb", "-D", self.data, "-U", "postgres", "--auth-local=trust", "--auth-host=scram-sha-256", "-E", "UTF8", "--locale=C", "--no-sync"],
            stdout=subprocess.DEVNULL, cwd="/",
        )
        assert init.wait() == 0
        with open(os.path.join(self.data, "postgresql.auto.conf"), "a") as file:
            file.write(
                f"port = {self.port}\nlisten_addresses = '127.0.0.1'\nunix_socket_directories = '{self.data}'\n"
                f"ssl = on\nssl_cert_file = '{servers.folder}/{name}.crt'\nssl_key_file = '{servers.folder}/{name}.key'\n"
                "shared_buffers = 32MB\nmax_connections = 30\n"
            )
        self.process = None

    def start(self, clock=None):
        """With `clock` as faketime takes it, `+365d`, its own clock is off."""
        command = [f"{BIN}/postgres", "-D", self.data]
        if clock:
            command = ["faketime", "-f", clock, *command]
        self.process = self.servers.start(command, f"{self.name}.log", owner=True)
        wait("PostgreSQL answers", lambda: self.sql("SELECT 1", check=False) == "1", 60)
        return self

    def kill(self):
        """Postmaster and children at once, as a power cut would."""
        kill(self.process)

    def stop(self):
        with open(os.path.join(self.data, "postmaster.pid")) as file:
            os.kill(int(file.readline()), signal.SIGINT)
        self.process.wait(60)

    def sql(self, query, database="postgres", check=True):
        done = subprocess.run(
            [f"{BIN}/psql", "-XAtq", "-v", "ON_ERROR_STOP=1", "-h", self.data, "-p", str(self.port), "-U", "postgres", "-d", database, "-c", query],
            capture_output=True, text=True, env={"PGCONNECT_TIMEOUT": "3"},
        )
        if check and done.returncode:
            raise AssertionError(f"{query}: {done.stderr}")
        return done.stdout.strip()

    def database(self, humidor):
        """The database, its owner, the forwarder's user, and the tables."""
        self.sql("CREATE ROLE owner LOGIN PASSWORD 'owns'; CREATE ROLE humidor LOGIN PASSWORD 'hush'")
        self.sql("CREATE DATABASE humidor OWNER owner")
        done = humidor("upstream", "migrate", "--grant", "humidor", env=upstream_env([self.port], self.ca, "owner", "owns"))
        assert done.returncode == 0, done.stderr
        return self

    def rows(self, query):
        return self.sql(query, "humidor")


def upstream_env(ports, ca, user="humidor", password="hush", host="localhost"):
    return {
        "HUMIDOR_UPSTREAM": f"postgres://{user}@{','.join(f'{host}:{port}' for port in ports)}/humidor",
        "HUMIDOR_UPSTREAM_PASSWORD": password,
        "HUMIDOR_UPSTREAM_CA": ca,
    }


class Broker:
    """A humidor broker."""

    def __init__(self, servers, binary, name, env):
        self.servers, self.binary, self.name = servers, binary, name
        self.data = os.path.join(servers.folder, name)
        self.port, self.http = free_port(), free_port()
        self.env = {
            "PATH": os.environ["PATH"], "HUMIDOR_DATA": self.data, "HUMIDOR_MQTT_LISTEN": f"127.0.0.1:{self.port}",
            "HUMIDOR_HTTP_LISTEN": f"127.0.0.1:{self.http}", "HUMIDOR_ANONYMOUS": "yes", "HUMIDOR_DISCOVERY": "off",
        } | env
        self.process = None

    def start(self, **env):
        self.env |= env
        self.process = self.servers.start([self.binary, "broker"], f"{self.name}.log", env=self.env)
        wait(f"{self.name} serves", lambda: self.listens() or self.process.poll() is not None)
        assert self.process.poll() is None, self.log()[-2000:]
        return self

    def listens(self):
        try:
            socket.create_connection(("127.0.0.1", self.http), 1).close()
            return True
        except OSError:
            return False

    def kill(self):
        kill(self.process)

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(30)
        return self.process.returncode

    def restart(self, **env):
        self.kill()
        return self.start(**env)

    def log(self):
        return self.servers.text(f"{self.name}.log")

    def run(self, *arguments):
        return subprocess.run([self.binary, *arguments], env=self.env, capture_output=True, text=True)

    def metrics(self):
        with socket.create_connection(("127.0.0.1", self.http), 5) as http:
            http.sendall(b"GET /metrics HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
            answer = b""
            while more := http.recv(65536):
                answer += more
        found = {}
        for line in answer.decode().splitlines():
            if line and not line.startswith("#") and " " in line:
                name, value = line.rsplit(" ", 1)
                try:
                    found[name] = float(value)
                except ValueError:
                    pass
        return found

    def json(self, path):
        with urllib.request.urlopen(f"http://127.0.0.1:{self.http}{path}", timeout=10) as answer:
            return json.load(answer)

    def caught_up(self, limit=60):
        wait(
            f"{self.name} has forwarded all",
            lambda: (now := self.metrics()).get("humidor_upstream_connected") == 1 and now.get("humidor_upstream_lag") == 0,
            limit,
        )

    def copy_of(self, other):
        shutil.copytree(other.data, self.data)
        return self
