//! Turns: how many answers are made at once, of everybody and of one user. Who waits with fewest under way is next, and an
//! answer that takes long pauses for others, so nobody waits for more than a slice of somebody else's.
//!
//! A holder is a user, or the address of a client without a login.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use axum::extract::{Extension, Request, State};
use axum::middleware::Next;
use axum::response::Response;
use tokio::sync::oneshot;

use super::auth::Identity;

/// Answers that are made at once. Each may read the log, with a thread and a page cache of its own, and a board has four
/// cores.
pub const ANSWERS_AT_ONCE: usize = 3;
/// Those of them of one holder.
const OF_HOLDER: usize = 2;
/// Answers that have been begun, those that pause for others among them. A holder has at most as many as it leaves free.
const BEGUN_MAX: usize = 6;
/// How long an answer is made before it pauses for another holder that waits.
const SLICE: Duration = Duration::from_millis(20);

/// The turns of everybody. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct Turns(Arc<Mutex<Table>>);

#[derive(Debug, Default)]
struct Table {
    /// Answers that are made now, and those that have been begun.
    running: usize,
    begun: usize,
    of: HashMap<Arc<str>, Own>,
    /// In the order in which they came, or paused.
    waiting: VecDeque<Waiting>,
}

#[derive(Debug, Default, Clone, Copy)]
struct Own {
    running: usize,
    begun: usize,
}

#[derive(Debug)]
struct Waiting {
    holder: Arc<str>,
    has_begun: bool,
    granted: oneshot::Sender<Grant>,
}

/// The right to make an answer now. Dropping it gives the right to the next one.
#[derive(Debug)]
struct Grant {
    turns: Turns,
    holder: Arc<str>,
    /// Whether the answer ends with it, and does not only pause.
    ends: bool,
    /// False once it was given back.
    held: bool,
}

impl Table {
    fn own(&self, holder: &str) -> Own {
        self.of.get(holder).copied().unwrap_or_default()
    }

    /// The position of the next one that may go on: of the holder with fewest under way, the first.
    fn next(&self) -> Option<usize> {
        if self.running >= ANSWERS_AT_ONCE {
            return None;
        }
        let may = |waiting: &Waiting| {
            let own = self.own(&waiting.holder);
            own.running < OF_HOLDER
                && (waiting.has_begun || own.begun < BEGUN_MAX.saturating_sub(self.begun))
        };
        let ready = self.waiting.iter().enumerate().filter(|(_, waiting)| may(waiting));
        ready.min_by_key(|(_, waiting)| self.own(&waiting.holder).running).map(|(at, _)| at)
    }

    fn give(&mut self, holder: &Arc<str>, begins: bool) {
        let own = self.of.entry(Arc::clone(holder)).or_default();
        own.running += 1;
        own.begun += usize::from(begins);
        self.running += 1;
        self.begun += usize::from(begins);
    }

    fn give_back(&mut self, holder: &Arc<str>, ends: bool) {
        if let Some(own) = self.of.get_mut(holder) {
            own.running -= 1;
            own.begun -= usize::from(ends);
            if own.begun == 0 {
                self.of.remove(holder);
            }
        }
        self.running -= 1;
        self.begun -= usize::from(ends);
    }
}

impl Drop for Grant {
    fn drop(&mut self) {
        if self.held {
            let mut table = self.turns.lock();
            table.give_back(&self.holder, self.ends);
            self.turns.serve(&mut table);
        }
    }
}

/// The turn of one answer. A clone is the same turn; it ends when the last one is dropped.
#[derive(Debug, Clone)]
pub struct Turn(Arc<Held>);

#[derive(Debug)]
struct Held {
    grant: Mutex<Option<(Grant, Instant)>>,
    unwanted: AtomicBool,
}

/// The request of a turn. Dropped with it, the answer is not wanted any more.
#[derive(Debug)]
pub struct Wanted(Turn);

impl Drop for Wanted {
    fn drop(&mut self) {
        self.0.0.unwanted.store(true, Relaxed);
    }
}

impl Turns {
    /// The turn of an answer for `holder`.
    pub async fn take(&self, holder: &Arc<str>) -> Wanted {
        let grant = self.wait(holder, false).await.ok();
        let grant = Mutex::new(grant.map(|grant| (grant, Instant::now())));
        Wanted(Turn(Arc::new(Held { grant, unwanted: AtomicBool::new(false) })))
    }

    fn wait(&self, holder: &Arc<str>, has_begun: bool) -> oneshot::Receiver<Grant> {
        let (granted, grant) = oneshot::channel();
        let mut table = self.lock();
        table.waiting.push_back(Waiting { holder: Arc::clone(holder), has_begun, granted });
        self.serve(&mut table);
        grant
    }

    fn serve(&self, table: &mut Table) {
        while let Some(Waiting { holder, has_begun, granted }) =
            table.next().and_then(|next| table.waiting.remove(next))
        {
            table.give(&holder, !has_begun);
            let turns = self.clone();
            if let Err(mut unwanted) = granted.send(Grant { turns, holder, ends: true, held: true })
            {
                unwanted.held = false;
                table.give_back(&unwanted.holder, true);
            }
        }
    }

    /// Whether another holder waits.
    fn are_wanted_by_others(&self, holder: &Arc<str>) -> bool {
        self.lock().waiting.iter().any(|waiting| waiting.holder != *holder)
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Wanted {
    /// The turn, for the thread that makes the answer.
    pub fn turn(&self) -> Turn {
        self.0.clone()
    }
}

impl Turn {
    /// Lets others go first where they wait and the slice is over: then it blocks. Returns whether the answer is still
    /// wanted.
    pub fn goes_on(&self) -> bool {
        if self.0.unwanted.load(Relaxed) {
            return false;
        }
        let mut held = self.0.grant.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((mut grant, since)) = held.take() {
            let pauses =
                since.elapsed() >= SLICE && grant.turns.are_wanted_by_others(&grant.holder);
            *held = if pauses {
                let (turns, holder) = (grant.turns.clone(), Arc::clone(&grant.holder));
                grant.ends = false;
                drop(grant);
                let next = turns.wait(&holder, true).blocking_recv();
                next.ok().map(|grant| (grant, Instant::now()))
            } else {
                Some((grant, since))
            };
        }
        !self.0.unwanted.load(Relaxed)
    }
}

/// Middleware: an answer is made, up to its compression, in its holder's turn.
pub async fn in_turn(
    State(turns): State<Turns>,
    Extension(identity): Extension<Identity>,
    mut request: Request,
    next: Next,
) -> Response {
    let wanted = turns.take(&identity.holder).await;
    request.extensions_mut().insert(wanted.turn());
    next.run(request).await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holder(name: &str) -> Arc<str> {
        name.into()
    }

    /// Whether it is granted now.
    fn granted(grant: &mut oneshot::Receiver<Grant>) -> Option<Grant> {
        grant.try_recv().ok()
    }

    #[test]
    fn a_holder_leaves_a_turn_to_others_and_the_one_with_fewest_is_next() {
        let turns = Turns::default();
        let [one, other, third] = ["one", "other", "third"].map(holder);
        let mut of_one: Vec<_> = (0..50).map(|_| turns.wait(&one, false)).collect();
        let mut running: Vec<_> = of_one.iter_mut().filter_map(granted).collect();
        assert_eq!(running.len(), OF_HOLDER);
        let mut of_other = [turns.wait(&other, false), turns.wait(&other, false)];
        let first = granted(&mut of_other[0]).expect("it does not wait for another holder");
        assert!(granted(&mut of_other[1]).is_none(), "all are given");
        let mut of_third = turns.wait(&third, false);
        running.pop();
        assert!(granted(&mut of_third).is_some(), "before the many that came earlier");
        // Dropped at once, it went to the one with fewest of the rest.
        assert!(granted(&mut of_one[2]).is_some() || granted(&mut of_other[1]).is_some());
        drop((of_one, of_other, of_third, running, first));
        let table = turns.lock();
        assert!(table.running == 0 && table.begun == 0 && table.of.is_empty());
    }

    #[test]
    fn a_long_answer_pauses_for_another_holder_and_is_given_up_when_nobody_wants_it() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let turns = Turns::default();
        let [one, two, other] = ["one", "two", "other"].map(holder);
        let wanted: Vec<_> = [&one, &one, &two]
            .map(|holder| runtime.block_on(turns.take(holder)))
            .into_iter()
            .collect();
        // Each would take for ever.
        let making: Vec<_> = wanted
            .iter()
            .map(|wanted| {
                let turn = wanted.turn();
                std::thread::spawn(move || while turn.goes_on() {})
            })
            .collect();
        // These have their turn all the same, one after the other.
        for _ in 0..3 {
            drop(runtime.block_on(turns.take(&other)));
        }
        drop(wanted);
        for thread in making {
            thread.join().unwrap();
        }
        let table = turns.lock();
        assert!(table.running == 0 && table.begun == 0 && table.of.is_empty());
    }

    #[test]
    fn who_has_begun_many_leaves_others_room_to_begin() {
        let turns = Turns::default();
        // They pause for ever.
        let begun = |name: &str| {
            let holder = holder(name);
            std::iter::from_fn(|| {
                let mut grant = granted(&mut turns.wait(&holder, false))?;
                grant.ends = false;
                Some(())
            })
            .count()
        };
        assert_eq!(["one", "other", "third"].map(begun), [3, 2, 1]);
    }
}
