//! Admission: permits for connections without a login and for clients, bounded in all and by address. One without a login
//! is evicted for a new one, oldest first, so that no flood of silent sockets or wrong logins locks a client out. A client
//! that finds no place waits a moment for one: places of clients whose end has arrived become free as it is read.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{Instant, timeout};

use crate::broker::net::limits::{Limits, origin};
use crate::broker::net::without_login::{WithoutLogin, count_down};

/// Connections without a login, TLS handshakes and logins that wait for their answer among them, beside the places that
/// clients have left free: in all, and of one address. Each may hold a handshake's 20 KiB.
pub const WITHOUT_LOGIN: usize = 256;
pub const WITHOUT_LOGIN_PER_ADDRESS: usize = 128;
/// How long a new connection is not evicted for the clients that hold places: their ends may have arrived unread, and a
/// hall that comes back at once connects before it sends its CONNECTs.
const YOUNG: Duration = Duration::from_secs(2);
/// Bytes of a handshake that each connection has beside those: a `ClientHello`, and the certificate of a client. TLS keeps up
/// to 64 KiB of a message that is not whole.
const HANDSHAKE_BYTES: usize = 4 * 1024;
/// How long a client waits for a place.
const PLACE_WAIT: Duration = Duration::from_secs(5);
/// Clients that have ended and whose last work goes on after they have left their place.
pub const ENDING: usize = 256;

/// Whose place it is: the client's address, and its user, if it has logged in.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Holder {
    origin: IpAddr,
    user: Option<Arc<str>>,
}

#[derive(Debug, Default)]
struct Table {
    without_login: WithoutLogin,
    admitted: usize,
    admitted_of: HashMap<IpAddr, usize>,
    admitted_of_user: HashMap<Arc<str>, usize>,
    /// Clients that wait for a place, in the order of their CONNECTs.
    queue: VecDeque<(Holder, oneshot::Sender<Place>)>,
    ending: usize,
    tickets: u64,
}

impl Table {
    /// The connection that makes room for a new one of `origin`, if one has to: the oldest of its address, or else of the
    /// address with most of them.
    fn to_evict(&self, origin: IpAddr, limits: &Limits, now: Instant) -> Option<u64> {
        let of = |counts: &HashMap<IpAddr, usize>| counts.get(&origin).copied().unwrap_or(0);
        let of_origin = (
            self.without_login.of(origin),
            of(&self.admitted_of),
            WITHOUT_LOGIN_PER_ADDRESS,
            limits.connections_per_address,
            self.without_login.oldest(|other| *other == origin),
        );
        let of_all = (
            self.without_login.len(),
            self.admitted,
            WITHOUT_LOGIN,
            limits.connections,
            self.without_login.oldest_of_most(),
        );
        [of_origin, of_all].into_iter().find_map(|(waiting, admitted, room, places, oldest)| {
            let is_young = now < self.without_login.since(oldest?)? + YOUNG;
            // They may use the places that clients have left free: they are to become clients.
            let taken = if is_young { 0 } else { admitted };
            oldest.filter(|_| waiting >= room + places.saturating_sub(taken))
        })
    }

    fn has_place(&self, holder: &Holder, limits: &Limits) -> bool {
        let of_origin = self.admitted_of.get(&holder.origin).copied().unwrap_or(0);
        let of_user = holder.user.as_ref().and_then(|user| self.admitted_of_user.get(user));
        self.admitted < limits.connections
            && of_origin < limits.connections_per_address
            && of_user.copied().unwrap_or(0) < limits.connections_per_user
    }

    fn occupy(&mut self, holder: &Holder) {
        self.admitted += 1;
        *self.admitted_of.entry(holder.origin).or_default() += 1;
        if let Some(user) = &holder.user {
            *self.admitted_of_user.entry(Arc::clone(user)).or_default() += 1;
        }
    }

    fn vacate(&mut self, holder: &Holder) {
        self.admitted -= 1;
        count_down(&mut self.admitted_of, &holder.origin);
        if let Some(user) = &holder.user {
            count_down(&mut self.admitted_of_user, user);
        }
    }
}

/// Gives permits to connections.
#[derive(Debug, Clone)]
pub struct Admission {
    table: Arc<Mutex<Table>>,
    limits: Limits,
}

/// The limit of clients is reached, in all, for this user or for this address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("too many clients, in all, of this user or from this address")]
pub struct Full;

/// A client's place. Dropping it gives it to the next client in the queue.
#[derive(Debug)]
struct Place {
    admission: Admission,
    holder: Holder,
    /// False once the place is given back.
    held: bool,
}

/// What has arrived for a handshake, which counts with the bytes of CONNECTs beyond [`HANDSHAKE_BYTES`].
#[derive(Debug)]
pub struct Handshake {
    admission: Admission,
    ticket: u64,
    bytes: usize,
}

/// A connection's permit. Dropping it gives the place back.
#[derive(Debug)]
pub struct Permit {
    admission: Admission,
    origin: IpAddr,
    ticket: u64,
    evicted: oneshot::Receiver<()>,
    has_login: bool,
    place: Option<Place>,
    ending: bool,
}

impl Admission {
    /// No connection is open yet.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self { table: Arc::default(), limits }
    }

    /// Permits a new connection. Where there is no room, the connection that has been without a login for longest is
    /// evicted.
    #[must_use]
    pub fn enter(&self, from: IpAddr) -> Permit {
        let origin = origin(from);
        let (ticket, evicted) = self.wait(origin);
        let admission = self.clone();
        let (has_login, place, ending) = (false, None, false);
        Permit { admission, origin, ticket, evicted, has_login, place, ending }
    }

    /// Counts a connection that has not logged in. The receiver resolves when it has to make room for another one.
    fn wait(&self, origin: IpAddr) -> (u64, oneshot::Receiver<()>) {
        let (evict, evicted) = oneshot::channel();
        let (mut table, since) = (self.lock(), Instant::now());
        if let Some(ticket) = table.to_evict(origin, &self.limits, since) {
            table.without_login.evict(ticket);
        }
        table.tickets += 1;
        let ticket = table.tickets;
        table.without_login.enter(ticket, origin, evict, since);
        (ticket, evicted)
    }

    /// Limits on clients.
    #[must_use]
    pub const fn limits(&self) -> &Limits {
        &self.limits
    }

    /// A place whose occupation the caller has counted.
    fn place(&self, holder: Holder) -> Place {
        Place { admission: self.clone(), holder, held: true }
    }

    /// Gives the places that are free to the clients in the queue.
    fn serve_queue(&self, table: &mut Table) {
        while let Some(next) =
            table.queue.iter().position(|(holder, _)| table.has_place(holder, &self.limits))
            && let Some((holder, waiter)) = table.queue.remove(next)
        {
            table.occupy(&holder);
            if let Err(mut unwanted) = waiter.send(self.place(holder)) {
                unwanted.held = false;
                table.vacate(&unwanted.holder);
            }
        }
    }

    fn holds(&self, ticket: u64, bytes: usize) -> bool {
        self.lock().without_login.holds(ticket, bytes)
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Permit {
    /// Resolves when it is evicted; never once it has logged in.
    pub async fn evicted(&mut self) {
        if self.has_login || (&mut self.evicted).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Notes that its CONNECT of so many bytes has arrived. One that was evicted meanwhile takes its turn once more.
    pub fn take_connect(&mut self, bytes: usize) {
        let is_evicted = self.admission.lock().without_login.has_left(self.ticket);
        if is_evicted {
            (self.ticket, self.evicted) = self.admission.wait(self.origin);
        }
        self.holds(bytes);
    }

    /// Notes that so many bytes of its CONNECT have arrived. Where all of them are too many, a connection is
    /// evicted.
    pub fn holds(&self, bytes: usize) {
        let _ = self.admission.holds(self.ticket, bytes);
    }

    /// Whether it may read on: evicted connections have given back what they had. Who sends fast would else fill the memory
    /// before their tasks run.
    pub fn may_read(&self) -> bool {
        self.admission.lock().without_login.may_read()
    }

    /// Counts what arrives for its handshake.
    pub fn handshake(&self) -> Handshake {
        Handshake { admission: self.admission.clone(), ticket: self.ticket, bytes: 0 }
    }

    /// Notes that its login is right, or refused: it is not evicted any more.
    pub fn end_login(&mut self) {
        self.has_login = true;
        self.admission.lock().without_login.leave(self.ticket);
    }

    /// Makes it the permit of a client of `user`, if it has logged in. Where there is no place, it waits for one for up to
    /// [`PLACE_WAIT`].
    ///
    /// # Errors
    /// [`Full`] when a limit of clients is reached.
    pub async fn admit_client(&mut self, user: Option<&str>) -> Result<(), Full> {
        let holder = Holder { origin: self.origin, user: user.map(Arc::from) };
        let waiter = {
            let mut table = self.admission.lock();
            let limits = &self.admission.limits;
            if table.has_place(&holder, limits) {
                table.occupy(&holder);
                self.place = Some(self.admission.place(holder));
                return Ok(());
            }
            let waiting = |same: fn(&Holder, &Holder) -> bool| {
                table.queue.iter().filter(|(other, _)| same(other, &holder)).count()
            };
            if table.queue.len() >= limits.connections
                || waiting(|a, b| a.origin == b.origin) >= limits.connections_per_address
                || waiting(|a, b| a.user.is_some() && a.user == b.user)
                    >= limits.connections_per_user
            {
                return Err(Full);
            }
            let (place, waiter) = oneshot::channel();
            table.queue.push_back((holder, place));
            waiter
        };
        if let Ok(Ok(place)) = timeout(PLACE_WAIT, waiter).await {
            self.place = Some(place);
            return Ok(());
        }
        self.admission.lock().queue.retain(|(_, place)| !place.is_closed());
        Err(Full)
    }

    /// Leaves the client's place when its connection has ended, before its last work is done. Where too many clients
    /// are ending, it keeps the place until then.
    pub fn leave_place(&mut self) {
        if self.place.is_none() {
            return;
        }
        let mut table = self.admission.lock();
        if table.ending < ENDING {
            table.ending += 1;
            self.ending = true;
            drop(table);
            self.place = None;
        }
    }
}

impl Handshake {
    /// Notes that so many bytes more have arrived; returns whether they count, until the client has logged in. Where all
    /// connections have too many, one is evicted.
    pub fn arrived(&mut self, bytes: usize) -> bool {
        self.bytes += bytes;
        let beyond = self.bytes.saturating_sub(HANDSHAKE_BYTES);
        beyond == 0 || self.admission.holds(self.ticket, beyond)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.held {
            let mut table = self.admission.lock();
            table.vacate(&self.holder);
            self.admission.serve_queue(&mut table);
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut table = self.admission.lock();
        table.without_login.leave(self.ticket);
        table.without_login.has_left(self.ticket);
        if self.ending {
            table.ending -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(n: u32) -> IpAddr {
        std::net::Ipv4Addr::from_bits(0xc000_0200 + n).into()
    }

    #[tokio::test(start_paused = true)]
    async fn a_new_connection_evicts_the_oldest_without_a_login_and_never_a_client() {
        let limits = Limits { connections: 3, connections_per_address: 1, ..Limits::default() };
        let admission = Admission::new(limits);
        let mut named = admission.enter(address(1));
        named.end_login();
        named.admit_client(None).await.unwrap();
        let mut first = admission.enter(address(1));
        let mut other = admission.enter(address(2));
        let mut crowd: Vec<_> =
            (0..WITHOUT_LOGIN_PER_ADDRESS).map(|_| admission.enter(address(1))).collect();
        // The client's end may have arrived.
        assert!(first.evicted.try_recv().is_err(), "it is young");
        crowd.push(admission.enter(address(1)));
        first.evicted().await;
        tokio::time::advance(YOUNG).await;
        crowd.push(admission.enter(address(1)));
        crowd[0].evicted().await;
        assert!(other.evicted.try_recv().is_err(), "another address is not evicted");
        // One whose CONNECT had arrived takes its turn once more.
        first.take_connect(40);
        assert!(first.evicted.try_recv().is_err());
        crowd.push(first);
        crowd[1].evicted().await;
        // Two places are free, which they may use.
        let many: Vec<_> = (3..=131).map(|n| admission.enter(address(n))).collect();
        crowd[2].evicted().await;
        assert!(other.evicted.try_recv().is_err(), "an address with more of them makes room");
        assert_eq!(admission.lock().without_login.len(), WITHOUT_LOGIN + 2);
        drop((crowd, many, other, named));
        assert_empty(&admission);
    }

    fn assert_empty(admission: &Admission) {
        let table = admission.lock();
        assert!(table.without_login.is_empty());
        assert!(table.admitted == 0 && table.admitted_of.is_empty());
        assert!(table.admitted_of_user.is_empty());
        assert!(table.queue.is_empty() && table.ending == 0);
    }

    #[test]
    fn the_address_with_most_bytes_of_connects_loses_its_largest() {
        let admission = Admission::new(Limits::default());
        let mut modest = admission.enter(address(1));
        modest.holds(200_000);
        let mut greedy: Vec<_> = (0..100).map(|_| admission.enter(address(2))).collect();
        for (n, permit) in greedy.iter().enumerate() {
            permit.holds(50_000 + n);
        }
        assert!(modest.evicted.try_recv().is_err());
        let evicted = greedy.iter_mut().filter_map(|permit| permit.evicted.try_recv().ok()).count();
        assert!((20..=24).contains(&evicted), "{evicted}");
        drop((modest, greedy));
        assert_empty(&admission);
    }

    #[tokio::test(start_paused = true)]
    async fn clients_are_bounded_in_all_and_by_address() {
        let limits = Limits { connections: 3, connections_per_address: 2, ..Limits::default() };
        let admission = Admission::new(limits);
        let admit = async |n| {
            let mut permit = admission.enter(address(n));
            permit.end_login();
            permit.admit_client(None).await.map(|()| permit)
        };
        let (one, two) = (admit(1).await.unwrap(), admit(1).await.unwrap());
        assert!(admit(1).await.is_err(), "two of one address");
        let three = admit(2).await.unwrap();
        assert!(admit(3).await.is_err(), "three in all");
        drop(one);
        drop(admit(3).await.unwrap());
        drop((two, three));
        assert_empty(&admission);
    }

    #[tokio::test(start_paused = true)]
    async fn clients_are_bounded_by_user() {
        let limits = Limits { connections_per_user: 2, ..Limits::default() };
        let admission = Admission::new(limits);
        let admit = async |n, user| {
            let mut permit = admission.enter(address(n));
            permit.end_login();
            permit.admit_client(Some(user)).await.map(|()| permit)
        };
        let (one, two) = (admit(1, "a").await.unwrap(), admit(2, "a").await.unwrap());
        assert!(admit(3, "a").await.is_err(), "from another address, too");
        let other = admit(1, "b").await.unwrap();
        drop(one);
        let again = admit(3, "a").await.unwrap();
        drop((two, other, again));
        assert_empty(&admission);
    }

    #[tokio::test(start_paused = true)]
    async fn the_place_of_a_client_that_has_ended_goes_to_the_next_of_the_queue_that_may_have_it() {
        let limits = Limits { connections: 2, connections_per_address: 1, ..Limits::default() };
        let admission = Admission::new(limits);
        let permit = |n| admission.enter(address(n));
        let (mut one, mut two) = (permit(1), permit(2));
        one.admit_client(None).await.unwrap();
        two.admit_client(None).await.unwrap();
        let (mut of_two, mut three) = (permit(2), permit(3));
        let (second_of_two, third, ()) =
            tokio::join!(of_two.admit_client(None), three.admit_client(None), async {
                tokio::task::yield_now().await;
                // Its connection has ended, its last commit is still awaited.
                one.leave_place();
            });
        assert_eq!((second_of_two, third), (Err(Full), Ok(())));
        drop((one, two, of_two, three));
        assert_empty(&admission);
    }

    #[tokio::test]
    async fn a_place_that_was_given_to_a_client_that_is_gone_is_free_again() {
        let limits = Limits { connections: 1, connections_per_address: 1, ..Limits::default() };
        let admission = Admission::new(limits);
        let mut one = admission.enter(address(1));
        one.admit_client(None).await.unwrap();
        let mut gone = admission.enter(address(1));
        {
            let mut admitting = std::pin::pin!(gone.admit_client(None));
            assert!(poll_once(admitting.as_mut()).await.is_none());
            drop(one);
        }
        drop(gone);
        assert_empty(&admission);
    }

    /// Polls once.
    async fn poll_once<F: Future + Unpin>(mut future: F) -> Option<F::Output> {
        std::future::poll_fn(|cx| {
            std::task::Poll::Ready(match std::pin::Pin::new(&mut future).poll(cx) {
                std::task::Poll::Ready(output) => Some(output),
                std::task::Poll::Pending => None,
            })
        })
        .await
    }
}
