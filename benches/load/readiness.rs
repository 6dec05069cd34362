//! Which sockets can be read or written.

use std::num::NonZeroU64;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::thread::set_current_timer_slack;

/// Most sockets that one call reports.
const EVENTS: usize = 1024;

pub struct Readiness {
    epoll: OwnedFd,
    events: Vec<Event>,
}

impl Readiness {
    pub fn new() -> Self {
        // Else the kernel may end a wait 50 µs late, to join it with another.
        set_current_timer_slack(NonZeroU64::new(1)).expect("the timer slack can be set");
        let epoll = epoll::create(CreateFlags::CLOEXEC).expect("epoll is there");
        Self { epoll, events: Vec::with_capacity(EVENTS) }
    }

    /// Reports `socket` as `index` whenever it becomes readable or writable.
    pub fn add(&self, socket: impl AsFd, index: usize) {
        let flags = EventFlags::IN | EventFlags::OUT | EventFlags::ET;
        epoll::add(&self.epoll, socket, EventData::new_u64(index as u64), flags)
            .expect("a socket can be watched");
    }

    /// Waits at most `limit` for sockets and returns their indices.
    pub fn wait(&mut self, limit: Duration) -> impl Iterator<Item = usize> {
        let mut limit = Timespec::try_from(limit).expect("a short time");
        // epoll_wait(2) counts in milliseconds.
        if limit.tv_nsec % 1_000_000 != 0 {
            let _ = poll(&mut [PollFd::new(&self.epoll, PollFlags::IN)], Some(&limit));
            limit = Timespec { tv_sec: 0, tv_nsec: 0 };
        }
        self.events.clear();
        // An interrupted wait reports nothing, which its caller takes for a time-out.
        let _ = epoll::wait(&self.epoll, spare_capacity(&mut self.events), Some(&limit));
        self.events.iter().map(|event| {
            let data = event.data;
            usize::try_from(data.u64()).expect("an index")
        })
    }
}
