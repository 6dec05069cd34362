//! The states of all alarms, for those who show them.

use std::sync::{Arc, Mutex, PoisonError};

use crate::broker::alarm::config::AlarmRule;
use crate::broker::alarm::rule::Change;
use crate::mqtt::Filter;
use crate::reading::Id;
use crate::timeline::{BrokerClock, Timeline};

/// The state of an alarm.
#[derive(Debug, Clone, PartialEq)]
pub struct AlarmState {
    /// Its name.
    pub name: Id,
    /// The node that it checks.
    pub node: Id,
    /// The rule that raises it.
    pub rule: AlarmRule,
    /// Whether it is raised.
    pub raised: bool,
    /// The topics of what it checks.
    pub source: Filter,
    /// Unix ms UTC of the latest change; `None` when it never changed.
    pub since_ms: Option<i64>,
    /// Why, for people; empty when it never changed.
    pub detail: String,
    /// How often it was raised since the start.
    pub raised_count: u64,
}

/// The states of all alarms. A clone shares them.
#[derive(Debug, Clone, Default)]
pub struct Alarms {
    kept: Arc<Mutex<Vec<Kept>>>,
    timeline: Timeline,
}

/// A state, as it is kept.
#[derive(Debug)]
pub struct Kept {
    pub state: AlarmState,
    /// As [`AlarmRow::correction_ms`], of its latest change.
    pub correction_ms: Option<i64>,
}

impl Alarms {
    pub(super) fn new(kept: Vec<Kept>, timeline: Timeline) -> Self {
        Self { kept: Arc::new(Mutex::new(kept)), timeline }
    }

    /// A copy of the states, in the order of the configuration. Times from before the clock was set are corrected, as they
    /// are in the log.
    #[must_use]
    pub fn states(&self) -> Vec<AlarmState> {
        let clock = self.timeline.clock();
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        for Kept { state, correction_ms } in kept.iter_mut() {
            let Some((since_ms, before_ms)) = state.since_ms.zip(*correction_ms) else { continue };
            let arrived_ms = since_ms.saturating_sub(before_ms);
            let (now_ms, settled) = clock.correction_of(arrived_ms, before_ms);
            state.since_ms = Some(arrived_ms.saturating_add(now_ms));
            *correction_ms = (!settled).then_some(now_ms);
        }
        kept.iter().map(|kept| kept.state.clone()).collect()
    }

    /// Notes a change of the alarm at `index`.
    pub(super) fn note(&self, index: usize, change: &Change, clock: &BrokerClock) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(Kept { state, correction_ms }) = kept.get_mut(index) {
            let known = &clock.timeline;
            *correction_ms = (!known.is_set).then_some(known.correction_ms);
            state.raised = change.raised;
            state.since_ms = Some(clock.now_ms());
            state.detail.clone_from(&change.detail);
            state.raised_count += u64::from(change.raised);
        }
    }
}
