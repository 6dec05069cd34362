//! Token buckets: budgets that refill with time.

use std::time::{Duration, Instant};

/// A budget that refills with time, and may be overdrawn once.
#[derive(Debug, Clone)]
pub struct TokenBucket {
    most: f64,
    per_second: f64,
    left: f64,
    at: Instant,
}

impl TokenBucket {
    /// A full budget of `most`, which gains `per_second`.
    #[must_use]
    pub const fn new(most: f64, per_second: f64, now: Instant) -> Self {
        Self { most, per_second, left: most, at: now }
    }

    fn refill(&mut self, now: Instant) {
        let gained = now.saturating_duration_since(self.at).as_secs_f64() * self.per_second;
        self.left = self.most.min(self.left + gained);
        self.at = now;
    }

    /// Takes `amount` if that much is left; returns whether it did.
    pub fn take(&mut self, amount: f64, now: Instant) -> bool {
        self.refill(now);
        let there = self.left >= amount;
        if there {
            self.left -= amount;
        }
        there
    }

    /// Takes `amount` whether that much is left or not; returns the amount owed.
    fn take_all(&mut self, amount: f64, now: Instant) -> f64 {
        self.refill(now);
        self.left -= amount;
        (-self.left).max(0.0)
    }

    /// Gives back an amount that was taken and not used.
    pub fn give_back(&mut self, amount: f64) {
        self.left = self.most.min(self.left + amount);
    }

    /// The amount left; negative while the budget is overdrawn.
    #[must_use]
    pub fn left(&self, now: Instant) -> f64 {
        let mut bucket = self.clone();
        bucket.refill(now);
        bucket.left
    }

    /// Whether nothing was taken lately.
    #[must_use]
    pub fn is_full(&self, now: Instant) -> bool {
        self.left(now) >= self.most
    }

    /// Takes `amount` whether that much is left or not. Returns the time until nothing is owed, if anything is.
    pub fn overdraw(&mut self, amount: f64, now: Instant) -> Option<Duration> {
        let owed = self.take_all(amount, now);
        (owed > 0.0).then(|| Duration::from_secs_f64(owed / self.per_second))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_is_spent_and_refills() {
        let start = Instant::now();
        let mut bucket = TokenBucket::new(2.0, 0.5, start);
        assert!(bucket.take(1.0, start) && bucket.take(1.0, start) && !bucket.take(1.0, start));
        let later = start + Duration::from_secs(2);
        assert!(bucket.take(1.0, later) && !bucket.take(1.0, later));
        assert!(!bucket.is_full(later) && bucket.is_full(start + Duration::from_hours(1)));
    }
}
