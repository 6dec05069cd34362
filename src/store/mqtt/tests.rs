//! The queues of sessions together with the writer that fills them.

use std::path::PathBuf;
use std::sync::Arc;

use proptest::prelude::*;

use crate::mqtt::{Message, QoS};
use crate::store::mqtt::packet_ids::PACKET_IDS;
use crate::store::mqtt::queue_counts::QueueCounts;
use crate::store::{Appended, Change, LOG_FILE, Queued, Retention, Store, Target};

const MIB: usize = 1024 * 1024;

struct Rig {
    folder: tempfile::TempDir,
    path: PathBuf,
    store: Store,
}

impl Rig {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(LOG_FILE);
        let store = Store::open(&path).unwrap();
        Self { folder, path, store }
    }

    /// A log with these sessions of one user.
    fn with(sessions: impl IntoIterator<Item = i64>) -> Self {
        let mut rig = Self::new();
        rig.commit(&sessions.into_iter().map(|session| begin("m", session)).collect::<Vec<_>>());
        rig
    }

    /// The same log, opened again.
    fn reopened(self) -> Self {
        let Self { folder, path, store } = self;
        drop(store);
        let store = Store::open(&path).unwrap();
        Self { folder, path, store }
    }

    /// An eighth of so many MiB may wait.
    fn limit(&mut self, mib: usize) {
        self.store.retain(Retention { keep_raw: None, max_bytes: (mib * MIB) as u64 });
    }

    fn commit(&mut self, changes: &[Change]) -> Appended {
        self.store.commit(&[], &changes.iter().collect::<Vec<_>>()).unwrap()
    }

    /// Commits `changes` while the disk takes no retained message, so that the last step of the attempt fails.
    fn fail(&mut self, changes: &[Change]) {
        let connection = &self.store.connection;
        connection
            .execute_batch(
                "CREATE TEMP TRIGGER full BEFORE INSERT ON retained BEGIN SELECT RAISE(ABORT, 'full'); END",
            )
            .unwrap();
        let retain = Change::Retain(Arc::new(Message::own("r", "1")));
        let changes: Vec<&Change> = changes.iter().chain([&retain]).collect();
        self.store.commit(&[], &changes).unwrap_err();
        self.store.connection.execute_batch("DROP TRIGGER full").unwrap();
    }

    /// The messages that wait for a session, by number: the lengths of their payloads.
    fn waiting(&self, session: i64) -> Vec<(i64, Option<usize>)> {
        let (queued, mut found) = (Queued::open(&self.path).unwrap(), Vec::new());
        loop {
            let page = queued.page(session, found.last().map_or(0, |(number, _)| *number)).unwrap();
            if page.is_empty() {
                return found;
            }
            let length = |message: &Arc<Message>| message.payload.len();
            found.extend(page.iter().map(|row| (row.number, row.message.as_ref().map(length))));
        }
    }

    fn numbers(&self, session: i64) -> Vec<i64> {
        self.waiting(session).into_iter().map(|(number, _)| number).collect()
    }

    fn number(&self, sql: &str) -> i64 {
        self.store.connection.query_row(sql, [], |row| row.get(0)).unwrap()
    }

    /// The counts are those of the tables, and no row is without its message or a message without a row.
    fn check(&self) {
        let loaded = QueueCounts::load(&self.store.connection).unwrap();
        assert_eq!(self.store.queues().sums(), loaded.sums());
        let alone = "SELECT count(*) FROM message WHERE id NOT IN
                     (SELECT message FROM queued WHERE message IS NOT NULL)";
        let without = "SELECT count(*) FROM queued WHERE message IS NOT NULL
                       AND message NOT IN (SELECT id FROM message)";
        assert_eq!((self.number(alone), self.number(without)), (0, 0));
    }
}

fn begin(user: &str, session: i64) -> Change {
    Change::Begin { session, client_id: format!("{user}\u{1}{session}").into(), expiry_s: 9 }
}

fn queue(sessions: &[i64], payload_bytes: usize) -> Change {
    queue_with(&[], sessions, payload_bytes)
}

/// Each of the sessions has subscriptions with these identifiers.
fn queue_with(identifiers: &[u32], sessions: &[i64], payload_bytes: usize) -> Change {
    let message = Message::own("t", vec![b'x'; payload_bytes]);
    let target = |session: &i64| Target {
        session: *session,
        qos: QoS::AtLeastOnce,
        retain: false,
        identifiers: identifiers.to_vec(),
    };
    Change::Queue { message: Arc::new(message), targets: sessions.iter().map(target).collect() }
}

#[test]
fn a_failed_commit_does_not_read_the_queue_again() {
    let mut rig = Rig::with([1]);
    rig.commit(&[queue(&[1], 1)]);
    // Counts read from this table now would call the queue full.
    rig.store.connection.execute("UPDATE queued SET size = 1 << 30", []).unwrap();
    rig.fail(&[queue(&[1], 1)]);
    assert_eq!(rig.commit(&[queue(&[1], 1)]).dropped, 0);
    assert_eq!(rig.numbers(1), [1, 2]);
}

#[test]
fn a_failed_commit_leaves_the_counts_as_they_were() {
    let mut rig = Rig::with([1, 2]);
    let (done, release) =
        (Change::Done { session: 1, number: 1 }, Change::Release { session: 1, number: 2 });
    rig.commit(&[queue(&[1, 2], 700), queue(&[1], 8)]);
    let before = QueueCounts::load(&rig.store.connection).unwrap();
    let attempts: [&[Change]; 4] = [
        &[begin("m", 3), queue(&[3], 9)],
        &[Change::End { session: 1 }, begin("m", 1), queue(&[1, 2], 500)],
        &[done, release, Change::End { session: 2 }],
        // Four megabytes drop the messages that wait.
        &[queue(&[1, 2], MIB), queue(&[1], MIB), queue(&[1], MIB), queue(&[1], MIB)],
    ];
    for changes in attempts {
        rig.fail(changes);
        assert_eq!(rig.store.queues(), &before, "{changes:?}");
    }
    let appended = rig.commit(&[queue(&[1], 1)]);
    assert_eq!((appended.dropped, appended.dropped_by_session), (0, vec![]));
    rig.check();
}

/// A store that cannot commit for hours makes tens of thousands of attempts. If each used up a packet id, the next
/// commit would drop all messages that wait.
#[test]
fn a_failed_commit_uses_up_no_number_and_gives_none_twice() {
    let mut rig = Rig::with([1]);
    rig.commit(&[queue(&[1], 1), queue(&[1], 1)]);
    // The table forgets the numbers, the client does not.
    rig.commit(&[1, 2].map(|number| Change::Done { session: 1, number }));
    for _ in 0..3 {
        rig.fail(&[queue(&[1], 1)]);
    }
    rig.commit(&[queue(&[1], 1)]);
    assert_eq!(rig.numbers(1), [3]);
}

#[test]
fn dropped_messages_are_counted_by_session() {
    let mut rig = Rig::with([1, 2, 3]);
    rig.commit(&[queue(&[1, 3], MIB)]);
    let appended = rig.commit(&vec![queue(&[2, 1], MIB); 5]);
    assert_eq!(appended.dropped_by_session, [(1, 3), (2, 2)]);
    assert_eq!(appended.dropped, 5);
    assert_eq!(rig.numbers(1), [4, 5, 6]);
    let appended = rig.commit(&[queue(&[2], 1)]);
    assert_eq!((appended.dropped, appended.dropped_by_session), (0, vec![]));
}

#[test]
fn a_user_for_whom_all_there_is_room_for_waits_loses_its_own_messages() {
    let mut rig = Rig::new();
    let many: Vec<i64> = (2..=70).collect();
    rig.commit(&many.iter().map(|session| begin("many", *session)).collect::<Vec<_>>());
    rig.commit(&[begin("other", 1), queue(&[1], 7), queue(&many, 7)]);
    // As if each of these had four megabytes.
    let connection = &rig.store.connection;
    connection.execute("UPDATE queued SET size = 4000000 WHERE session > 1", []).unwrap();
    let mut rig = rig.reopened();
    let appended = rig.commit(&[queue(&[1], 7)]);
    assert_eq!(rig.numbers(1), [1, 2], "the other user keeps both");
    assert!(appended.dropped_by_session.iter().all(|(session, _)| *session > 1));
    assert_eq!(appended.dropped, 2, "as many as there is room for again");
}

#[test]
fn in_a_small_log_an_eighth_waits_and_what_is_there_already_goes_with_the_next_message() {
    let mut rig = Rig::new();
    rig.commit(&[begin("other", 1), begin("m", 2), begin("m", 3), queue(&[1], 7)]);
    for session in [2, 3, 2, 3, 2, 3] {
        rig.commit(&[queue(&[session], MIB)]);
    }
    rig.limit(16);
    let waiting = |rig: &Rig| rig.numbers(2).len() + rig.numbers(3).len();
    assert_eq!(waiting(&rig), 6, "nothing goes by itself");
    let appended = rig.commit(&[queue(&[1], 7)]);
    assert_eq!(rig.numbers(1), [1, 2], "the other user keeps both");
    assert_eq!(waiting(&rig), 1);
    assert_eq!(appended.dropped, 5, "and that is counted");
}

#[test]
fn short_messages_are_counted_with_their_rows() {
    for payload in [1, 300] {
        let sessions: Vec<i64> = (1..=10).collect();
        let mut rig = Rig::with(sessions.clone());
        rig.limit(16);
        let used = rig.store.used_bytes().unwrap();
        rig.commit(&vec![queue(&sessions, payload); 5_000]);
        let taken = rig.store.used_bytes().unwrap() - used;
        assert!((MIB as u64..=4 * MIB as u64).contains(&taken), "{taken} bytes of {payload}");
        rig.check();
    }
}

/// A session may have 200 subscriptions that match, each with an identifier.
#[test]
fn identifiers_of_subscriptions_are_counted() {
    for (payload, to) in [(1, 1), (300, 10)] {
        let sessions: Vec<i64> = (1..=10).collect();
        let mut rig = Rig::with(sessions.clone());
        rig.limit(16);
        let used = rig.store.used_bytes().unwrap();
        for chunk in sessions.chunks(to) {
            rig.commit(&vec![queue_with(&[7; 200], chunk, payload); 10_000 * to / 10]);
            rig.check();
        }
        let taken = rig.store.used_bytes().unwrap() - used;
        println!("messages of {payload} bytes for {to} sessions take {taken} bytes");
        assert!((MIB as u64..=4 * MIB as u64).contains(&taken), "{taken} bytes of {payload}");
        let mut rig = rig.reopened();
        rig.check();
        let number = rig.numbers(1)[0];
        rig.commit(&[Change::Release { session: 1, number }, Change::Done { session: 1, number }]);
        rig.check();
    }
}

#[test]
fn a_message_that_all_packet_ids_have_overtaken_is_counted_as_dropped() {
    let mut rig = Rig::with([1, 2]);
    rig.commit(&[queue(&[1, 2], 1_000), queue(&[1], 1), queue(&[1], 1)]);
    // The client has the second one: nothing is lost with it.
    rig.commit(&[Change::Release { session: 1, number: 2 }]);
    let latest = PACKET_IDS + 2;
    let connection = &rig.store.connection;
    connection.execute("UPDATE queued SET number = ? WHERE number = 3", [latest]).unwrap();
    let mut rig = rig.reopened();
    let appended = rig.commit(&[queue(&[1], 1)]);
    assert_eq!(rig.numbers(1), [latest, latest + 1]);
    assert_eq!((appended.dropped, appended.dropped_by_session), (1, vec![(1, 1)]));
    assert_eq!(rig.waiting(2), [(1, Some(1_000))]);
    rig.check();
}

#[test]
fn a_message_for_many_sessions_is_stored_once_and_goes_with_the_last_of_them() {
    const LENGTH: usize = 50_000;
    let sessions: Vec<i64> = (1..=200).collect();
    let mut rig = Rig::with(sessions.clone());
    let used = rig.store.used_bytes().unwrap();
    rig.commit(&[queue(&sessions, LENGTH)]);
    let taken = rig.store.used_bytes().unwrap() - used;
    println!("{LENGTH} bytes for {} sessions take {taken} bytes", sessions.len());
    assert!(taken < 3 * LENGTH as u64, "{taken} bytes");
    for session in &sessions {
        assert_eq!(rig.waiting(*session), [(1, Some(LENGTH))]);
    }
    assert_eq!(rig.store.deleted_by(&Change::End { session: 1 }), 1);
    // Each of the ways out, until two are left.
    rig.commit(&[
        Change::End { session: 1 },
        Change::Release { session: 2, number: 1 },
        Change::Done { session: 2, number: 1 },
        Change::Release { session: 3, number: 1 },
    ]);
    let done = |session| Change::Done { session, number: 1 };
    rig.commit(&(4..=198).map(done).collect::<Vec<_>>());
    rig.check();
    assert_eq!(rig.waiting(3), [(1, None)]);
    assert_eq!(rig.waiting(200), [(1, Some(LENGTH))]);
    rig.commit(&[done(199)]);
    assert_eq!(rig.number("SELECT count(*) FROM message"), 1);
    rig.commit(&[done(200)]);
    assert_eq!(rig.number("SELECT count(*) FROM message"), 0);
    rig.check();
}

#[test]
fn a_message_for_many_sessions_counts_once_in_what_a_small_log_has_for_all() {
    let sessions: Vec<i64> = (1..=200).collect();
    let mut rig = Rig::with(sessions.clone());
    rig.limit(16);
    assert_eq!(rig.commit(&vec![queue(&sessions, 50_000); 10]).dropped, 0);
    // And so much that it has to make room: the sessions lose the same messages.
    let appended = rig.commit(&vec![queue(&sessions, 50_000); 60]);
    assert!(appended.dropped > 0);
    let kept: usize = sessions.iter().map(|session| rig.numbers(*session).len()).sum();
    assert_eq!(u64::try_from(kept).unwrap() + appended.dropped, 70 * 200);
    let bytes = rig.number("SELECT sum(length(payload)) FROM message");
    assert!((1 << 20..=2 << 20).contains(&bytes), "{bytes} bytes");
    assert!(sessions.iter().all(|session| rig.numbers(*session).len() > 20));
    rig.check();
}

#[test]
fn a_message_that_makes_room_for_itself_is_not_needed_by_the_next_session() {
    let mut rig = Rig::with([1, 2, 3]);
    rig.limit(1);
    let appended = rig.commit(&[queue(&[1, 2, 3], MIB / 4)]);
    assert_eq!(appended.dropped_by_session, [(1, 1), (2, 1), (3, 1)]);
    rig.check();
    assert_eq!(rig.number("SELECT count(*) FROM queued"), 0);
}

/// What happens to queues, as numbers that are taken modulo what there is.
#[derive(Debug, Clone)]
enum Step {
    Begin(i64),
    End(i64),
    Queue(Vec<i64>, usize),
    Done(i64, i64),
    Release(i64, i64),
    Fail(Vec<i64>, usize),
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    let sessions = || prop::collection::vec(0..6_i64, 1..8);
    let bytes = || prop_oneof![Just(9_usize), Just(400), Just(60_000)];
    prop_oneof![
        2 => (0..6_i64).prop_map(Step::Begin),
        1 => (0..6_i64).prop_map(Step::End),
        6 => (sessions(), bytes()).prop_map(|(to, bytes)| Step::Queue(to, bytes)),
        4 => (0..6_i64, 0..9_i64).prop_map(|(session, place)| Step::Done(session, place)),
        2 => (0..6_i64, 0..9_i64).prop_map(|(session, place)| Step::Release(session, place)),
        1 => (sessions(), bytes()).prop_map(|(to, bytes)| Step::Fail(to, bytes)),
        1 => Just(Step::Restart),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// In a log that has room for two of the large ones.
    #[test]
    fn counts_and_messages_follow_the_rows(steps in prop::collection::vec(step(), 1..60)) {
        let mut rig = Rig::new();
        rig.limit(1);
        for step in steps {
            let nth = |rig: &Rig, session, place: i64| {
                let numbers = rig.numbers(session);
                let place = usize::try_from(place).unwrap() % numbers.len().max(1);
                numbers.get(place).copied().unwrap_or(1)
            };
            match step {
                Step::Restart => {
                    rig = rig.reopened();
                    rig.limit(1);
                }
                Step::Begin(session) => drop(rig.commit(&[begin(if session > 2 { "m" } else { "o" }, session)])),
                Step::End(session) => drop(rig.commit(&[Change::End { session }])),
                Step::Queue(sessions, bytes) => drop(rig.commit(&[queue(&sessions, bytes)])),
                Step::Done(session, place) => {
                    let number = nth(&rig, session, place);
                    rig.commit(&[Change::Done { session, number }]);
                }
                Step::Release(session, place) => {
                    let number = nth(&rig, session, place);
                    rig.commit(&[Change::Release { session, number }]);
                }
                Step::Fail(sessions, bytes) => rig.fail(&[queue(&sessions, bytes)]),
            }
            rig.check();
        }
    }
}
