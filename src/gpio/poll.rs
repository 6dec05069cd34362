//! Edges from reading a line's level again and again, each with the longest time between two reads before it.

use std::time::{Duration, Instant};

use crate::dht::{Edge, Level};

/// Most edges recorded of one exchange: six frames. A line that oscillates is noise, not a sensor.
const EDGES_MAX: usize = 512;
/// The exchange is over when the sensor has answered and the line then does not change for this long: the longest
/// pulse of a frame is 100 µs.
const QUIET: Duration = Duration::from_millis(1);

/// A monotonic clock in ns.
#[derive(Debug, Clone, Copy)]
pub struct Clock(Instant);

impl Clock {
    /// Starts at 0.
    #[must_use]
    pub fn start() -> Self {
        Self(Instant::now())
    }

    /// Nanoseconds since the start. Without 128-bit arithmetic, which a 32-bit processor has to emulate
    /// while a pulse goes by.
    #[must_use]
    pub fn now_ns(&self) -> u64 {
        let elapsed = self.0.elapsed();
        elapsed.as_secs() * 1_000_000_000 + u64::from(elapsed.subsec_nanos())
    }
}

/// Room for the edges of an exchange, in memory that was written to: allocating or faulting pages in
/// after the release has cost 30 µs, and so the first edge.
#[must_use]
pub fn room() -> Vec<Edge> {
    let mut room = vec![Edge { at_ns: 1, level: Level::Low, gap_ns: 0 }; EDGES_MAX];
    room.clear();
    room
}

/// Polls a line until it is quiet, or for `listen`, beginning right after the release: the line was low until
/// then, so the first high is an edge like any other. `edges` is empty [`room`].
///
/// `now` is a monotonic clock in ns. An edge happened at some time between the poll that did not see it
/// and the one that did, and is stamped half way: so it is off by half of that time at most. (Stamped at
/// the end it would be off by all of it, and a quarter-speed board lost twice as many readings.)
///
/// # Errors
/// The first of `read_level`.
pub fn record<E>(
    mut edges: Vec<Edge>,
    listen: Duration,
    now: impl Fn() -> u64,
    mut read_level: impl FnMut() -> Result<Level, E>,
) -> Result<Vec<Edge>, E> {
    let ns = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
    let (listen, quiet) = (ns(listen), ns(QUIET));
    let started = now();
    let (mut level, mut polled, mut gap, mut changed) = (Level::Low, started, 0_u64, started);
    loop {
        let seen = read_level()?;
        let at_ns = now();
        let unseen = at_ns.saturating_sub(polled);
        gap = gap.max(unseen);
        if seen != level {
            level = seen;
            changed = at_ns;
            let gap_ns = u32::try_from(std::mem::take(&mut gap)).unwrap_or(u32::MAX);
            let half_way = polled.saturating_sub(started) + unseen / 2;
            edges.push(Edge { at_ns: half_way, level, gap_ns });
        }
        polled = at_ns;
        // The first edge is the release itself; the sensor's answer begins with the second.
        let answered = edges.len() > 1 && level == Level::High;
        if at_ns.saturating_sub(started) >= listen
            || edges.len() >= EDGES_MAX
            || (answered && at_ns.saturating_sub(changed) >= quiet)
        {
            return Ok(edges);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::convert::Infallible;

    use super::*;
    use crate::dht::{Fault, Model, decode, train};

    const BYTES: [u8; 5] = [0x02, 0x3b, 0x00, 0xd7, 0x14];
    const LISTEN: Duration = Duration::from_millis(12);

    /// Plays `train` to polls that take `poll_ns` each, one of them `pause_ns` longer.
    fn played(train: &[Edge], poll_ns: u64, pause: Option<(u64, u64)>) -> (Vec<Edge>, u64) {
        let clock = Cell::new(0_u64);
        let mut pause = pause;
        let edges = record(
            room(),
            LISTEN,
            || clock.get(),
            || {
                clock.set(clock.get() + poll_ns);
                if let Some((at_ns, pause_ns)) = pause
                    && clock.get() >= at_ns
                {
                    clock.set(clock.get() + pause_ns);
                    pause = None;
                }
                let now = clock.get();
                let level = train.iter().take_while(|edge| edge.at_ns <= now).last();
                Ok::<_, Infallible>(level.map_or(Level::Low, |edge| edge.level))
            },
        );
        let Ok(edges) = edges;
        (edges, clock.get())
    }

    #[test]
    fn a_frame_is_heard_at_any_usual_pace_and_not_waited_out() {
        for poll_ns in [500, 2_000, 5_000, 8_000] {
            let (edges, took_ns) = played(&train::nominal(BYTES), poll_ns, None);
            let decoded = decode(&edges, Model::Dht22).unwrap();
            assert_eq!((decoded.bytes, decoded.weak), (BYTES, None), "{poll_ns}");
            assert!(took_ns < 6_000_000, "{took_ns}");
        }
    }

    #[test]
    fn an_absence_leaves_its_length_in_the_next_edge() {
        // In the middle of the frame, one absence of 30 µs, and one that swallows a pulse.
        let weak = played(&train::nominal(BYTES), 2_000, Some((2_000_000, 32_000))).0;
        assert!(decode(&weak, Model::Dht22).unwrap().weak.is_some());
        let lost = played(&train::nominal(BYTES), 2_000, Some((2_000_000, 90_000))).0;
        assert!(matches!(decode(&lost, Model::Dht22), Err(Fault::Gap { us: 90.. })));
    }

    #[test]
    fn silence_and_a_short_circuit_are_told_apart() {
        let silent = [Edge { at_ns: 0, level: Level::High, gap_ns: 0 }];
        let (edges, took_ns) = played(&silent, 2_000, None);
        assert_eq!(decode(&edges, Model::Dht22), Err(Fault::NoResponse));
        assert!(took_ns >= 12_000_000, "a slow sensor gets its time");
        assert_eq!(decode(&played(&[], 2_000, None).0, Model::Dht22), Err(Fault::StuckLow));
    }

    #[test]
    fn a_line_that_oscillates_is_not_recorded_for_ever() {
        let clock = Cell::new(0_u64);
        let edges = record(
            room(),
            LISTEN,
            || clock.get(),
            || {
                clock.set(clock.get() + 1_000);
                let high = clock.get() / 1_000 % 2 == 1;
                Ok::<_, Infallible>(if high { Level::High } else { Level::Low })
            },
        );
        let Ok(edges) = edges;
        assert_eq!(edges.len(), EDGES_MAX);
    }
}
