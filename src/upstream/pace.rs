//! When the forwarder rests: in a burst, where no acknowledgement waits for it. The database may be on the processors and the
//! disk that acknowledging takes, and larger transactions cost it less.

use std::time::{Duration, Instant};

use super::config::{Acknowledge, UpstreamConfig};

/// Operations a second that are a burst: more than boards send but for the delivery of what they have kept.
const BURST_A_SECOND: u32 = 5_000;
/// How long a rate is counted for at least.
const COUNTED: Duration = Duration::from_millis(100);
/// A rest is twice as long as what it follows, within these limits.
const RESTS: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(1));
/// It rests no more when the oldest operation has waited for so long, in ms.
const LAG_MAX_MS: i64 = 10_000;
/// Nor when those that wait take more than this share of the queue's limit.
const LAG_SHARE: u64 = 4;

/// Whether readings arrive in a burst.
#[derive(Debug)]
pub struct Pace {
    /// `None` where acknowledgements wait.
    lag_max_bytes: Option<u64>,
    since: Instant,
    queued: i64,
    bursts: bool,
}

/// What has been sent, and what waits behind it.
#[derive(Debug, Clone, Copy)]
pub struct Sent {
    /// Operations.
    pub operations: usize,
    /// Their bytes in the queue.
    pub bytes: usize,
    /// How long the first of them had waited, in ms.
    pub waited_ms: i64,
    /// How long it took.
    pub took: Duration,
    /// Operations that wait.
    pub waiting: i64,
}

impl Pace {
    /// Nothing has arrived.
    pub fn new(config: &UpstreamConfig) -> Self {
        let rests = config.acknowledge == Acknowledge::Stored;
        Self {
            lag_max_bytes: rests.then_some(config.backlog_bytes / LAG_SHARE),
            since: Instant::now(),
            queued: i64::MAX,
            bursts: false,
        }
    }

    /// Whether it is a burst, when operations up to `queued` have arrived by `now`.
    pub fn bursts(&mut self, queued: i64, now: Instant) -> bool {
        let elapsed = now.saturating_duration_since(self.since);
        if self.lag_max_bytes.is_some() && elapsed >= COUNTED {
            let arrived = u32::try_from(queued.saturating_sub(self.queued)).unwrap_or_default();
            self.bursts = f64::from(arrived) >= f64::from(BURST_A_SECOND) * elapsed.as_secs_f64();
            (self.since, self.queued) = (now, queued);
        }
        self.bursts
    }

    /// How long to rest in a burst.
    pub fn rest(&self, sent: Sent) -> Duration {
        let size = (sent.bytes / sent.operations.max(1)) as u64;
        let waiting = u64::try_from(sent.waiting).unwrap_or_default().saturating_mul(size);
        let may_rest = self.lag_max_bytes.is_some_and(|most| waiting <= most);
        if !may_rest || sent.waited_ms > LAG_MAX_MS {
            return Duration::ZERO;
        }
        (sent.took * 2).clamp(RESTS.0, RESTS.1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::config::Target;

    fn pace(acknowledge: Acknowledge) -> Pace {
        let target = Target {
            address: "postgres://humidor@pg/humidor".parse().unwrap(),
            password: None,
            tls: true,
            ca: None,
        };
        Pace::new(&UpstreamConfig { target, acknowledge, backlog_bytes: 1 << 20 })
    }

    const SENT: Sent = Sent {
        operations: 1_000,
        bytes: 50_000,
        waited_ms: 500,
        took: Duration::from_millis(80),
        waiting: 4_000,
    };

    #[test]
    fn a_burst_is_what_arrives_faster_than_boards_send() {
        let mut stored = pace(Acknowledge::Stored);
        let begun = stored.since;
        let at = |ms| begun + Duration::from_millis(ms);
        assert!(!stored.bursts(1_000_000, at(200)), "nobody knows when those arrived");
        assert!(!stored.bursts(1_000_900, at(400)), "4,500 a second");
        assert!(!stored.bursts(1_009_000, at(450)), "not counted for long enough");
        assert!(stored.bursts(1_010_000, at(600)));
        assert!(stored.bursts(1_010_000, at(650)));
        assert!(!stored.bursts(1_010_100, at(900)), "over");
        let mut awaited = pace(Acknowledge::Upstream);
        let begun = awaited.since;
        assert!(!awaited.bursts(0, begun + Duration::from_secs(1)));
        assert!(!awaited.bursts(1 << 30, begun + Duration::from_secs(2)));
    }

    #[test]
    fn it_rests_while_little_waits_and_not_for_long() {
        let stored = pace(Acknowledge::Stored);
        assert_eq!(stored.rest(SENT), Duration::from_millis(160));
        assert_eq!(stored.rest(Sent { took: Duration::ZERO, ..SENT }), RESTS.0);
        assert_eq!(stored.rest(Sent { took: Duration::from_secs(9), ..SENT }), RESTS.1);
        assert_eq!(stored.rest(Sent { waited_ms: 10_001, ..SENT }), Duration::ZERO);
        // A quarter of the queue is 262,144 bytes.
        assert_ne!(stored.rest(Sent { waiting: 5_242, ..SENT }), Duration::ZERO);
        assert_eq!(stored.rest(Sent { waiting: 5_243, ..SENT }), Duration::ZERO);
        assert_eq!(pace(Acknowledge::Upstream).rest(SENT), Duration::ZERO);
    }
}
