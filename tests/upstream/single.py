"""Scenarios with one PostgreSQL."""

import json
import os
import re
import shutil
import socket
import sqlite3
import time

from board import Board, Mqtt
from servers import Broker, Postgres, certificate, upstream_env, wait

DAY_MS = 86_400_000


def say(text):
    print(f"  {text}", flush=True)


def missing(postgres, boards):
    """Acknowledged readings that PostgreSQL lacks, and rows that are there twice."""
    lacks = twice = rows = 0
    for board in boards:
        found = postgres.rows(f"SELECT seq FROM humidor.readings WHERE node = '{board.node}' AND boot = '{board.boot}'").split()
        found = [int(seq) for seq in found]
        rows += len(found)
        twice += len(found) - len(set(found))
        lacks += len(board.acknowledged - set(found))
    return lacks, twice, rows


def check(postgres, boards, what):
    lacks, twice, rows = missing(postgres, boards)
    acknowledged = sum(len(board.acknowledged) for board in boards)
    holes = postgres.rows(
        "SELECT count(*) FROM (SELECT node, boot, max(seq) - count(*) AS holes FROM humidor.reading GROUP BY node, boot) AS runs WHERE holes > 0"
    )
    say(f"{what}: {acknowledged} acknowledged, {rows} upstream, {lacks} missing, {twice} twice, {holes} runs with holes")
    assert (lacks, twice, holes) == (0, 0, "0"), what
    assert acknowledged > 0


def boards(ports, count=4, **how):
    started = [Board(f"b{n}", ports, **how) for n in range(count)]
    for board in started:
        board.start()
    return started


def drained(started, limit=60):
    for board in started:
        board.draining.set()
    assert all([board.drain(limit) for board in started]), "boards were not acknowledged"


def reading(seq, at=None, clock="synced", mono=None, temperature=20.5, **more):
    at = int(time.time() * 1000) if at is None else at
    return json.dumps({"boot": "run", "seq": seq, "at": at, "clock": clock, "mono": seq if mono is None else mono, "temperature": temperature} | more).encode()


def publish(broker, messages, node="press", timeout=10.0):
    """Publishes (topic or number, payload) and waits for all acknowledgements."""
    mqtt = Mqtt(broker.port, f"client-{time.time_ns()}", timeout)
    mqtt.publish([(n + 1, topic or f"humidor/{node}/sensor/hall", payload) for n, (topic, payload) in enumerate(messages)])
    for _ in messages:
        mqtt.acknowledged()
    mqtt.close()


def forwarded(servers, broker):
    """Readings, samples, alarms and corrected times; PostgreSQL and the broker killed under load."""
    postgres = Postgres(servers).start().database(broker)
    hall = Broker(servers, broker.binary, "hall", upstream_env([postgres.port], postgres.ca) | {
        "HUMIDOR_LOGGED_FILTERS": "plant/#", "HUMIDOR_ALARMS": "hot=press/hall:temperature>30", "HUMIDOR_KEEP_RAW": "2d",
    }).start()
    now = int(time.time() * 1000)
    # A clock that is set later, a reading too old for a row, a hot one, and another publisher's numbers.
    publish(hall, [(None, reading(seq, at=5000 + seq, clock="unsynced", mono=seq * 100)) for seq in range(1, 6)])
    publish(hall, [(None, reading(6, at=now, mono=600)), (None, reading(7, at=now - 30 * DAY_MS)), (None, reading(8, temperature=31.5))])
    publish(hall, [("plant/press", b'{"bar": 81.5, "rpm": 3}'), ("plant/mill", b"7")])
    hall.caught_up()
    rows = postgres.rows("SELECT seq, at, clock FROM humidor.readings WHERE node = 'press' ORDER BY seq").splitlines()
    assert rows[:5] == [f"{seq}|{now - 600 + seq * 100}|restamped" for seq in range(1, 6)], rows
    assert [row.split("|")[2] for row in rows[5:]] == ["synced"] * 3 and rows[6].split("|")[1] == str(now - 30 * DAY_MS), rows
    assert postgres.rows("SELECT topic, field, value FROM humidor.samples ORDER BY 1, 2") == "plant/mill||7\nplant/press|bar|81.5\nplant/press|rpm|3"
    wait("the alarm is upstream", lambda: postgres.rows("SELECT name, state FROM humidor.alarms") == "hot|ON")
    say("readings, corrected times, samples and alarms are upstream")

    load = boards([hall.port])
    time.sleep(1.5)
    for _ in range(2):
        postgres.kill()
        time.sleep(0.5)
        postgres.start()
        time.sleep(1)
        hall.restart()
        time.sleep(1)
    postgres.rows("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'humidor'")
    time.sleep(0.5)
    drained(load)
    hall.caught_up()
    check(postgres, load, "PostgreSQL and the broker killed twice each")
    # A board whose readings go to two halls has holes in each, and none upstream.
    publish(hall, [(None, reading(seq)) for seq in (1, 2, 5, 9)], "mover")
    other = Broker(servers, broker.binary, "other", upstream_env([postgres.port], postgres.ca)).start()
    publish(other, [(None, reading(seq)) for seq in (3, 4, 7, 8)], "mover")
    other.caught_up()
    other.stop()
    gaps = hall.run("db", "gaps")
    assert gaps.returncode == 65 and "6..=6" in gaps.stdout and len(gaps.stdout.splitlines()) == 1, gaps
    done = hall.run("upstream", "status")
    assert done.returncode == 0 and "this broker's log, up to date" in done.stdout, done
    assert "PostgreSQL: up to date" in hall.run("health").stdout
    return postgres, hall


def restored(servers, broker):
    """PostgreSQL comes back as it was some time ago: first within the queue, then with one that does not reach back."""
    postgres = Postgres(servers).start().database(broker)
    hall = Broker(servers, broker.binary, "hall", upstream_env([postgres.port], postgres.ca) | {"HUMIDOR_UPSTREAM_BACKLOG": "1MiB"}).start()
    # The queue takes 50 s of them: a busy machine needs as long until PostgreSQL is back.
    load = boards([hall.port], rate=100)
    time.sleep(1)
    postgres.stop()
    copy = f"{postgres.data}.copy"
    shutil.copytree(postgres.data, copy)
    os.chown(copy, os.stat(postgres.data).st_uid, os.stat(postgres.data).st_gid)
    for path, folders, files in os.walk(copy):
        for name in folders + files:
            os.chown(os.path.join(path, name), os.stat(postgres.data).st_uid, os.stat(postgres.data).st_gid)
    postgres.start()
    time.sleep(1.5)
    for what in ["restored within the queue", "restored from before the queue"]:
        hall.caught_up()
        before, told = hall.metrics()["humidor_upstream_forwarded_total"], len(hall.log())
        postgres.kill()
        shutil.rmtree(postgres.data)
        shutil.copytree(copy, postgres.data)
        for path, folders, files in os.walk(postgres.data):
            for name in [""] + folders + files:
                os.chown(os.path.join(path, name), os.stat(copy).st_uid, os.stat(copy).st_gid)
        os.chmod(postgres.data, 0o700)
        postgres.start()
        # What the copy said when the session began: a moment later it has all of it.
        session = wait("another session", lambda: re.search(r" (?:forwarded|from)=(\d+) ", hall.log()[told:]))
        assert int(session[1]) < before, "the copy is older"
        if what == "restored within the queue":
            hall.caught_up()
            # The queue keeps 5,000 readings of them.
            publish_many(hall, 12_000)
            wait("the queue is short", lambda: queue_begin(hall) > 0, 40)
    drained(load)
    hall.caught_up()
    assert "sending stored readings" in hall.log(), hall.log()
    rows = postgres.rows("SELECT count(*) FROM humidor.reading WHERE node = 'many'")
    assert rows == "12000", rows
    check(postgres, load, "restored twice")


def publish_many(hall, count, node="many"):
    for first in range(1, count + 1, 1000):
        publish(hall, [(None, reading(seq)) for seq in range(first, first + 1000)], node)


def queue_begin(hall):
    log = sqlite3.connect(f"file:{hall.data}/humidor.db?mode=ro", uri=True)
    try:
        return log.execute("SELECT coalesce(min(position - operations), 0) FROM forward").fetchone()[0]
    finally:
        log.close()


def refused(servers, broker):
    """Rows that the database does not take are kept apart and block nothing."""
    postgres = Postgres(servers).start().database(broker)
    postgres.rows("ALTER TABLE humidor.reading ADD CHECK (temperature < 50)")
    hall = Broker(servers, broker.binary, "hall", upstream_env([postgres.port], postgres.ca) | {"HUMIDOR_LOGGED_FILTERS": "plant/#"}).start()
    publish(hall, [(None, reading(seq, temperature=60 if seq in (3, 70) else 20)) for seq in range(1, 101)])
    publish(hall, [("plant/a", b'{"a\\u0000b": 1, "c": 2}')])
    publish(hall, [(None, reading(seq)) for seq in range(101, 200)])
    hall.caught_up()
    assert postgres.rows("SELECT count(*), max(seq) FROM humidor.reading") == "197|199"
    assert postgres.rows("SELECT field FROM humidor.samples") == "c"
    kept = postgres.rows("SELECT content FROM humidor.refused ORDER BY position")
    assert len(kept.splitlines()) == 3 and "seq: 3," in kept and "seq: 70," in kept and "a\\0b" in kept, kept
    assert hall.metrics()["humidor_upstream_refused_total"] == 3
    say("3 rows refused and kept, 198 behind them taken")


def bulk(servers, broker):
    """Many at once, as COPY takes them: repeats of another hall, refused rows, and a table that COPY cannot fill."""
    postgres = Postgres(servers).start().database(broker)
    postgres.sql("ALTER SYSTEM SET log_statement = 'all'")
    postgres.sql("SELECT pg_reload_conf()")
    postgres.rows("ALTER TABLE humidor.reading ADD CHECK (temperature < 50)")
    env = upstream_env([postgres.port], postgres.ca)
    hall = Broker(servers, broker.binary, "hall", env).start()
    other = Broker(servers, broker.binary, "other", env).start()

    def copies():
        return servers.text("pg.log").count(": COPY humidor.reading")

    def late(first, count, hot=(), at=hall):
        """Readings that wait while PostgreSQL is away."""
        postgres.stop()
        for begin in range(first, first + count, 1000):
            publish(at, [(None, reading(seq, temperature=60 if seq in hot else 20)) for seq in range(begin, begin + 1000)], "many")
        postgres.start()

    def check_rows(expected, refused, what):
        for one in (hall, other):
            one.caught_up(60)
        found = postgres.rows("SELECT count(*), count(DISTINCT seq), max(seq) FROM humidor.reading")
        assert found == f"{expected}|{expected}|{expected + refused}", found
        assert postgres.rows("SELECT count(*) FROM humidor.refused") == str(refused)
        say(f"{what}: {expected} rows, {refused} refused, {copies()} COPY")

    late(1, 6000)
    check_rows(6000, 0, "many")
    assert copies() > 0
    # Nothing of a batch with a repeat is taken twice, and nothing is lost.
    late(5001, 3000, at=other)
    check_rows(8000, 0, "with repeats")
    late(8001, 3000, hot=(8500, 9100))
    check_rows(10998, 2, "with refused rows")
    assert hall.metrics()["humidor_upstream_refused_total"] == 2
    # COPY fails before it has read a row, in two ways.
    for n, (how, undo) in enumerate([
        (
            "CREATE FUNCTION raises() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN IF current_query() LIKE 'COPY%' THEN RAISE 'by INSERT only'; END IF; RETURN NULL; END $$;"
            "CREATE TRIGGER first BEFORE INSERT ON humidor.reading FOR EACH STATEMENT EXECUTE FUNCTION raises()",
            "DROP TRIGGER first ON humidor.reading",
        ),
        (
            "ALTER TABLE humidor.reading ENABLE ROW LEVEL SECURITY; CREATE POLICY any_row ON humidor.reading USING (true)",
            "ALTER TABLE humidor.reading DISABLE ROW LEVEL SECURITY",
        ),
    ]):
        postgres.rows(how)
        # A new process has not met a COPY that failed.
        hall.restart()
        hall.caught_up()
        before = copies()
        late(11001 + n * 3000, 3000)
        check_rows(13998 + n * 3000, 2, "by INSERT")
        assert copies() - before == 1, copies() - before
        postgres.rows(undo)
    assert "not forwarding" not in "".join(line for line in hall.log().splitlines() if "policy" in line or "by INSERT" in line), hall.log()


def short_queue(servers, broker):
    """More comes than the queue holds while stored readings are sent, also after an end in their midst: both arrive."""
    postgres = Postgres(servers).start().database(broker)
    hall = Broker(servers, broker.binary, "hall", {}).start()
    publish_many(hall, 60_000)
    hall.stop()
    # A database that takes its time for each statement, and one of a queue of about 20,000.
    postgres.rows(
        "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(0.2); RETURN NULL; END $$;"
        "CREATE TRIGGER slow BEFORE INSERT ON humidor.reading FOR EACH STATEMENT EXECUTE FUNCTION slow()"
    )
    hall.start(**upstream_env([postgres.port], postgres.ca), HUMIDOR_UPSTREAM_BACKLOG="1MiB")
    wait("stored readings are sent", lambda: "sending stored readings" in hall.log())
    sent = 0

    def more(count):
        nonlocal sent
        for first in range(sent + 1, sent + count + 1, 1000):
            publish(hall, [(None, reading(seq)) for seq in range(first, first + 1000)], "later")
        sent += count

    def filling():
        return postgres.rows("SELECT fill_to IS NOT NULL FROM humidor.upstream_cursor") == "t"

    more(5000)
    wait("some of them are there", lambda: filling() and postgres.rows("SELECT fill_run > 0 FROM humidor.upstream_cursor") == "t")
    assert hall.metrics()["humidor_upstream_lag"] > 0, "not whole while stored readings are sent"
    hall.restart()
    begun = time.monotonic()
    while ("stored readings are sent" not in hall.log() or sent < 25_000) and time.monotonic() < begun + 60:
        more(1000)
        time.sleep(0.2)
    hall.caught_up(30)
    found = postgres.rows("SELECT node, count(*), max(seq) FROM humidor.reading GROUP BY node ORDER BY node")
    assert found == f"later|{sent}|{sent}\nmany|60000|60000", found
    assert hall.metrics()["humidor_upstream_overflowed_total"] == 0
    say(f"60,000 stored and {sent:,} that came meanwhile are there, {time.monotonic() - begun:.0f} s after a kill in their midst")


def faults(servers, broker):
    """Every fault is said with its remedy, and forwarding begins when it is mended; clients notice nothing."""
    postgres = Postgres(servers).start()
    hall = Broker(servers, broker.binary, "hall", upstream_env([postgres.port], postgres.ca))
    silent = socket.create_server(("127.0.0.1", 0))

    def told(expected, env, limit=15):
        hall.start(**env)
        publish(hall, [(None, reading(len(expected)))])
        wait(f"`{expected}` is said", lambda: expected in hall.run("health").stdout, limit)
        assert expected in hall.log()
        hall.kill()
        status = hall.run("upstream", "status")
        assert expected in status.stderr and status.returncode != 0, status
        say(f"{status.returncode}: {status.stderr.strip()[:170]}")
        return status.returncode

    good = upstream_env([postgres.port], postgres.ca)
    postgres.sql("CREATE ROLE owner LOGIN PASSWORD 'owns'; CREATE ROLE humidor LOGIN PASSWORD 'hush'")
    assert told("create the database", good) == 78
    postgres.sql("CREATE DATABASE humidor OWNER owner")
    assert told("humidor upstream migrate", good) == 65
    done = broker("upstream", "migrate", env=upstream_env([postgres.port], postgres.ca, "owner", "owns"))
    assert done.returncode == 0, done.stderr
    assert told("--grant USER", good) == 77
    done = broker("upstream", "migrate", "--grant", "humidor", env=upstream_env([postgres.port], postgres.ca, "owner", "owns"))
    assert done.returncode == 0 and "already" in done.stdout, done
    # A login on a busy machine may take longer than its limit.
    wait("a user without rights makes no tables", lambda: broker("upstream", "migrate", env=good).returncode == 77)
    assert told("HUMIDOR_UPSTREAM_PASSWORD_FILE", good | {"HUMIDOR_UPSTREAM_PASSWORD": "other"}) == 77
    assert told("none of the authorities in HUMIDOR_UPSTREAM_CA", good | {"HUMIDOR_UPSTREAM_CA": certificate(servers.folder, "stranger")}) == 78
    assert told("refused", upstream_env([9], postgres.ca), 30) == 69
    postgres.rows("UPDATE humidor.schema_version SET version = 99")
    assert told("use the newer humidor", good) == 65
    postgres.rows("UPDATE humidor.schema_version SET version = 1")
    postgres.sql("ALTER ROLE humidor SET default_transaction_read_only = on")
    assert told("cannot be written", good) == 69
    postgres.sql("ALTER ROLE humidor RESET default_transaction_read_only")
    for how, expected in [("self-signed", "CA:TRUE"), ("version-1", "version 1"), ("other-name", "it is not for `localhost`"), ("expired", "is this machine's clock wrong?"), ("not-yet", "is this machine's clock set?")]:
        for end in ("crt", "key"):
            os.rename(f"{servers.folder}/pg.{end}", f"{servers.folder}/good.{end}")
        ca = certificate(servers.folder, "pg", how)
        postgres.sql("SELECT pg_reload_conf()")
        time.sleep(0.3)
        assert told(expected, good | {"HUMIDOR_UPSTREAM_CA": ca}) == 78
        for end in ("crt", "key"):
            os.rename(f"{servers.folder}/good.{end}", f"{servers.folder}/pg.{end}")
    postgres.sql("SELECT pg_reload_conf()")
    time.sleep(0.3)

    # A server that takes connections and says nothing comes first, then one that is not there.
    ports = [silent.getsockname()[1], 9, postgres.port]
    hall.start(**upstream_env(ports, postgres.ca))
    hall.caught_up()
    assert int(postgres.rows("SELECT count(*) FROM humidor.reading")) > 5
    say("the third server of three is found, and has all readings")
    done = hall.run("config")
    assert "hush" not in done.stdout, done.stdout
    missing_file = hall.env | {"HUMIDOR_UPSTREAM_CA": "/nonexistent"}
    hall.kill()
    hall.env = missing_file
    assert hall.run("broker").returncode == 78


def copied(servers, broker):
    """A copied volume is refused and said; under a new name all of it arrives."""
    postgres = Postgres(servers).start().database(broker)
    env = upstream_env([postgres.port], postgres.ca)
    one = Broker(servers, broker.binary, "one", env).start()
    publish(one, [(None, reading(seq)) for seq in range(1, 51)], "first")
    one.caught_up()
    one.stop()
    two = Broker(servers, broker.binary, "two", env).copy_of(one)
    one.start()
    publish(one, [(None, reading(seq)) for seq in range(51, 81)], "first")
    one.caught_up()
    two.start()
    publish(two, [(None, reading(seq)) for seq in range(1, 101)], "second")
    wait("the copy is refused", lambda: "--rename" in two.run("health").stdout)
    assert postgres.rows("SELECT count(*) FROM humidor.reading WHERE node = 'second'") == "0"
    # The first one goes on.
    publish(one, [(None, reading(seq)) for seq in range(81, 91)], "first")
    one.caught_up()
    done = two.run("upstream", "forward", "--again", "all", "--rename")
    assert done.returncode == 0, done
    two.caught_up(40)
    assert postgres.rows("SELECT node, count(*) FROM humidor.reading GROUP BY node ORDER BY node") == "first|90\nsecond|100"
    publish(one, [(None, reading(seq)) for seq in range(91, 101)], "first")
    one.caught_up()
    say("a copy of the volume is refused, and renamed; 200 of 200 upstream")

def contested(servers, broker):
    """Two brokers of one log's name at work: one goes on undisturbed, the other is refused and told, and neither mixes rows."""
    postgres = Postgres(servers).start().database(broker)
    env = upstream_env([postgres.port], postgres.ca)
    one = Broker(servers, broker.binary, "one", env).start()
    publish(one, [(None, reading(1))], "first")
    one.caught_up()
    one.stop()
    two = Broker(servers, broker.binary, "two", env).copy_of(one)
    one.start()
    two.start()
    own = {one: "third", two: "fourth"}
    for first in range(1, 2001, 100):
        for hall, node in own.items():
            publish(hall, [(None, reading(seq)) for seq in range(first, first + 100)], node)

    def refused():
        return [hall for hall in own if "--rename" in hall.run("health").stdout]

    wait("one of the two is refused for good", lambda: any("entries of this log" in hall.run("health").stdout for hall in own), 90)
    loser = next(hall for hall in own if "entries of this log" in hall.run("health").stdout)
    winner = two if loser == one else one
    winner.caught_up(60)
    # The other one asks again every fifteen seconds.
    complaints, rows = winner.log().count("not forwarding"), 2000
    for _ in range(40):
        publish(winner, [(None, reading(rows + 1))], own[winner])
        rows += 1
        time.sleep(1)
    assert winner.log().count("not forwarding") == complaints, winner.log()
    winner.caught_up(10)
    assert refused() == [loser]
    assert postgres.rows(f"SELECT count(*) FROM humidor.reading WHERE node = '{own[winner]}'") == str(rows)
    # What the other one sent while it was the newest session is there, and the rest follows under a new name.
    done = loser.run("upstream", "forward", "--again", "all", "--rename")
    assert done.returncode == 0, done
    loser.caught_up(60)
    total = rows + 2000
    assert postgres.rows("SELECT count(*) FROM humidor.reading WHERE node IN ('third', 'fourth')") == str(total)
    say(f"{loser.name} is refused, {winner.name} is not disturbed; after a rename {total} of {total} upstream")


def alarmed(servers, broker):
    """A gap is one when no hall has its readings; the copy's own alarm while PostgreSQL is away."""
    postgres = Postgres(servers).start().database(broker)
    env = upstream_env([postgres.port], postgres.ca)
    alarms = "lost=mover:gap:wait=3s:clear=4s,copy=broker:upstream:delay=1s"
    hall = Broker(servers, broker.binary, "hall", env | {"HUMIDOR_ALARMS": alarms}).start()
    other = Broker(servers, broker.binary, "other", env).start()

    def raised(name):
        return hall.metrics()[f'humidor_alarm_raised{{alarm="{name}"}}'] == 1

    wait("the copy is said to be whole", lambda: hall.metrics().get("humidor_upstream_connected") == 1)
    publish(hall, [(None, reading(seq)) for seq in (1, 2)], "mover")
    publish(other, [(None, reading(seq)) for seq in (3, 4)], "mover")
    publish(hall, [(None, reading(seq)) for seq in (5, 6)], "mover")
    time.sleep(6)
    assert not raised("lost"), "the other hall has them"
    # 8 is nowhere, and PostgreSQL is away when it is asked.
    postgres.stop()
    publish(other, [(None, reading(7))], "mover")
    publish(hall, [(None, reading(9))], "mover")
    wait("the alarm about the copy", lambda: raised("copy"))
    status = hall.json("/api/v1/upstream")
    assert status["failing"] and status["lag"] > 0 and "refused" in status["error"], status
    wait("how long the reading has waited is said", lambda: hall.json("/api/v1/upstream")["lag_ms"] > 2_000, 30)
    time.sleep(5)
    assert not raised("lost"), "nobody knows yet"
    postgres.start()
    wait("the alarm about the copy is cleared", lambda: not raised("copy"))
    wait("the alarm about the gap", lambda: raised("lost"), 40)
    told = [alarm for alarm in hall.json("/api/v1/alarms") if alarm["name"] == "lost"]
    assert told[0]["detail"] == "1 missing before #9 of run run", told
    wait("it is over", lambda: not raised("lost"))
    # That it is over is forwarded, too.
    wait("the copy is whole", lambda: (status := hall.json("/api/v1/upstream"))["connected"] and status["lag"] == 0 and status["error"] is None)
    say("2 readings at another hall are no gap, 1 that nobody has is; the copy's alarm came and went")


def off_clock(servers, broker):
    """PostgreSQL's clock is a year off, either way and changing: rows and their times are right, and the status makes sense."""
    postgres = Postgres(servers).start("+365d").database(broker)
    assert postgres.rows("SELECT now() > '2020-01-01'::timestamptz AND extract(epoch FROM now()) > %f" % (time.time() + 300 * 86400)) == "t"
    hall = Broker(servers, broker.binary, "hall", upstream_env([postgres.port], postgres.ca)).start()
    now = int(time.time() * 1000)
    rows = 0
    for clock in ("+365d", "-365d", None):
        if rows:
            postgres.stop()
            postgres.start(clock)
        publish(hall, [(None, reading(seq, at=now + seq)) for seq in range(rows + 1, rows + 51)])
        rows += 50
        hall.caught_up(60)
        found = postgres.rows("SELECT count(*), min(at), max(at) FROM humidor.readings")
        assert found == f"{rows}|{now + 1}|{now + rows}", found
        status = hall.run("upstream", "status")
        assert status.returncode == 0 and "up to date" in status.stdout and "last one -" not in status.stdout, status
        say(f"{clock or 'right'}: {status.stdout.strip().splitlines()[-1]}")
    # Behind while the time of its last move lies in the future by PostgreSQL's clock.
    postgres.rows("UPDATE humidor.upstream_cursor SET moved_at = now() + interval '1 year'")
    status = hall.run("upstream", "status")
    assert "last one 0 s ago" in status.stdout, status


def awaited(servers, broker):
    """HUMIDOR_ACK=upstream: no acknowledgement without PostgreSQL; a deleted disk loses nothing."""
    postgres = Postgres(servers).start().database(broker)
    env = upstream_env([postgres.port], postgres.ca) | {"HUMIDOR_ACK": "upstream"}
    hall = Broker(servers, broker.binary, "hall", env).start()
    load = boards([hall.port], rate=250, patience=3.0)
    time.sleep(2)
    postgres.stop()
    time.sleep(1)
    before = sum(len(board.acknowledged) for board in load)
    time.sleep(4)
    assert sum(len(board.acknowledged) for board in load) == before, "acknowledged without PostgreSQL"
    health = hall.run("health").stdout
    assert "HUMIDOR_ACK=upstream" in health, health
    assert hall.metrics()["humidor_acknowledging"] == 0
    assert hall.run("health", "--alive").returncode == 0
    postgres.start()
    wait("acknowledged again", lambda: sum(len(board.acknowledged) for board in load) > before, 20)
    # The broker's board burns.
    hall.kill()
    shutil.rmtree(hall.data)
    hall.start()
    time.sleep(1)
    postgres.kill()
    stopped = time.monotonic()
    assert hall.stop() == 0 and time.monotonic() - stopped < 10, "a stop waits for no PostgreSQL"
    shutil.rmtree(hall.data)
    postgres.start()
    hall.start()
    time.sleep(1)
    drained(load)
    hall.caught_up()
    check(postgres, load, "PostgreSQL away, two disks deleted")
    delays = sorted(delay for board in load for delay in board.delays)
    say(f"acknowledged after {delays[len(delays) // 2] * 1000:.1f} ms (median)")


def cancelled(servers, broker):
    """A commit whose wait for a standby is cancelled is reported as done, and is not."""
    postgres = Postgres(servers).start().database(broker)
    hall = Broker(servers, broker.binary, "hall", upstream_env([postgres.port], postgres.ca) | {"HUMIDOR_ACK": "upstream"}).start()
    publish(hall, [(None, reading(1))])
    postgres.sql("ALTER SYSTEM SET synchronous_standby_names = 'nobody'")
    postgres.sql("SELECT pg_reload_conf()")
    mqtt = Mqtt(hall.port, "one", 3.0)
    mqtt.publish([(1, "humidor/press/sensor/hall", reading(2))])

    def cancel():
        postgres.sql("SET synchronous_commit = local; SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep'")
        return "which counts as not committed" in hall.log() or "which counts as not committed" in hall.run("health").stdout

    wait("the warning is seen", cancel, 20)
    try:
        mqtt.acknowledged()
        raise AssertionError("acknowledged without a standby")
    except TimeoutError:
        pass
    mqtt.close()
    postgres.sql("ALTER SYSTEM RESET synchronous_standby_names")
    postgres.sql("SELECT pg_reload_conf()")
    publish(hall, [(None, reading(2))], timeout=30)
    hall.caught_up()
    assert postgres.rows("SELECT count(*) FROM humidor.reading") == "2"
    say("a cancelled wait for a standby is not acknowledged, and repeated")


def comparable(value):
    """A value of either engine: numbers as such, to nine digits, since sums come in another order."""
    try:
        return float(f"{float(value):.9g}")
    except (TypeError, ValueError):
        return value or ""


def dashboard(servers, broker):
    """Each query of the dashboard for SQL gives the same from SQLite and from PostgreSQL."""
    postgres = Postgres(servers).start().database(broker)
    hall = Broker(servers, broker.binary, "hall", upstream_env([postgres.port], postgres.ca) | {
        "HUMIDOR_LOGGED_FILTERS": "plant/#", "HUMIDOR_ALARMS": "hot=press/hall:temperature>30",
    }).start()
    now = int(time.time() * 1000)
    publish(hall, [(None, reading(seq, at=5000 + seq, clock="unsynced", mono=seq * 100)) for seq in range(1, 6)])
    publish(hall, [(None, reading(seq, at=now + seq * 7, temperature=20 + seq * 0.7, humidity=seq * 1.3)) for seq in range(6, 40) if seq != 20])
    publish(hall, [(None, reading(seq, at=now + seq, clock="unsynced", temperature=-seq, humidity=99.9)) for seq in (1, 2, 7)], "late")
    publish(hall, [("plant/press", b'{"bar": 81.5, "rpm": 3}'), ("plant/mill", b"7"), ("plant/mill", b"-7.25e-3")])
    hall.caught_up()
    wait("the alarm is upstream", lambda: postgres.rows("SELECT count(*) FROM humidor.alarms") == "1")
    postgres.sql("ALTER ROLE postgres SET search_path = humidor")
    with open(os.path.join(os.path.dirname(__file__), "../../docs/grafana-sql.json")) as file:
        panels = json.load(file)["panels"]
    # Grafana's own variables.
    variables = {"$__from": now - 60_000, "$__to": now + 60_000, "$__interval_ms": 20}
    log = sqlite3.connect(f"file:{hall.data}/humidor.db?mode=ro", uri=True)
    for panel in panels:
        target = panel["targets"][0]
        assert target["rawSql"] == target["queryText"] == target["rawQueryText"], panel["title"]
        query = target["rawSql"]
        for name, value in variables.items():
            query = query.replace(name, str(value))
        assert "$" not in query, query
        one = sorted([comparable(value) for value in row] for row in log.execute(query))
        other = sorted([comparable(value) for value in line.split("|")] for line in postgres.rows(query).splitlines())
        assert one and one == other, f"{panel['title']}: {one} and {other}"
        say(f"{panel['title']}: {len(one)} rows, the same from both")
    log.close()


# What CI runs, side by side.
SHORT = [forwarded, refused, faults, awaited, restored, cancelled]
LONG = [bulk, short_queue, copied, contested, alarmed, off_clock, dashboard]
