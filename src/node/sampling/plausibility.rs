//! Plausibility of decoded measurements: the frame's checksum has eight bits, so about one in 256 garbled frames
//! passes it, and a sensor's first answer may be minutes old.

use std::time::Duration;

use crate::dht::Model;
use crate::reading::Measurement;

/// Two measurements agree within this, in tenths of °C. A DHT11 repeats itself within ±1 °C
/// (datasheet, table 1).
const AGREE_TEMPERATURE_DC: u32 = 10;
/// Two measurements agree within this, in tenths of % relative humidity.
const AGREE_HUMIDITY_DP: u32 = 50;
/// Fastest plausible change of the air at a sensor, in tenths of °C a second. The DHT22's own time constant
/// is 2 s to 63 % of a step (datasheet §6); a step of more than 20 °C needs a confirmation.
const RATE_TEMPERATURE_DC_PER_S: u32 = 5;
/// As above, in tenths of % a second.
const RATE_HUMIDITY_DP_PER_S: u32 = 20;
/// An accepted measurement older than this many intervals is not compared with the present one.
const GAP_INTERVALS: u32 = 6;

/// The verdict on a measurement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is a reading.
    Accept(Measurement),
    /// It is not a reading yet: read again soon.
    Hold(Hold),
}

/// The reason why a measurement is held back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hold {
    /// The first answer after power-up is the measurement before it.
    Stale,
    /// The first after a start or a gap, or a jump: a second one must agree.
    Unconfirmed,
}

impl Hold {
    /// A short name to count by.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Stale => "stale",
            Self::Unconfirmed => "unconfirmed",
        }
    }
}

/// The plausibility check of one sensor: its latest accepted measurement, and the one that waits for a
/// confirmation.
#[derive(Debug, Clone)]
pub struct Plausibility {
    interval: Duration,
    stale_first: bool,
    accepted: Option<(Measurement, Duration)>,
    candidate: Option<(Measurement, Duration)>,
}

impl Plausibility {
    /// A check without an earlier measurement.
    #[must_use]
    pub const fn new(model: Model, interval: Duration) -> Self {
        Self { interval, stale_first: model.returns_previous(), accepted: None, candidate: None }
    }

    /// Checks the measurement taken at `now`, on a clock that does not jump.
    pub fn check(&mut self, measurement: Measurement, now: Duration) -> Verdict {
        if std::mem::take(&mut self.stale_first) {
            return Verdict::Hold(Hold::Stale);
        }
        let gap = self.interval * GAP_INTERVALS;
        let follows = |earlier: Option<(Measurement, Duration)>| {
            earlier.is_some_and(|(earlier, at)| {
                let elapsed = now.saturating_sub(at);
                elapsed <= gap && plausible_step(earlier, measurement, elapsed)
            })
        };
        if follows(self.accepted) || follows(self.candidate) {
            self.accepted = Some((measurement, now));
            self.candidate = None;
            return Verdict::Accept(measurement);
        }
        self.candidate = Some((measurement, now));
        Verdict::Hold(Hold::Unconfirmed)
    }
}

fn plausible_step(from: Measurement, to: Measurement, elapsed: Duration) -> bool {
    let seconds = u32::try_from(elapsed.as_secs()).unwrap_or(u32::MAX);
    let within = |a: i16, b: i16, agree: u32, rate: u32| {
        u32::from(a.abs_diff(b)) <= agree.saturating_add(rate.saturating_mul(seconds))
    };
    within(from.temperature_dc, to.temperature_dc, AGREE_TEMPERATURE_DC, RATE_TEMPERATURE_DC_PER_S)
        && within(from.humidity_dp, to.humidity_dp, AGREE_HUMIDITY_DP, RATE_HUMIDITY_DP_PER_S)
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn m(temperature_dc: i16) -> Measurement {
        Measurement { temperature_dc, humidity_dp: 500 }
    }

    fn plausibility(model: Model) -> Plausibility {
        Plausibility::new(model, Duration::from_secs(10))
    }

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn the_first_reading_needs_a_second_that_agrees() {
        let mut check = plausibility(Model::Dht11);
        assert_eq!(check.check(m(215), at(1)), Verdict::Hold(Hold::Unconfirmed));
        assert_eq!(check.check(m(216), at(2)), Verdict::Accept(m(216)));
    }

    #[test]
    fn a_dht22s_first_answer_is_discarded() {
        let mut check = plausibility(Model::Dht22);
        assert_eq!(check.check(m(215), at(1)), Verdict::Hold(Hold::Stale));
        assert_eq!(check.check(m(215), at(3)), Verdict::Hold(Hold::Unconfirmed));
        assert_eq!(check.check(m(215), at(5)), Verdict::Accept(m(215)));
    }

    #[test]
    fn a_jump_is_accepted_only_when_it_stays() {
        let mut check = plausibility(Model::Dht11);
        check.check(m(200), at(1));
        check.check(m(200), at(2));
        assert_eq!(check.check(m(450), at(12)), Verdict::Hold(Hold::Unconfirmed));
        assert_eq!(
            check.check(m(201), at(22)),
            Verdict::Accept(m(201)),
            "a lone outlier is dropped"
        );
        assert_eq!(check.check(m(450), at(32)), Verdict::Hold(Hold::Unconfirmed));
        assert_eq!(
            check.check(m(455), at(33)),
            Verdict::Accept(m(455)),
            "a step that stays is real"
        );
    }

    #[test]
    fn after_a_gap_it_starts_anew() {
        let mut check = plausibility(Model::Dht11);
        check.check(m(200), at(1));
        check.check(m(200), at(2));
        assert_eq!(check.check(m(200), at(1000)), Verdict::Hold(Hold::Unconfirmed));
        assert_eq!(check.check(m(200), at(1001)), Verdict::Accept(m(200)));
    }
}
