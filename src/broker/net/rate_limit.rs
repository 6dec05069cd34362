//! The rate limiter of one client: while the client is above its rate, the broker does not read from it, and TCP
//! carries the back-pressure to the client. No message is lost, and no connection is closed.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Instant;

use tokio::time::Sleep;

use crate::broker::net::limits::Limits;
use crate::broker::net::token_bucket::TokenBucket;

/// A budget holds the amount of this many seconds. A burst of that size passes at once.
const BURST_SECONDS: f64 = 1.0;

/// The budgets of one client.
#[derive(Debug)]
pub struct RateLimiter {
    messages: Option<TokenBucket>,
    bytes: Option<TokenBucket>,
    closed: Option<Pin<Box<Sleep>>>,
}

impl RateLimiter {
    /// No limit.
    pub const UNBOUNDED: Self = Self { messages: None, bytes: None, closed: None };

    /// The rates of `limits`.
    #[must_use]
    pub fn new(limits: &Limits, now: Instant) -> Self {
        let bucket = |per_second: u32| {
            let per_second = f64::from(per_second);
            (per_second > 0.0)
                .then(|| TokenBucket::new(per_second * BURST_SECONDS, per_second, now))
        };
        Self {
            messages: bucket(limits.messages_per_second),
            bytes: bucket(limits.bytes_per_second),
            closed: None,
        }
    }

    /// Charges the budgets for reads. An overdrawn budget closes the limiter until it is even again.
    pub fn spend(&mut self, messages: u32, bytes: usize) {
        let now = Instant::now();
        #[allow(clippy::cast_precision_loss)] // at most a read buffer
        let spent = [(&mut self.messages, f64::from(messages)), (&mut self.bytes, bytes as f64)];
        let wait = spent.into_iter().filter_map(|(bucket, amount)| {
            bucket.as_mut().and_then(|bucket| bucket.overdraw(amount, now))
        });
        if let Some(wait) = wait.max() {
            self.closed = Some(Box::pin(tokio::time::sleep(wait)));
        }
    }

    /// Whether it is closed.
    pub const fn is_closed(&self) -> bool {
        self.closed.is_some()
    }

    /// Ready when it is open.
    pub fn poll_open(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(closed) = &mut self.closed {
            if closed.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            self.closed = None;
        }
        Poll::Ready(())
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn a_client_above_its_rate_waits_until_it_is_within_its_rate_again() {
        let limits =
            Limits { messages_per_second: 100, bytes_per_second: 1024, ..Limits::default() };
        let start = Instant::now();
        let mut limiter = RateLimiter::new(&limits, start);
        limiter.spend(100, 1024);
        assert!(!limiter.is_closed(), "a second's worth at once");
        limiter.spend(20, 0);
        assert!(limiter.is_closed());
        poll_fn(|cx| limiter.poll_open(cx)).await;
        assert!(start.elapsed() >= Duration::from_millis(190), "{:?}", start.elapsed());
        limiter.spend(0, 2048);
        let Some(closed) = &limiter.closed else { panic!("bytes count too") };
        assert!(closed.deadline() > tokio::time::Instant::now() + Duration::from_millis(500));
    }
}
