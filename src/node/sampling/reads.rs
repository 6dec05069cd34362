//! Counts reads by sensor: failed ones by cause since the start, good and failed ones of the last hour.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::reading::Id;
use crate::wire::ReadCounts;

/// Time that one pair of counts is of, and time after which it no longer counts.
const PART: Duration = Duration::from_mins(1);
const KEPT_FOR: Duration = Duration::from_hours(1);

/// The counts of all sensors. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct Reads(Arc<Mutex<BTreeMap<String, Counts>>>);

#[derive(Debug, Default)]
struct Counts {
    /// Failed reads by cause, since the start.
    failures: BTreeMap<String, u64>,
    /// The last hour in parts, each with its begin; the oldest first.
    hour: VecDeque<(Instant, ReadCounts)>,
    /// Measurements that wait for one that agrees.
    held: u64,
}

impl Counts {
    /// The part of the hour that `now` is in.
    fn part(&mut self, now: Instant) -> &mut ReadCounts {
        let is_over = |begin: Instant, time| now.saturating_duration_since(begin) >= time;
        while self.hour.front().is_some_and(|(begin, _)| is_over(*begin, KEPT_FOR)) {
            self.hour.pop_front();
        }
        if self.hour.back().is_none_or(|(begin, _)| is_over(*begin, PART)) {
            self.hour.push_back((now, ReadCounts::default()));
        }
        let last = self.hour.len() - 1;
        &mut self.hour[last].1
    }
}

impl Reads {
    /// A read gave a reading. What was held back before it was right, or is replaced by it.
    pub fn good(&self, sensor: &Id, now: Instant) {
        let mut all = self.lock();
        let counts = all.entry(sensor.to_string()).or_default();
        counts.held = 0;
        counts.part(now).good += 1;
    }

    /// A read failed.
    pub fn failed(&self, sensor: &Id, cause: &str, now: Instant) {
        let mut all = self.lock();
        let counts = all.entry(sensor.to_string()).or_default();
        *counts.failures.entry(cause.to_owned()).or_default() += 1;
        counts.part(now).failed += 1;
    }

    /// A measurement is held back. Every start has some, so it counts as a failed read of the hour only when the sensor is
    /// given up.
    pub fn held(&self, sensor: &Id, cause: &str) {
        let mut all = self.lock();
        let counts = all.entry(sensor.to_string()).or_default();
        *counts.failures.entry(cause.to_owned()).or_default() += 1;
        counts.held += 1;
    }

    /// The reads of an interval gave no reading.
    pub fn gave_up(&self, sensor: &Id, now: Instant) {
        if let Some(counts) = self.lock().get_mut(sensor.as_str()) {
            let held = std::mem::take(&mut counts.held);
            counts.part(now).failed += held;
        }
    }

    /// Failed reads by sensor and cause, since the start.
    pub fn failures(&self) -> BTreeMap<String, BTreeMap<String, u64>> {
        let failures = |counts: &Counts| counts.failures.clone();
        let all = self.lock();
        let found = all.iter().map(|(sensor, counts)| (sensor.clone(), failures(counts)));
        found.filter(|(_, failures)| !failures.is_empty()).collect()
    }

    /// Reads of the last hour by sensor.
    pub fn last_hour(&self, now: Instant) -> BTreeMap<String, ReadCounts> {
        let mut all = self.lock();
        let sum = |counts: &mut Counts| {
            counts.part(now);
            counts.hour.iter().fold(ReadCounts::default(), |sum, (_, part)| ReadCounts {
                good: sum.good + part.good,
                failed: sum.failed + part.failed,
            })
        };
        all.iter_mut().map(|(sensor, counts)| (sensor.clone(), sum(counts))).collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Counts>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_hour_is_counted_and_what_is_older_is_not() {
        let (reads, start): (_, Instant) = (Reads::default(), Instant::now());
        let hall: Id = "hall".parse().unwrap();
        let at = |seconds| start + Duration::from_secs(seconds);
        // A normal start of a DHT22.
        reads.held(&hall, "stale");
        reads.held(&hall, "unconfirmed");
        for n in 0..360 {
            reads.good(&hall, at(n * 10));
            reads.failed(&hall, "checksum", at(n * 10 + 2));
        }
        let of = |seconds| {
            let counts = reads.last_hour(at(seconds))["hall"];
            (counts.good, counts.failed)
        };
        assert_eq!(of(3_599), (360, 360));
        assert_eq!(of(3_600), (354, 354), "the first minute is over");
        assert_eq!(reads.failures()["hall"]["checksum"], 360);
        // Values that never agree, until the sensor is given up.
        for _ in 0..5 {
            reads.held(&hall, "unconfirmed");
        }
        reads.gave_up(&hall, at(3_600));
        assert_eq!(of(3_600), (354, 359));
        assert_eq!(of(7_300), (0, 0));
        assert!(reads.lock()["hall"].hour.len() <= 61);
    }
}
