//! The bytes that one connection may buffer: some of its own, and beyond them a share of a pool.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::broker::net::shares::{Pool, Share};

/// Bytes that each connection may buffer in each direction without a share of the pool.
pub const OWN_BYTES: usize = 4 * 1024;
/// Bytes that all connections buffer beyond those, shared by user: incomplete packets, packets that wait for their commit,
/// output that its client has not read, and pages of the log.
pub const BUFFER_BYTES: usize = 8 * 1024 * 1024;
/// How long a share may be held while others ask in vain. A client then has to be done with what it is for.
pub const HELD_MAX: Duration = Duration::from_secs(30);

/// What one buffer of a connection has of the pool.
#[derive(Debug)]
pub struct Buffered {
    pool: Pool,
    holder: Arc<str>,
    share: Option<(Share, Instant)>,
    /// It has asked in vain since it was last released.
    waits: bool,
}

impl Buffered {
    /// Nothing of `pool` yet, for a connection of `holder`.
    pub const fn new(pool: Pool, holder: Arc<str>) -> Self {
        Self { pool, holder, share: None, waits: false }
    }

    /// Whether the buffer may have `bytes`. Where that takes a share, one of at least `least` bytes is held until
    /// [`Buffered::release`].
    pub fn admits(&mut self, bytes: usize, least: usize) -> bool {
        if bytes <= OWN_BYTES {
            return true;
        }
        if let Some((share, _)) = &self.share {
            return bytes <= share.units();
        }
        self.share =
            self.pool.share(&self.holder, bytes.max(least)).map(|share| (share, Instant::now()));
        self.waits = self.share.is_none();
        !self.waits
    }

    /// As [`Buffered::admits`], with another share where the one that is held is too small.
    pub fn admits_next(&mut self, bytes: usize) -> bool {
        self.admits(bytes, 0) || {
            self.release();
            self.admits(bytes, 0)
        }
    }

    /// Has `bytes` in place of what it had, whether it may or not.
    pub fn set(&mut self, bytes: usize) {
        let share = || (self.pool.share_anyway(&self.holder, bytes), Instant::now());
        self.share = (bytes > OWN_BYTES).then(share);
    }

    /// Whether other connections should take no more than their own bytes where they can.
    pub fn is_scarce(&self) -> bool {
        self.pool.is_scarce()
    }

    /// The share is for something else from now on.
    pub fn renew(&mut self) {
        if let Some((_, since)) = &mut self.share {
            *since = Instant::now();
        }
    }

    /// The buffer needs no share any more.
    pub fn release(&mut self) {
        self.share = None;
        self.waits = false;
    }

    /// Whether it waits for a share.
    pub const fn waits(&self) -> bool {
        self.waits
    }

    /// Whether it has held a share for too long while others ask in vain.
    pub fn is_overdue(&self, now: Instant) -> bool {
        self.share.as_ref().is_some_and(|(_, since)| now >= *since + HELD_MAX)
            && self.pool.is_wanted(HELD_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_beyond_its_own_bytes_is_a_share_until_it_is_released() {
        let pool = Pool::new(800_000);
        let buffered = |holder: &str| Buffered::new(pool.clone(), holder.into());
        let [mut one, mut other, mut third] = ["a", "a", "b"].map(buffered);
        assert!(one.admits(OWN_BYTES, 0) && one.admits(300_000, 0) && one.admits(200_000, 0));
        assert!(!one.admits(300_001, 0), "a share does not grow");
        assert!(!other.admits(300_000, 0) && other.waits() && other.admits(OWN_BYTES, 0));
        assert!(third.admits(300_000, 0), "another holder has room");
        let freed = pool.freed();
        let now = Instant::now();
        assert!(!one.is_overdue(now) && one.is_overdue(now + HELD_MAX));
        one.release();
        freed.await;
        assert!(other.admits(300_000, 0) && !other.waits());
        other.set(OWN_BYTES);
        assert!(one.admits(20_000, 300_000) && one.admits(300_000, 0) && !one.admits(300_001, 0));
        assert!(one.admits_next(200_000) && one.admits_next(300_000));
    }
}
