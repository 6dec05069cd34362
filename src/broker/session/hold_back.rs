//! Budgets of the time for which publishers are held back for slow subscribers: by queue, and for all queues together.

use std::time::{Duration, Instant};

use crate::broker::net::token_bucket::TokenBucket;

/// How long a publisher is held back at most after one batch of messages. Its next acknowledgement comes that much
/// later.
pub const HOLD_MAX: Duration = Duration::from_millis(20);
/// Bytes that a queue has to lose during a hold so that only [`HOLD_DISCOUNT`] of it is charged: about 2 MB a second, a
/// client that reads all the time.
pub const HOLD_DRAINED_BYTES: u64 = 32 * 1024;
const HOLD_DISCOUNT: f64 = 0.1;
/// Seconds that one client's queue may hold publishers back at once, and for each second: 2 %.
const HOLD_BUDGET: (f64, f64) = (0.5, 0.02);
/// The same for all queues together: 5 %.
const ALL_HOLDS_BUDGET: (f64, f64) = (2.0, 0.05);

/// A budget of seconds.
#[derive(Debug)]
pub struct HoldBudget(TokenBucket);

impl HoldBudget {
    /// Of one queue.
    pub fn of_queue(now: Instant) -> Self {
        let (most, per_second) = HOLD_BUDGET;
        Self(TokenBucket::new(most, per_second, now))
    }

    /// Of all queues together.
    pub fn of_all(now: Instant) -> Self {
        let (most, per_second) = ALL_HOLDS_BUDGET;
        Self(TokenBucket::new(most, per_second, now))
    }

    /// Seconds that are left; negative while the budget is overdrawn.
    pub fn left(&self, now: Instant) -> f64 {
        self.0.left(now)
    }

    /// Charges a hold, in which the queue lost so many bytes.
    pub fn charge(&mut self, held: Duration, drained_bytes: u64, now: Instant) {
        let share = if drained_bytes >= HOLD_DRAINED_BYTES { HOLD_DISCOUNT } else { 1.0 };
        self.0.overdraw(held.as_secs_f64() * share, now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hold_in_which_the_client_reads_costs_a_tenth() {
        let now = Instant::now();
        let (mut reads, mut stalls) = (HoldBudget::of_queue(now), HoldBudget::of_all(now));
        reads.charge(Duration::from_secs(1), HOLD_DRAINED_BYTES, now);
        stalls.charge(Duration::from_secs(1), HOLD_DRAINED_BYTES - 1, now);
        assert!((reads.left(now) - (HOLD_BUDGET.0 - 0.1)).abs() < 1e-6);
        assert!((stalls.left(now) - (ALL_HOLDS_BUDGET.0 - 1.0)).abs() < 1e-6);
    }
}
