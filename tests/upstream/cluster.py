"""Scenarios with three PostgreSQL servers under Patroni and etcd, and two brokers."""

import json
import os
import shutil
import signal
import subprocess
import time
import urllib.request

from board import Board
from servers import BIN, OWNER, Broker, certificate, free_port, kill, tree, upstream_env, wait
from single import boards, check, drained, say

TTL = 20
# Longest time without an acknowledgement while the leader is replaced.
GAP_S = TTL + 10


class Cluster:
    """Three of each, synchronous: without a standby nothing commits."""

    def __init__(self, servers):
        self.servers = servers
        folder = servers.folder
        self.ca = certificate(folder, "pg")
        peers, clients = [free_port() for _ in range(3)], [free_port() for _ in range(3)]
        self.etcd_commands = []
        first = ",".join(f"e{n}=http://127.0.0.1:{peers[n]}" for n in range(3))
        for n in range(3):
            self.etcd_commands.append([
                "etcd", "--name", f"e{n}", "--data-dir", f"{folder}/e{n}", "--enable-v2=true", "--log-level", "error",
                "--listen-peer-urls", f"http://127.0.0.1:{peers[n]}", "--initial-advertise-peer-urls", f"http://127.0.0.1:{peers[n]}",
                "--listen-client-urls", f"http://127.0.0.1:{clients[n]}", "--advertise-client-urls", f"http://127.0.0.1:{clients[n]}",
                "--initial-cluster", first, "--initial-cluster-state", "new",
            ])
        self.etcd = [servers.start(command, f"e{n}.log") for n, command in enumerate(self.etcd_commands)]
        self.ports, self.rest = [free_port() for _ in range(3)], [free_port() for _ in range(3)]
        for n in range(3):
            home = f"{folder}/p{n}"
            os.makedirs(home)
            if os.geteuid() == 0:
                os.chown(home, OWNER.pw_uid, OWNER.pw_gid)
            config = {
                "scope": "humidor", "name": f"p{n}",
                "restapi": {"listen": f"127.0.0.1:{self.rest[n]}", "connect_address": f"127.0.0.1:{self.rest[n]}"},
                "etcd3": {"hosts": [f"127.0.0.1:{port}" for port in clients]},
                "bootstrap": {
                    "dcs": {
                        "ttl": TTL, "loop_wait": 2, "retry_timeout": 4, "maximum_lag_on_failover": 1048576,
                        "synchronous_mode": True, "synchronous_mode_strict": True,
                        "postgresql": {"use_pg_rewind": True, "parameters": {"wal_level": "replica", "max_connections": 40, "wal_keep_size": "256MB", "wal_log_hints": "on"}},
                    },
                    "initdb": [{"encoding": "UTF8"}, {"locale": "C"}, {"auth-host": "scram-sha-256"}, {"auth-local": "trust"}],
                },
                "postgresql": {
                    "listen": f"127.0.0.1:{self.ports[n]}", "connect_address": f"127.0.0.1:{self.ports[n]}",
                    "data_dir": f"{home}/data", "bin_dir": BIN, "pgpass": f"{home}/pgpass",
                    "authentication": {"superuser": {"username": "postgres", "password": "root"}, "replication": {"username": "copier", "password": "copies"}, "rewind": {"username": "rewinder", "password": "rewinds"}},
                    "pg_hba": ["local all all trust", "host replication copier 127.0.0.1/32 scram-sha-256", "host all all 127.0.0.1/32 scram-sha-256"],
                    "parameters": {"unix_socket_directories": home, "ssl": "on", "ssl_cert_file": f"{folder}/pg.crt", "ssl_key_file": f"{folder}/pg.key", "shared_buffers": "32MB"},
                },
            }
            with open(f"{folder}/p{n}.yml", "w") as file:
                json.dump(config, file)
        self.patroni = [None] * 3
        for n in range(3):
            self.start(n)
        wait("a leader and a synchronous standby", lambda: self.leader() is not None and self.standby() is not None, 120)

    def start(self, n):
        self.patroni[n] = self.servers.start(["patroni", f"{self.servers.folder}/p{n}.yml"], f"p{n}.log", owner=True, env={"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8", "HOME": f"{self.servers.folder}/p{n}"})

    def members(self):
        for port in self.rest:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/cluster", timeout=2) as answer:
                    return json.load(answer)["members"]
            except (OSError, ValueError, KeyError):
                continue
        return []

    def role(self, *roles):
        for member in self.members():
            if member["role"] in roles and member.get("state") in ("running", "streaming"):
                return int(member["name"][1:])
        return None

    def leader(self):
        return self.role("leader", "master")

    def standby(self):
        return self.role("sync_standby")

    def sql(self, query, database="postgres", check=True, n=None):
        n = self.leader() if n is None else n
        done = subprocess.run(
            [f"{BIN}/psql", "-XAtq", "-v", "ON_ERROR_STOP=1", "-h", f"{self.servers.folder}/p{n}", "-p", str(self.ports[n or 0]), "-U", "postgres", "-d", database, "-c", query],
            capture_output=True, text=True, env={"PGCONNECT_TIMEOUT": "3"},
        )
        if check and done.returncode:
            raise AssertionError(f"{query}: {done.stderr}")
        return done.stdout.strip()

    def rows(self, query):
        wait("a leader", lambda: self.leader() is not None, 60)
        return self.sql(query, "humidor")

    def kill(self, n):
        """Patroni, the postmaster and its children at once."""
        pids = tree(self.patroni[n].pid)
        try:
            with open(f"{self.servers.folder}/p{n}/data/postmaster.pid") as file:
                pids += tree(int(file.readline()))
        except (OSError, ValueError):
            pass
        for pid in set(pids):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        self.patroni[n].wait(30)

    def signal(self, n, number):
        with open(f"{self.servers.folder}/p{n}/data/postmaster.pid") as file:
            pids = tree(int(file.readline()))
        for pid in set(tree(self.patroni[n].pid) + pids):
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                pass

    def whole(self, limit=120):
        wait("three members, one synchronous", lambda: self.leader() is not None and self.standby() is not None
             and sum(member.get("state") in ("running", "streaming") for member in self.members()) == 3, limit)


class Watch:
    """The longest time in which no board was acknowledged."""

    def __init__(self, started):
        self.boards, self.longest, self.since = started, 0.0, time.monotonic()
        self.count = self.total()

    def total(self):
        return sum(len(board.acknowledged) for board in self.boards)

    def look(self):
        now, count = time.monotonic(), self.total()
        self.longest = max(self.longest, now - self.since)
        if count > self.count:
            self.count, self.since = count, now

    def run(self, seconds):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.look()
            time.sleep(0.05)

    def until_acknowledged(self, limit):
        self.look()
        before, end = self.count, time.monotonic() + limit
        while self.count == before:
            assert time.monotonic() < end, f"nothing acknowledged for {limit} s"
            self.look()
            time.sleep(0.05)


def failures(servers, broker):
    """Two brokers, boards that change between them, HUMIDOR_ACK=upstream on one: every part is killed in turn."""
    cluster = Cluster(servers)
    cluster.sql("CREATE ROLE owner LOGIN PASSWORD 'owns'; CREATE ROLE humidor LOGIN PASSWORD 'hush'")
    cluster.sql("CREATE DATABASE humidor OWNER owner")
    done = broker("upstream", "migrate", "--grant", "humidor", env=upstream_env(cluster.ports, cluster.ca, "owner", "owns"))
    assert done.returncode == 0, done.stderr
    env = upstream_env(cluster.ports, cluster.ca)
    one = Broker(servers, broker.binary, "one", env | {"HUMIDOR_ACK": "upstream"}).start()
    two = Broker(servers, broker.binary, "two", env).start()
    away = boards([one.port], count=2, rate=150, patience=4.0)
    both = [Board(f"r{n}", [one.port, two.port], rate=150, patience=4.0) for n in range(4)]
    for board in both:
        board.start()
    load, watch = away + both, Watch(away)
    watch.until_acknowledged(30)

    def settled(what):
        watch.until_acknowledged(60)
        cluster.whole()
        say(f"{what}: longest time without an acknowledgement {watch.longest:.1f} s")
        assert watch.longest <= GAP_S, watch.longest
        watch.longest = 0.0

    cluster.rows("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'humidor'")
    watch.run(2)
    settled("the forwarders' connections")
    two.restart()
    watch.run(2)
    one.restart()
    settled("each broker")
    for n in range(2):
        leader = cluster.leader()
        cluster.kill(leader)
        watch.run(1)
        wait("another leader", lambda: cluster.leader() not in (None, leader), 60)
        watch.until_acknowledged(GAP_S)
        cluster.start(leader)
        settled(f"the leader, kill -9 ({n + 1})")
    standby = cluster.standby()
    cluster.kill(standby)
    watch.run(1)
    cluster.start(standby)
    settled("the synchronous standby")
    leader = cluster.leader()
    cluster.signal(leader, signal.SIGSTOP)
    watch.run(30)
    cluster.signal(leader, signal.SIGCONT)
    settled("the leader frozen for 30 s, and woken")
    one.kill()
    two.kill()
    watch.run(1)
    one.start()
    two.start()
    settled("both brokers at once")
    # Etcd's majority away: the leader steps down, and nothing is acknowledged until it is back.
    for n in range(2):
        kill(cluster.etcd[n])
    watch.run(TTL + 5)
    for n in range(2):
        command = [*cluster.etcd_commands[n][:-1], "existing"]
        cluster.etcd[n] = servers.start(command, f"e{n}.log")
    watch.until_acknowledged(90)
    watch.longest = 0.0
    cluster.whole()
    say("etcd's majority away for 25 s")
    # The hall whose readings are acknowledged by PostgreSQL loses its disk.
    one.kill()
    shutil.rmtree(one.data)
    one.start()
    settled("the disk of the hall with HUMIDOR_ACK=upstream deleted")
    drained(load)
    one.caught_up(90)
    two.caught_up(90)
    check(cluster, load, "all of it")


def standstill(servers, broker):
    """Without any standby nothing is acknowledged with HUMIDOR_ACK=upstream, and nothing is lost."""
    cluster = Cluster(servers)
    cluster.sql("CREATE ROLE owner LOGIN PASSWORD 'owns'; CREATE ROLE humidor LOGIN PASSWORD 'hush'")
    cluster.sql("CREATE DATABASE humidor OWNER owner")
    done = broker("upstream", "migrate", "--grant", "humidor", env=upstream_env(cluster.ports, cluster.ca, "owner", "owns"))
    assert done.returncode == 0, done.stderr
    hall = Broker(servers, broker.binary, "hall", upstream_env(cluster.ports, cluster.ca) | {"HUMIDOR_ACK": "upstream"}).start()
    load = boards([hall.port], rate=150, patience=4.0)
    watch = Watch(load)
    watch.until_acknowledged(30)
    leader = cluster.leader()
    others = [n for n in range(3) if n != leader]
    for n in others:
        cluster.kill(n)
    time.sleep(3)
    before = watch.total()
    time.sleep(8)
    assert watch.total() == before, "acknowledged without a standby"
    for n in others:
        cluster.start(n)
    watch.until_acknowledged(90)
    drained(load, 180)
    hall.caught_up(90)
    check(cluster, load, "both standbys away for 11 s")


ALL = [failures, standstill]
