//! An alarm as configured: what it checks, and its rule.

use std::fmt;
use std::time::Duration;

use crate::mqtt::Filter;
use crate::reading::Id;
use crate::wire::{HEALTHS, NodeTopics};

/// The target of conditions of the broker itself, and of all boards. No node has this id.
const BROKER: &str = "broker";

/// An alarm as configured.
#[derive(Debug, Clone, PartialEq)]
pub struct AlarmConfig {
    /// Its name, the last level of its topic.
    pub name: Id,
    /// The node that is checked; `broker` where it is none.
    pub node: Id,
    /// The rule that raises it.
    pub rule: AlarmRule,
    /// Node and output that are on while it is raised.
    pub output: Option<(Id, Id)>,
}

impl AlarmConfig {
    /// The topics of what it checks.
    ///
    /// # Panics
    /// Never: ids make a filter.
    #[must_use]
    pub fn source(&self) -> Filter {
        let topics = NodeTopics::new(self.node.clone());
        let topics = match &self.rule {
            AlarmRule::Threshold { sensor, .. } | AlarmRule::Silent { sensor, .. } => {
                topics.sensor(sensor)
            }
            AlarmRule::Gap { .. }
            | AlarmRule::Clock { .. }
            | AlarmRule::Disk { .. }
            | AlarmRule::Upstream { .. } => topics.everything(),
            AlarmRule::Version { .. } if self.only_node().is_none() => HEALTHS.to_owned(),
            AlarmRule::Fault { .. } | AlarmRule::Version { .. } => topics.health(),
        };
        topics.parse().expect("ids make a filter")
    }

    /// The node that is checked; `None` where it is the broker, or all boards.
    #[must_use]
    pub fn only_node(&self) -> Option<&Id> {
        Some(&self.node).filter(|node| node.as_str() != BROKER)
    }
}

/// The rule of an alarm.
#[derive(Debug, Clone, PartialEq)]
pub enum AlarmRule {
    /// A value beyond its limit for as long as `delay`. Good again at `hysteresis` on the right side of it.
    Threshold {
        /// Sensor of the node.
        sensor: Id,
        /// The quantity that is compared.
        quantity: Quantity,
        /// On which side it is bad.
        side: Side,
        /// °C or %.
        limit: f64,
        /// °C or %, from 0.
        hysteresis: f64,
        /// How long it has to last.
        delay: Duration,
    },
    /// No reading for this long.
    Silent {
        /// Sensor of the node.
        sensor: Id,
        /// From its last reading, or from the broker's start.
        limit: Duration,
    },
    /// Numbers are missing between two readings. Good again when none were for `quiet`.
    Gap {
        /// How long.
        quiet: Duration,
        /// With an upstream database: time that other halls have to forward them, before it is asked.
        wait: Duration,
    },
    /// The node's clock is not set, or more than `ahead` of the broker's, for `delay`. Behind it cannot be told
    /// from a reading that arrives late.
    Clock {
        /// Time that the clock may be ahead.
        ahead: Duration,
        /// How long it has to last.
        delay: Duration,
    },
    /// The broker's disk failed a write of the log. Good again when none failed for `quiet`.
    Disk {
        /// How long.
        quiet: Duration,
    },
    /// The board says that the line of an output does not follow, for `delay`. Good again when it says that it does.
    Fault {
        /// Output of the node.
        output: Id,
        /// How long it has to last.
        delay: Duration,
    },
    /// The board, or any of all, runs another version or revision than most boards do.
    Version {
        /// How long it has to last.
        delay: Duration,
    },
    /// The upstream database takes nothing, or lacks what has waited for it.
    Upstream {
        /// How long it has to last.
        delay: Duration,
    },
}

/// A quantity of a reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Quantity {
    /// °C
    Temperature,
    /// % relative
    Humidity,
}

/// A side of a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// `>`
    Above,
    /// `<`
    Below,
}

impl Quantity {
    /// °C or %.
    pub(in crate::broker) const fn unit(self) -> &'static str {
        match self {
            Self::Temperature => "°C",
            Self::Humidity => "%",
        }
    }
}

impl Side {
    /// `above` or `below`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Above => "above",
            Self::Below => "below",
        }
    }
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Temperature => "temperature",
            Self::Humidity => "humidity",
        })
    }
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Above => ">",
            Self::Below => "<",
        })
    }
}
