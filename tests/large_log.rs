//! A large log is served while it is checked: nothing acknowledged meanwhile is lost, also when it turns out to be damaged.

mod support;

use std::fs;
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use humidor::mqtt::Message;
use humidor::reading::ClockState;
use humidor::store::{
    Change, LOG_FILE, Log, Record, Selection, Stop, Store, is_damage, is_lock, suspect,
};
use humidor::wire::Telemetry;
use rusqlite::Connection;
use support::{Process, humidor};

const MIB: usize = 1024 * 1024;
/// Beyond the size up to which a log is checked before it is used.
const LARGE_MIB: usize = 24;

fn reading(seq: u64) -> Record {
    let telemetry = Telemetry {
        boot: "b".parse().unwrap(),
        seq,
        at: 1_760_000_000_000 + seq.cast_signed(),
        clock: ClockState::Synced,
        mono: seq,
        temperature: Some(20.0),
        humidity: None,
    };
    Record::Reading { node: "n".parse().unwrap(), sensor: "s".parse().unwrap(), telemetry }
}

/// A log with one reading and much else.
fn large_log(folder: &Path) -> PathBuf {
    let path = folder.join(LOG_FILE);
    Store::open(&path).unwrap().append(&[&reading(1)]).unwrap();
    let filler = Connection::open(&path).unwrap();
    filler.execute_batch("CREATE TABLE filler (content)").unwrap();
    let rows = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT ?)
                INSERT INTO filler SELECT zeroblob(1024) FROM n";
    filler.execute(rows, [LARGE_MIB * 1024]).unwrap();
    path
}

/// Damages pages that nobody reads but the check.
fn damage(path: &Path) {
    let mut file = fs::OpenOptions::new().write(true).open(path).unwrap();
    file.seek(SeekFrom::Start((LARGE_MIB * MIB / 2) as u64)).unwrap();
    file.write_all(&vec![0xa5; 64 * 1024]).unwrap();
}

fn kept_aside(folder: &Path) -> Vec<PathBuf> {
    let files = fs::read_dir(folder).unwrap().map(|file| file.unwrap().path());
    files.filter(|path| path.to_string_lossy().contains(".damaged-")).collect()
}

#[test]
fn what_is_acknowledged_while_a_damaged_log_is_checked_is_kept_beside_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = large_log(folder.path());
    damage(&path);
    let stop = Stop::default();
    let (mut store, check) = Store::open_soon(&path, &stop).unwrap();
    let found = fs::read(&path).unwrap();
    // More than SQLite keeps in its write-ahead log by itself.
    for seq in 2..=2_000 {
        store.append(&[&reading(seq)]).unwrap();
        assert!(!store.maintain(1_760_000_000_000).unwrap(), "left for later");
    }
    let cause = check.expect("checked later").run(&stop).unwrap_err();
    assert!(is_damage(&cause), "{cause}");
    drop(store);
    assert!(fs::read(&path).unwrap() == found, "the file is as it was found");

    suspect(&path);
    let (_, check) = Store::open_soon(&path, &stop).unwrap();
    assert!(check.is_none(), "the new log is small");
    let aside = kept_aside(folder.path());
    let kept = aside.iter().min_by_key(|path| path.as_os_str().len()).unwrap();
    assert!(fs::read(kept).unwrap() == found, "moved with its write-ahead log, not merged with it");
    let mut readings = 0;
    let count = |_| {
        readings += 1;
        Ok::<_, rusqlite::Error>(())
    };
    Log::open(kept).unwrap().export(&Selection::default(), count).unwrap();
    assert_eq!(readings, 2_000, "what was acknowledged before and meanwhile");
    // Once: the mark is gone, and the next start does not check a sound log first.
    assert!(!folder.path().join(format!("{LOG_FILE}.suspect")).exists());
}

#[test]
fn commits_wait_for_the_check_when_much_was_written_meanwhile() {
    let folder = tempfile::tempdir().unwrap();
    let path = large_log(folder.path());
    let stop = Stop::default();
    let (mut store, check) = Store::open_soon(&path, &stop).unwrap();
    let retain = |n: usize| {
        let message = Message::own(format!("t/{n}"), vec![b'x'; MIB]);
        Change::Retain(Arc::new(message))
    };
    let mut taken = 0;
    let refused = loop {
        match store.commit(&[], &[&retain(taken)]) {
            Ok(_) => taken += 1,
            Err(cause) => break cause,
        }
    };
    assert!((60..=70).contains(&taken), "64 MiB, not {taken}");
    assert!(store.awaits_check() && is_lock(&refused), "{refused}");
    check.unwrap().run(&stop).unwrap();
    store.commit(&[], &[&retain(taken)]).unwrap();
    assert!(!store.awaits_check());
}

#[test]
fn a_check_stops_when_it_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let path = large_log(folder.path());
    let stop = Stop::default();
    let (store, check) = Store::open_soon(&path, &stop).unwrap();
    stop.stop();
    let cause = check.unwrap().run(&stop).unwrap_err();
    assert_eq!(cause.sqlite_error_code(), Some(rusqlite::ErrorCode::OperationInterrupted));
    drop(store);
    // Also the one before the start.
    suspect(&path);
    assert!(Store::open_soon(&path, &stop).is_err());
    assert_eq!(kept_aside(folder.path()), Vec::<PathBuf>::new());
    assert!(Store::open_soon(&path, &Stop::default()).unwrap().1.is_none(), "checked first");
}

#[test]
fn a_broker_that_finds_its_log_damaged_says_so_and_starts_a_new_one_the_next_time() {
    let folder = tempfile::tempdir().unwrap();
    let path = large_log(folder.path());
    damage(&path);
    let start = || {
        let mut command = humidor();
        command.args(["broker", "--mqtt-listen", "127.0.0.1:0", "--data"]).arg(folder.path());
        Process::start(command)
    };
    let (status, words) = start().end();
    assert_eq!(status, Some(74), "{words}");
    assert!(words.contains("the log is damaged: "), "{words}");
    assert!(words.contains("at the next start it is moved aside and a new one begun"), "{words}");
    assert_eq!(kept_aside(folder.path()), Vec::<PathBuf>::new());

    let process = start();
    process.said("the database is damaged: it was moved aside");
    process.said("listening for MQTT");
    assert_eq!(process.terminate(), Some(0));
    assert!(!kept_aside(folder.path()).is_empty());
}
