//! The broker's clock in the log: how log time goes on, and the corrections that a step of the clock calls for.

use rusqlite::{Connection, OptionalExtension, Transaction, params};

use crate::store::write::cache::WriterCache;
use crate::store::write::{alarm_log, early};
use crate::timeline::{BrokerClock, Saved};

/// A step of at least this is one for retention, ms.
const STEP_MS: u64 = 60_000;
/// While the broker's clock was stepped less than this ago, nothing goes by its age, ms: the step may have been a mistake.
pub(in crate::store) const STEP_DOUBT_MS: i64 = 3_600_000;
/// Log time is saved this often, ms.
const SAVED_EVERY_MS: i64 = 900_000;

/// How log time goes on, as it was saved last.
pub(in crate::store) fn load(connection: &Connection) -> rusqlite::Result<Option<Saved>> {
    connection
        .prepare_cached("SELECT boot, base, correction, latest, is_set FROM timeline")?
        .query_row([], |row| {
            Ok(Saved {
                boot: row.get(0)?,
                base_ms: row.get(1)?,
                correction_ms: row.get(2)?,
                latest_ms: row.get(3)?,
                is_set: row.get(4)?,
            })
        })
        .optional()
}

/// What the writer was told of the clock.
#[derive(Debug, Default)]
pub(in crate::store) struct ToldClock {
    saved: Option<Saved>,
    told: Option<BrokerClock>,
}

impl ToldClock {
    /// With what the log has saved.
    pub const fn new(saved: Option<Saved>) -> Self {
        Self { saved, told: None }
    }

    /// How log time goes on, as it was saved last.
    pub const fn saved(&self) -> Option<&Saved> {
        self.saved.as_ref()
    }

    /// Notes the clock.
    pub fn tell(&mut self, cache: &mut WriterCache, clock: BrokerClock) {
        let before = self.told.as_ref().map_or((cache.correction_ms, false), |told| {
            (told.timeline.correction_ms, told.timeline.is_set)
        });
        let now = (clock.timeline.correction_ms, clock.timeline.is_set);
        if self.told.is_none() || before != now {
            cache.restamping = true;
        }
        let stepped = self.told.is_some() && before.0.abs_diff(now.0) >= STEP_MS;
        if stepped {
            cache.stepped_log_ms = Some(clock.timeline.latest_ms);
        }
        cache.tell_time(clock.now_ms());
        (cache.correction_ms, cache.is_set) = now;
        cache.log_ms = clock.timeline.latest_ms;
        self.told = Some(clock);
    }

    /// Whether [`ToldClock::save`] has something to write.
    pub fn is_unsaved(&self) -> bool {
        let Some(told) = &self.told else { return false };
        self.saved.as_ref().is_none_or(|saved| {
            saved.boot != told.timeline.boot
                || saved.base_ms != told.timeline.base_ms
                || saved.correction_ms != told.timeline.correction_ms
                || saved.is_set != told.timeline.is_set
                || told.timeline.latest_ms.saturating_sub(saved.latest_ms) >= SAVED_EVERY_MS
        })
    }

    /// Writes how log time goes on. It counts as saved once [`ToldClock::committed`] says so.
    pub fn save(&self, transaction: &Transaction<'_>) -> rusqlite::Result<()> {
        let Some(BrokerClock { timeline }) = &self.told else { return Ok(()) };
        if !self.saved.as_ref().is_some_and(|saved| timeline.continues(saved)) {
            early::give_up_all(transaction)?;
            alarm_log::give_up_all(transaction)?;
        }
        transaction.execute("DELETE FROM timeline", [])?;
        transaction.execute(
            "INSERT INTO timeline (boot, base, correction, latest, is_set) VALUES (?, ?, ?, ?, ?)",
            params![
                timeline.boot,
                timeline.base_ms,
                timeline.correction_ms,
                timeline.latest_ms,
                timeline.is_set
            ],
        )?;
        Ok(())
    }

    /// Notes that a commit is on the disk.
    pub fn committed(&mut self) {
        if !self.is_unsaved() {
            return;
        }
        self.saved = self.told.as_ref().map(|told| told.timeline.clone());
    }
}
