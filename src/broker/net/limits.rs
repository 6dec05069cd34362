//! What one client may take from the others: budgets that fill up again, and who counts as one client.

use std::net::{IpAddr, Ipv6Addr};
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// What an operator sets.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Limits {
    /// Clients at once. Each costs a few kilobytes and a file descriptor.
    pub connections: usize,
    /// Clients at once from one address (IPv6: one /64). All clients behind an address translation, a
    /// container engine's too, count as one address.
    pub connections_per_address: usize,
    /// PUBLISH packets a second that are read from one client; 0 is no limit.
    pub messages_per_second: u32,
    /// Bytes a second that are read from one client; 0 is no limit.
    pub bytes_per_second: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 2000,
            connections_per_address: 1500,
            messages_per_second: 0,
            bytes_per_second: 0,
        }
    }
}

/// A budget that fills up again with time, and may be overdrawn once.
#[derive(Debug, Clone)]
pub struct Bucket {
    most: f64,
    per_second: f64,
    left: f64,
    at: Instant,
}

impl Bucket {
    /// A full budget of `most`, which gains `per_second`.
    #[must_use]
    pub const fn new(most: f64, per_second: f64, now: Instant) -> Self {
        Self { most, per_second, left: most, at: now }
    }

    fn fill(&mut self, now: Instant) {
        let gained = now.saturating_duration_since(self.at).as_secs_f64() * self.per_second;
        self.left = self.most.min(self.left + gained);
        self.at = now;
    }

    /// Takes `amount` if it is there.
    pub fn take(&mut self, amount: f64, now: Instant) -> bool {
        self.fill(now);
        let there = self.left >= amount;
        if there {
            self.left -= amount;
        }
        there
    }

    /// Takes `amount` whether it is there or not; returns what is owed.
    pub fn take_all(&mut self, amount: f64, now: Instant) -> f64 {
        self.fill(now);
        self.left -= amount;
        (-self.left).max(0.0)
    }

    /// What it gains.
    #[must_use]
    pub const fn per_second(&self) -> f64 {
        self.per_second
    }

    /// Puts back what was taken and not used.
    pub fn give_back(&mut self, amount: f64) {
        self.left = self.most.min(self.left + amount);
    }

    /// What is left.
    #[must_use]
    pub fn left(&self, now: Instant) -> f64 {
        let mut bucket = self.clone();
        bucket.fill(now);
        bucket.left
    }

    /// Whether nothing was taken lately.
    #[must_use]
    pub fn is_full(&self, now: Instant) -> bool {
        self.left(now) >= self.most
    }
}

/// Who is counted as one: an IPv4 address, or the /64 that an IPv6 network gives to one line.
#[must_use]
pub fn origin(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(v4) => v4.into(),
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX)).into(),
    }
}

/// A log line that comes at most once in a while, with how often it was left out.
#[derive(Debug)]
pub struct Rarely {
    every: Duration,
    last: Mutex<Option<(Instant, u64)>>,
}

impl Rarely {
    /// A line at most once in `every`.
    #[must_use]
    pub const fn new(every: Duration) -> Self {
        Self { every, last: Mutex::new(None) }
    }

    /// Whether the line is due, and then how many were left out since the one before.
    pub fn due(&self, now: Instant) -> Option<u64> {
        let mut last = self.last.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        match &mut *last {
            Some((at, left_out)) if now.saturating_duration_since(*at) < self.every => {
                *left_out += 1;
                None
            }
            last => Some(last.replace((now, 0)).map_or(0, |(_, left_out)| left_out)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_is_spent_and_fills_up_again() {
        let start = Instant::now();
        let mut bucket = Bucket::new(2.0, 0.5, start);
        assert!(bucket.take(1.0, start) && bucket.take(1.0, start) && !bucket.take(1.0, start));
        let later = start + Duration::from_secs(2);
        assert!(bucket.take(1.0, later) && !bucket.take(1.0, later));
        assert!(!bucket.is_full(later) && bucket.is_full(start + Duration::from_hours(1)));
    }

    #[test]
    fn an_origin_is_an_address_or_a_network_of_one_line() {
        let of = |text: &str| origin(text.parse().unwrap());
        assert_eq!(of("::ffff:192.0.2.1"), of("192.0.2.1"));
        assert_ne!(of("192.0.2.2"), of("192.0.2.1"));
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:1"));
        assert_ne!(of("2001:db8:0:1::1"), of("2001:db8::1"));
    }

    #[test]
    fn a_line_says_how_often_it_was_left_out() {
        let (start, line) = (Instant::now(), Rarely::new(Duration::from_secs(10)));
        assert_eq!(line.due(start), Some(0));
        assert_eq!((line.due(start), line.due(start)), (None, None));
        assert_eq!(line.due(start + Duration::from_secs(10)), Some(2));
    }
}
