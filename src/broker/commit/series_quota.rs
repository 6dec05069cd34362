//! Bounds the series of the log that each user's clients may begin: names that a client makes up would else stay in the
//! log, in `/metrics` and on the page.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use tracing::warn;

use crate::mqtt::Topic;
use crate::store::{Record, SeriesName, StoredSeries};
use crate::throttled_log::ThrottledLogs;
use crate::wire::{NodeTopics, Numbers};

/// All series of the log, in shares of one user: so many users may use theirs up before others cannot begin any.
const SHARES: usize = 4;
/// Interval of log lines about one user.
const COMPLAINT_INTERVAL: Duration = Duration::from_mins(1);
/// Topics of readings that a connection remembers as known. A board has a few.
const REMEMBERED: usize = 8;
/// Cause under which refused messages are counted.
pub const CAUSE: &str = "series-quota";

/// The user has begun as many series as allowed, or there are too many in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QuotaExceeded;

/// The series of the log with their owners. A clone shares them.
#[derive(Debug, Clone)]
pub struct SeriesQuota {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    /// Most series of one user.
    most: usize,
    table: RwLock<Table>,
    /// Counts up when series are removed.
    generation: AtomicU64,
    complaints: ThrottledLogs,
}

#[derive(Debug, Default)]
struct Table {
    /// Owners by topic and field. A sensor is the field without a name of its telemetry topic.
    topics: HashMap<Box<str>, HashMap<Box<str>, Arc<str>>>,
    /// Series by owner.
    held: HashMap<Arc<str>, usize>,
    total: usize,
}

impl Table {
    fn owner(&self, topic: &str, field: &str) -> Option<&Arc<str>> {
        self.topics.get(topic)?.get(field)
    }

    fn held(&self, owner: &str) -> usize {
        self.held.get(owner).copied().unwrap_or_default()
    }

    fn add(&mut self, topic: &str, field: &str, owner: &Arc<str>) {
        let fields = self.topics.entry(topic.into()).or_default();
        if fields.insert(field.into(), Arc::clone(owner)).is_none() {
            *self.held.entry(Arc::clone(owner)).or_default() += 1;
            self.total += 1;
        }
    }

    fn remove(&mut self, topic: &str, field: &str) {
        let Some(fields) = self.topics.get_mut(topic) else { return };
        let Some(owner) = fields.remove(field) else { return };
        if fields.is_empty() {
            self.topics.remove(topic);
        }
        self.total -= 1;
        if let Some(held) = self.held.get_mut(&owner) {
            *held -= 1;
            if *held == 0 {
                self.held.remove(&owner);
            }
        }
    }
}

/// Telemetry topics that one connection has used and that are known.
#[derive(Debug, Default)]
pub struct KnownTopics {
    generation: u64,
    topics: Vec<Topic>,
}

/// The topic of a series, and its field.
fn parts(series: &SeriesName) -> (String, &str) {
    match series {
        SeriesName::Sensor { node, sensor } => (NodeTopics::new(node.clone()).sensor(sensor), ""),
        SeriesName::Source { topic, field } => (topic.clone(), field),
    }
}

impl SeriesQuota {
    /// The series of the log, of which each user's clients may begin `most`.
    pub fn new(stored: &[StoredSeries], most: usize) -> Self {
        let mut table = Table::default();
        for series in stored {
            let (topic, field) = parts(&series.name);
            let owner =
                table.held.get_key_value(&*series.owner).map(|(owner, _)| Arc::clone(owner));
            table.add(&topic, field, &owner.unwrap_or_else(|| series.owner.as_str().into()));
        }
        let complaints = ThrottledLogs::new(COMPLAINT_INTERVAL);
        let generation = AtomicU64::default();
        Self {
            shared: Arc::new(Shared { most, table: RwLock::new(table), generation, complaints }),
        }
    }

    /// Admits the series of a record that a client of `owner` sent on `topic`. Records that begin a series are added to
    /// `begun`.
    ///
    /// # Errors
    /// When it would begin a series beyond the user's share.
    pub fn admit(
        &self,
        topic: &Topic,
        owner: &str,
        record: &Record,
        known: &mut KnownTopics,
        begun: &mut Vec<Record>,
    ) -> Result<(), QuotaExceeded> {
        match record {
            Record::Reading { node, sensor, .. } => {
                let generation = self.shared.generation.load(Relaxed);
                if known.generation != generation {
                    *known = KnownTopics { generation, topics: Vec::new() };
                } else if known.topics.contains(topic) {
                    return Ok(());
                }
                let name = || SeriesName::Sensor { node: node.clone(), sensor: sensor.clone() };
                begun.extend(self.admit_one(topic, "", owner, name)?);
                if known.topics.len() == REMEMBERED {
                    known.topics.remove(0);
                }
                known.topics.push(topic.clone());
            }
            Record::Foreign { numbers, .. } => {
                // None of them when one is too many, so that a publisher that is told sees the whole message refused.
                let before = begun.len();
                for (field, _) in &numbers.found {
                    let name =
                        || SeriesName::Source { topic: topic.to_string(), field: field.clone() };
                    match self.admit_one(topic, field, owner, name) {
                        Ok(record) => begun.extend(record),
                        Err(exceeded) => {
                            self.take_back(&begun[before..]);
                            begun.truncate(before);
                            return Err(exceeded);
                        }
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// Of the numbers of a foreign message those whose series are known.
    pub fn known_numbers(&self, topic: &str, mut numbers: Numbers) -> Numbers {
        let table = self.shared.table.read().unwrap_or_else(PoisonError::into_inner);
        numbers.found.retain(|(field, _)| table.owner(topic, field).is_some());
        numbers
    }

    /// Forgets series that are deleted from the log.
    pub fn remove(&self, deleted: &[SeriesName]) {
        if deleted.is_empty() {
            return;
        }
        let mut table = self.shared.table.write().unwrap_or_else(PoisonError::into_inner);
        for series in deleted {
            let (topic, field) = parts(series);
            table.remove(&topic, field);
        }
        drop(table);
        self.shared.generation.fetch_add(1, Relaxed);
    }

    fn take_back(&self, begun: &[Record]) {
        let names = begun.iter().filter_map(|record| match record {
            Record::Begun { series, .. } => Some(series.clone()),
            _ => None,
        });
        self.remove(&names.collect::<Vec<_>>());
    }

    fn admit_one(
        &self,
        topic: &str,
        field: &str,
        owner: &str,
        name: impl FnOnce() -> SeriesName,
    ) -> Result<Option<Record>, QuotaExceeded> {
        let shared = &self.shared;
        if shared.table.read().unwrap_or_else(PoisonError::into_inner).owner(topic, field).is_some()
        {
            return Ok(None);
        }
        let mut table = shared.table.write().unwrap_or_else(PoisonError::into_inner);
        let full = table.total >= shared.most.saturating_mul(SHARES);
        if full || table.held(owner) >= shared.most {
            drop(table);
            self.complain(topic, owner, full);
            return Err(QuotaExceeded);
        }
        let owner = match table.held.get_key_value(owner) {
            Some((owner, _)) => Arc::clone(owner),
            None => owner.into(),
        };
        table.add(topic, field, &owner);
        drop(table);
        Ok(Some(Record::Begun { series: name(), owner }))
    }

    fn complain(&self, topic: &str, user: &str, full: bool) {
        let Some(left_out) = self.shared.complaints.due(user, Instant::now()) else { return };
        let most = self.shared.most;
        if full {
            warn!(
                user,
                topic,
                left_out,
                "a new series was refused: the log has {SHARES} times HUMIDOR_SERIES ({most}) of them; remove retired boards with `humidor db forget`, or raise HUMIDOR_SERIES"
            );
        } else {
            warn!(
                user,
                topic,
                left_out,
                "a new series was refused: the clients of this user have begun HUMIDOR_SERIES ({most}) already; remove retired boards with `humidor db forget`, or raise HUMIDOR_SERIES"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reading::ClockState;
    use crate::wire::Telemetry;

    fn sensor(node: &str) -> (Topic, Record) {
        let node: crate::reading::Id = node.parse().unwrap();
        let sensor: crate::reading::Id = "s".parse().unwrap();
        let telemetry = Telemetry {
            boot: "b".parse().unwrap(),
            seq: 1,
            at: 0,
            clock: ClockState::Synced,
            mono: 0,
            temperature: Some(20.0),
            humidity: None,
        };
        let topic = NodeTopics::new(node.clone()).sensor(&sensor).parse().unwrap();
        (topic, Record::Reading { node, sensor, telemetry })
    }

    fn admit(quota: &SeriesQuota, owner: &str, (topic, record): &(Topic, Record)) -> Option<usize> {
        let mut begun = Vec::new();
        let mut known = KnownTopics::default();
        quota.admit(topic, owner, record, &mut known, &mut begun).ok().map(|()| begun.len())
    }

    #[test]
    fn a_user_begins_so_many_series_and_all_users_four_times_as_many() {
        let quota = SeriesQuota::new(&[], 2);
        assert_eq!(admit(&quota, "kim", &sensor("a")), Some(1));
        assert_eq!(admit(&quota, "kim", &sensor("a")), Some(0), "it is known");
        assert_eq!(admit(&quota, "kim", &sensor("b")), Some(1));
        assert_eq!(admit(&quota, "kim", &sensor("c")), None);
        assert_eq!(admit(&quota, "lee", &sensor("a")), Some(0), "known to everybody");
        for (owner, node) in
            [("lee", "c"), ("lee", "d"), ("", "e"), ("", "f"), ("max", "g"), ("max", "h")]
        {
            assert_eq!(admit(&quota, owner, &sensor(node)), Some(1), "{node}");
        }
        assert_eq!(admit(&quota, "new", &sensor("i")), None, "the log is full");
        let name = |node: &str| SeriesName::Sensor {
            node: node.parse().unwrap(),
            sensor: "s".parse().unwrap(),
        };
        quota.remove(&[name("a"), name("b"), name("unknown")]);
        assert_eq!(admit(&quota, "kim", &sensor("i")), Some(1));
    }

    #[test]
    fn the_series_of_the_log_count_for_their_owners() {
        let stored = |node: &str, owner: &str| StoredSeries {
            name: SeriesName::Sensor { node: node.parse().unwrap(), sensor: "s".parse().unwrap() },
            owner: owner.to_owned(),
        };
        let quota = SeriesQuota::new(&[stored("a", "kim"), stored("b", "kim"), stored("c", "")], 2);
        assert_eq!(admit(&quota, "kim", &sensor("d")), None);
        assert_eq!(admit(&quota, "", &sensor("d")), Some(1));
    }

    #[test]
    fn of_a_message_with_a_number_too_many_none_begins_a_series() {
        let quota = SeriesQuota::new(&[], 2);
        let topic: Topic = "plant/press".parse().unwrap();
        let foreign = |fields: &[&str]| {
            let numbers: Vec<_> = fields.iter().map(|field| ((*field).to_owned(), 1.0)).collect();
            let numbers = numbers.into();
            let record = Record::Foreign { topic: topic.to_string(), at_ms: 0, numbers };
            (topic.clone(), record)
        };
        assert_eq!(admit(&quota, "", &foreign(&["a"])), Some(1));
        assert_eq!(admit(&quota, "", &foreign(&["a", "b", "c"])), None);
        assert_eq!(admit(&quota, "", &foreign(&["a", "b"])), Some(1));
        let numbers = vec![("a".to_owned(), 1.0), ("c".to_owned(), 2.0)];
        let known = quota.known_numbers("plant/press", numbers.into());
        assert_eq!(known.found, [("a".to_owned(), 1.0)]);
    }

    /// What a connection remembers must not outlive the series.
    #[test]
    fn a_deleted_series_is_begun_anew_by_the_connection_that_knew_it() {
        let quota = SeriesQuota::new(&[], 2);
        let (topic, record) = sensor("a");
        let mut known = KnownTopics::default();
        let begun = |known: &mut KnownTopics| {
            let mut begun = Vec::new();
            quota.admit(&topic, "", &record, known, &mut begun).unwrap();
            begun.len()
        };
        assert_eq!((begun(&mut known), begun(&mut known)), (1, 0));
        quota.remove(&[SeriesName::Sensor {
            node: "a".parse().unwrap(),
            sensor: "s".parse().unwrap(),
        }]);
        assert_eq!((begun(&mut known), begun(&mut known)), (1, 0));
    }
}
