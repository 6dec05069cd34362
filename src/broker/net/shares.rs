//! Shares of a pool: how much of it each holder has, and whether it may have more. A holder is a user, or an address.
//!
//! A holder may have as much as it leaves free: alone half of the pool, beside another one with half of it a quarter, and
//! so on. So none can fill a pool, whoever comes later finds room, and nothing has to be taken from anybody.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tokio::sync::futures::Notified;

/// A pool of units: messages, bytes, sessions.
#[derive(Debug)]
pub struct Shares {
    bound: usize,
    used: usize,
    by_holder: HashMap<Arc<str>, usize>,
}

impl Shares {
    /// An empty pool of `bound` units.
    pub fn new(bound: usize) -> Self {
        Self { bound, used: 0, by_holder: HashMap::new() }
    }

    /// Units that `holder` has.
    pub fn of(&self, holder: &str) -> usize {
        self.by_holder.get(holder).copied().unwrap_or(0)
    }

    /// Units that all holders have.
    pub const fn used(&self) -> usize {
        self.used
    }

    /// Whether `holder` may have so many units more: all of its own are then at most those that are free now.
    pub fn admits(&self, holder: &str, units: usize) -> bool {
        units == 0 || self.of(holder) + units <= self.bound.saturating_sub(self.used)
    }

    /// Gives `holder` units, whether it may have them or not.
    pub fn take(&mut self, holder: &Arc<str>, units: usize) {
        if units == 0 {
            return;
        }
        self.used += units;
        match self.by_holder.get_mut(holder) {
            Some(own) => *own += units,
            None => drop(self.by_holder.insert(Arc::clone(holder), units)),
        }
    }

    /// Gives `holder` units if it may have them; returns whether it did.
    pub fn try_take(&mut self, holder: &Arc<str>, units: usize) -> bool {
        let admits = self.admits(holder, units);
        if admits {
            self.take(holder, units);
        }
        admits
    }

    /// Takes units back from `holder`.
    pub fn give_back(&mut self, holder: &str, units: usize) {
        let Some(own) = self.by_holder.get_mut(holder) else { return };
        let units = units.min(*own);
        *own -= units;
        self.used -= units;
        if *own == 0 {
            self.by_holder.remove(holder);
        }
    }
}

/// A pool that connections share. A clone is the same pool.
#[derive(Debug, Clone)]
pub struct Pool(Arc<Pooled>);

#[derive(Debug)]
struct Pooled {
    shares: Mutex<Shares>,
    /// Told when units come back.
    freed: Notify,
    /// When a holder last asked in vain.
    refused: Mutex<Option<Instant>>,
    /// More than a quarter of the units are given.
    scarce: AtomicBool,
}

/// Units of a [`Pool`]. Dropping it gives them back.
#[derive(Debug)]
pub struct Share {
    pool: Pool,
    holder: Arc<str>,
    units: usize,
}

impl Pool {
    /// An empty pool of `bound` units.
    pub fn new(bound: usize) -> Self {
        let shares = Mutex::new(Shares::new(bound));
        Self(Arc::new(Pooled {
            shares,
            freed: Notify::new(),
            refused: Mutex::default(),
            scarce: AtomicBool::new(false),
        }))
    }

    /// Units for `holder`; `None` when it may not have so many more.
    pub fn share(&self, holder: &Arc<str>, units: usize) -> Option<Share> {
        let given = self.change(|shares| shares.try_take(holder, units));
        if !given {
            *self.0.refused.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
        }
        given.then(|| self.given(holder, units))
    }

    /// Resolves when units have come back since the call.
    pub fn freed(&self) -> Notified<'_> {
        self.0.freed.notified()
    }

    /// Whether a holder has asked for units in vain within this time.
    pub fn is_wanted(&self, within: Duration) -> bool {
        let refused = *self.0.refused.lock().unwrap_or_else(PoisonError::into_inner);
        refused.is_some_and(|at| at.elapsed() < within)
    }

    /// Units for `holder`, whether it may have them or not.
    pub fn share_anyway(&self, holder: &Arc<str>, units: usize) -> Share {
        self.change(|shares| shares.take(holder, units));
        self.given(holder, units)
    }

    fn given(&self, holder: &Arc<str>, units: usize) -> Share {
        Share { pool: self.clone(), holder: Arc::clone(holder), units }
    }

    /// Whether more than a quarter of the units are given: then a user who has them may have no more than half of them.
    pub fn is_scarce(&self) -> bool {
        self.0.scarce.load(Relaxed)
    }

    fn change<R>(&self, change: impl FnOnce(&mut Shares) -> R) -> R {
        let mut shares = self.0.shares.lock().unwrap_or_else(PoisonError::into_inner);
        let result = change(&mut shares);
        self.0.scarce.store(shares.used > shares.bound / 4, Relaxed);
        result
    }
}

impl Share {
    /// Units that it is.
    pub const fn units(&self) -> usize {
        self.units
    }

    /// Takes so many units more, if its holder may have them; returns whether it did.
    pub fn grow(&mut self, units: usize) -> bool {
        let given = self.pool.change(|shares| shares.try_take(&self.holder, units));
        self.units += if given { units } else { 0 };
        given
    }

    /// Gives some of its units back.
    pub fn shrink(&mut self, units: usize) {
        let units = units.min(self.units);
        self.units -= units;
        self.pool.change(|shares| shares.give_back(&self.holder, units));
        self.pool.0.freed.notify_waiters();
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.pool.change(|shares| shares.give_back(&self.holder, self.units));
        self.pool.0.freed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_holder_has_at_most_what_it_leaves_free_and_whoever_comes_finds_room() {
        let mut pool = Shares::new(1000);
        let fill = |pool: &mut Shares, holder: &str| {
            let holder = holder.into();
            while pool.try_take(&holder, 1) {}
            pool.of(&holder)
        };
        assert_eq!(["a", "b", "c"].map(|holder| fill(&mut pool, holder)), [500, 250, 125]);
        assert!(!pool.admits("a", 1) && pool.admits("d", 125) && !pool.admits("d", 126));
        pool.give_back("a", 500);
        assert_eq!((pool.of("a"), pool.used()), (0, 375));
        assert_eq!(fill(&mut pool, "b"), 438);
        // More than it may, as at the start from a log of an earlier version.
        pool.take(&"a".into(), 2000);
        assert!(!pool.admits("d", 1) && pool.admits("a", 0));
        for (holder, units) in [("a", 3000), ("b", 438), ("c", 125), ("e", 1)] {
            pool.give_back(holder, units);
        }
        assert!(pool.used() == 0 && pool.by_holder.is_empty());
    }

    #[test]
    fn a_share_grows_within_what_its_holder_may_have() {
        let pool = Pool::new(1000);
        let mut share = pool.share(&"a".into(), 300).unwrap();
        assert!(share.grow(200) && !share.grow(1));
        assert!(pool.share(&"b".into(), 501).is_none());
        share.shrink(100);
        assert_eq!(share.units(), 400);
        assert!(share.grow(100));
        share.shrink(5_000);
        assert!(share.grow(500), "what it gave back is free");
        drop(share);
        assert!(pool.share(&"b".into(), 500).is_some());
    }
}
