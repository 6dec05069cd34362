//! Edges to pulses: where the frame lies in a list of edges.

use std::ops::RangeInclusive;

use super::{
    Edge, FRAME_BITS, FRAME_PULSES, Fault, GAP_MAX_US, HOST_START_MIN_US, Level, NS_PER_US,
    RESPONSE_US, WAIT_HIGH_MAX_US,
};

/// The time between two edges.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pulse {
    /// Place in the list, from 0.
    pub index: usize,
    /// The level during the pulse.
    pub level: Level,
    /// Width in ns.
    pub width_ns: u64,
    /// The longest time in ns within this pulse in which the line was not polled.
    pub gap_ns: u32,
    /// By how many ns the width may be off: either edge is stamped in the middle of the time between two polls, that
    /// is of its gap at most.
    pub tolerance_ns: u64,
}

impl Pulse {
    fn is_within(&self, range_us: &RangeInclusive<u64>) -> bool {
        self.width_ns.saturating_add(self.tolerance_ns) >= range_us.start() * NS_PER_US
            && self.width_ns.saturating_sub(self.tolerance_ns) <= range_us.end() * NS_PER_US
    }

    pub(super) fn must_be_within(&self, range_us: &RangeInclusive<u64>) -> Result<(), Fault> {
        if self.is_within(range_us) {
            Ok(())
        } else {
            Err(Fault::Pulse {
                index: self.index,
                level: self.level,
                us: self.width_ns / NS_PER_US,
            })
        }
    }
}

/// The pulses of one frame, by their part in it. Widths are not checked yet, except those that the
/// anchor needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FramePulses {
    /// Low and high, or only the high if the edge before it was lost.
    pub response: Vec<Pulse>,
    /// Low and high of each bit, in the order sent.
    pub bits: Vec<[Pulse; 2]>,
    /// The low that ends the last high.
    pub closing: Pulse,
}

/// The pulses between the edges.
///
/// # Errors
/// [`Fault::Sequence`] if two neighbours have the same level or time runs backwards. The kernel
/// stamps an edge in the interrupt but reads its direction later, so a lost edge shows up so.
pub fn between(edges: &[Edge]) -> Result<Vec<Pulse>, Fault> {
    let mut pulses = Vec::with_capacity(edges.len());
    for (index, (opening, closing)) in edges.iter().zip(edges.iter().skip(1)).enumerate() {
        let width_ns = closing.at_ns.checked_sub(opening.at_ns);
        match width_ns {
            Some(width_ns) if closing.level != opening.level => {
                pulses.push(Pulse {
                    index,
                    level: opening.level,
                    width_ns,
                    gap_ns: closing.gap_ns,
                    tolerance_ns: u64::midpoint(
                        u64::from(opening.gap_ns),
                        u64::from(closing.gap_ns),
                    ),
                });
            }
            _ => return Err(Fault::Sequence { index: index + 1 }),
        }
    }
    Ok(pulses)
}

/// Finds the frame in an exchange by counting from its beginning.
///
/// Counting backwards ("the last 40 highs") would turn a lost bit or a late noise into a shifted
/// frame, and the checksum lets too many of those pass.
///
/// # Errors
/// [`Fault::StuckLow`], [`Fault::NoResponse`], [`Fault::Short`], [`Fault::Long`],
/// [`Fault::Sequence`], [`Fault::Gap`], and [`Fault::Pulse`] for the wait before the response.
pub fn lay_out(edges: &[Edge]) -> Result<FramePulses, Fault> {
    if edges.iter().all(|edge| edge.level == Level::Low) {
        return Err(Fault::StuckLow);
    }
    let all = between(edges)?;
    let (host_start, rest) = match all.as_slice() {
        [first, rest @ ..]
            if first.level == Level::Low && first.width_ns >= HOST_START_MIN_US * NS_PER_US =>
        {
            (true, rest)
        }
        pulses => (false, pulses),
    };
    let (wait, frame) = match rest {
        [] => return Err(Fault::NoResponse),
        // One pulse less than a frame: either the response's low is missing, or this is the wait
        // after the release and a pulse is missing further on. The width tells them apart unless
        // the wait is as long as a response; then the response is taken for the first bit, which
        // becomes a 1, and no plausible frame of either model begins with a 1.
        [high, ..]
            if high.level == Level::High && rest.len() == FRAME_PULSES - 1 && !host_start =>
        {
            if high.is_within(&RESPONSE_US) {
                return split(rest).ok_or_else(|| count_fault(&all, rest.len()));
            }
            return Err(count_fault(&all, rest.len()));
        }
        [high, frame @ ..] if high.level == Level::High => (Some(high), frame),
        frame => (None, frame),
    };
    if frame.len() != FRAME_PULSES {
        return Err(count_fault(&all, frame.len()));
    }
    if let Some(wait) = wait {
        wait.must_be_within(&(0..=WAIT_HIGH_MAX_US))?;
    }
    split(frame).ok_or_else(|| count_fault(&all, frame.len()))
}

/// The name for a wrong count. A long poll gap explains it better than the count does.
fn count_fault(all: &[Pulse], in_frame: usize) -> Fault {
    let gap_us = longest_gap_us(all);
    if gap_us > GAP_MAX_US {
        Fault::Gap { us: gap_us }
    } else if in_frame < FRAME_PULSES {
        Fault::Short { pulses: all.len() }
    } else {
        Fault::Long { pulses: all.len() }
    }
}

/// Rounded up, so that a gap just above a limit is above it.
pub(super) fn longest_gap_us<'a>(pulses: impl IntoIterator<Item = &'a Pulse>) -> u64 {
    let gap_ns = pulses.into_iter().map(|pulse| pulse.gap_ns).max().unwrap_or(0);
    u64::from(gap_ns).div_ceil(NS_PER_US)
}

fn split(frame: &[Pulse]) -> Option<FramePulses> {
    let (closing, frame) = frame.split_last()?;
    let (response, bits) = frame.split_at_checked(frame.len().checked_sub(2 * FRAME_BITS)?)?;
    let (bits, _) = bits.as_chunks::<2>();
    Some(FramePulses { response: response.to_vec(), bits: bits.to_vec(), closing: *closing })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dht::train::edges_from_widths;

    const US: u64 = NS_PER_US;

    /// A frame of 40 zeros with its response and closing low.
    fn zeros() -> Vec<u64> {
        let mut widths = vec![80 * US, 80 * US];
        widths.extend([50 * US, 26 * US].repeat(FRAME_BITS));
        widths.push(50 * US);
        widths
    }

    fn before(first: Level, preamble: &[u64], widths: &[u64]) -> Vec<Edge> {
        edges_from_widths(first, &[preamble, widths].concat())
    }

    fn name(edges: &[Edge]) -> &'static str {
        lay_out(edges).map_or_else(Fault::name, |_| "good")
    }

    #[test]
    fn each_allowed_beginning_is_counted_and_no_other() {
        let frame = zeros();
        let (low, high) = (Level::Low, Level::High);
        let table: [(&str, Vec<Edge>, &str); 15] = [
            ("from the response", before(low, &[], &frame), "good"),
            ("from the release", before(high, &[30 * US], &frame), "good"),
            ("longest wait", before(high, &[250 * US], &frame), "good"),
            ("wait too long", before(high, &[251 * US], &frame), "pulse"),
            ("with the start signal", before(low, &[20_000 * US, 30 * US], &frame), "good"),
            ("start signal too short", before(low, &[499 * US, 30 * US], &frame), "long"),
            ("from the response's high", before(high, &[], &frame[1..]), "good"),
            ("from the first bit", before(low, &[], &frame[2..]), "short"),
            (
                "start signal, then no response low",
                before(low, &[20_000 * US], &frame[1..]),
                "short",
            ),
            ("not a response's high", before(high, &[59 * US], &frame[2..]), "short"),
            ("no closing edge", before(low, &[], &frame[..82]), "short"),
            ("no closing edge after a release", before(high, &[30 * US], &frame[..82]), "short"),
            (
                "no closing edge after a start",
                before(low, &[900 * US, 30 * US], &frame[..82]),
                "short",
            ),
            (
                "something after the end",
                before(low, &[], &[&frame[..], &[9 * US]].concat()),
                "long",
            ),
            (
                "a pulse after the end",
                before(low, &[], &[&frame[..], &[9 * US, 9 * US]].concat()),
                "long",
            ),
        ];
        for (what, edges, expected) in table {
            assert_eq!(name(&edges), expected, "{what}");
        }
    }

    #[test]
    fn a_line_without_a_sensor_is_told_from_one_held_low() {
        let edge = |level, at_ns| Edge { at_ns, level, gap_ns: 0 };
        assert_eq!(name(&[]), "stuck-low");
        assert_eq!(name(&[edge(Level::Low, 0)]), "stuck-low");
        assert_eq!(name(&[edge(Level::High, 0)]), "no-response");
        assert_eq!(name(&edges_from_widths(Level::Low, &[20_000 * US])), "no-response");
        assert_eq!(name(&edges_from_widths(Level::Low, &[20 * US])), "short");
        assert_eq!(name(&edges_from_widths(Level::High, &[30 * US])), "short");
    }

    #[test]
    fn a_lost_edge_breaks_the_alternation() {
        let mut edges = edges_from_widths(Level::Low, &zeros());
        edges.remove(30);
        assert_eq!(lay_out(&edges), Err(Fault::Sequence { index: 30 }));
        let mut edges = edges_from_widths(Level::Low, &zeros());
        edges[7].at_ns = edges[6].at_ns - 1;
        assert_eq!(lay_out(&edges), Err(Fault::Sequence { index: 7 }));
    }
}
