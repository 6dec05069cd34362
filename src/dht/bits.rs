//! Pulses to bits: the 40 bits of a frame, and the reasons to doubt one.

use super::pulses::{FramePulses, Pulse, longest_gap_us};
use super::{
    AMBIGUOUS_HIGH_US, BIT_HIGH_US, BIT_LOW_US, CLOSING_LOW_US, Fault, GAP_MAX_US, GAP_WEAK_US,
    NS_PER_US, ONE_ABOVE_US, ONE_PERIOD_US, RESPONSE_US, Weakness,
};

/// The 40 bits, the first sent in bit 39, and the first reason to doubt them.
///
/// # Errors
/// [`Fault::Gap`] and [`Fault::Pulse`].
pub fn read(frame: &FramePulses) -> Result<(u64, Option<Weakness>), Fault> {
    let inside = frame.response.iter().chain(frame.bits.as_flattened()).chain([&frame.closing]);
    let gap_us = longest_gap_us(inside);
    if gap_us > GAP_MAX_US {
        return Err(Fault::Gap { us: gap_us });
    }
    for pulse in &frame.response {
        pulse.must_be_within(&RESPONSE_US)?;
    }
    let mut bits = 0_u64;
    let mut weak = (gap_us > GAP_WEAK_US).then_some(Weakness::PollGap { us: gap_us });
    for (bit, [low, high]) in frame.bits.iter().enumerate() {
        low.must_be_within(&BIT_LOW_US)?;
        high.must_be_within(&BIT_HIGH_US)?;
        let (one, doubt) = bit_of(bit, low, high);
        bits = bits << 1 | u64::from(one);
        weak = weak.or(doubt);
    }
    frame.closing.must_be_within(&CLOSING_LOW_US)?;
    Ok((bits, weak))
}

/// The bit in a pair, and the reason to doubt it. Where the line was not polled for a while, the width is off by up to
/// its tolerance, mostly because the rise was seen late; the period from falling to falling edge then
/// decides, if its own tolerance leaves no question.
fn bit_of(bit: usize, low: &Pulse, high: &Pulse) -> (bool, Option<Weakness>) {
    let (zero_side, one_side) = AMBIGUOUS_HIGH_US;
    let (width_ns, threshold_ns) = (high.width_ns, ONE_PERIOD_US * NS_PER_US);
    let period_ns = low.width_ns.saturating_add(width_ns);
    // Half of the gaps of the two falling edges: the rise between them has no part in it.
    let tolerance_ns =
        low.tolerance_ns.saturating_add(high.tolerance_ns).saturating_sub(u64::from(low.gap_ns));
    let surely_one = period_ns.saturating_sub(tolerance_ns) >= threshold_ns;
    let surely_zero = period_ns.saturating_add(tolerance_ns) < threshold_ns;
    let one = width_ns > ONE_ABOVE_US * NS_PER_US;
    if zero_side * NS_PER_US < width_ns && width_ns < one_side * NS_PER_US {
        let reaches_one = width_ns.saturating_add(high.tolerance_ns) >= one_side * NS_PER_US;
        let reaches_zero = width_ns.saturating_sub(high.tolerance_ns) <= zero_side * NS_PER_US;
        return match (surely_one && reaches_one, surely_zero && reaches_zero) {
            (true, _) => (true, None),
            (_, true) => (false, None),
            _ => (one, Some(Weakness::AmbiguousHigh { bit, us: width_ns / NS_PER_US })),
        };
    }
    let disagrees = if one { surely_zero } else { surely_one };
    let doubt = disagrees.then_some(Weakness::PeriodDisagrees { bit, us: period_ns / NS_PER_US });
    (one, doubt)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dht::pulses::lay_out;
    use crate::dht::train::edges_from_widths;
    use crate::dht::{Edge, FRAME_BITS, Level};

    const US: u64 = NS_PER_US;

    /// A frame of 40 zeros with its response and closing low.
    fn zeros() -> Vec<u64> {
        let mut widths = vec![80 * US, 80 * US];
        widths.extend([50 * US, 26 * US].repeat(FRAME_BITS));
        widths.push(50 * US);
        widths
    }

    fn after_a_release() -> Vec<Edge> {
        edges_from_widths(Level::High, &[&[30 * US], &zeros()[..]].concat())
    }

    fn name(edges: &[Edge]) -> &'static str {
        match lay_out(edges).and_then(|frame| read(&frame)) {
            Ok((_, None)) => "good",
            Ok((_, Some(weak))) => weak.name(),
            Err(fault) => fault.name(),
        }
    }

    #[test]
    fn each_part_of_the_frame_has_its_own_limits() {
        let parts =
            [(0, 60, 100), (1, 60, 100), (2, 35, 80), (3, 15, 90), (81, 15, 90), (82, 20, 120)];
        for (index, min, max) in parts {
            for (width_ns, allowed) in
                [(min * US, true), (max * US, true), (min * US - 1, false), (max * US + 1, false)]
            {
                let mut widths = zeros();
                widths[index] = width_ns;
                let edges = edges_from_widths(Level::Low, &widths);
                assert_eq!(name(&edges) != "pulse", allowed, "pulse {index}, {width_ns} ns");
            }
        }
    }

    #[test]
    fn a_high_near_the_threshold_is_weak() {
        for (low, high, expected) in [
            (50, 38, "good"),
            (50, 39, "ambiguous-high"),
            (50, 59, "ambiguous-high"),
            (50, 60, "good"),
            (37, 60, "period-disagrees"),
            (38, 60, "good"),
            (72, 26, "period-disagrees"),
            (71, 26, "good"),
        ] {
            let mut widths = zeros();
            (widths[40], widths[41]) = (low * US, high * US);
            assert_eq!(name(&edges_from_widths(Level::Low, &widths)), expected, "{low}/{high}");
        }
    }

    #[test]
    fn a_high_above_49_us_is_a_one() {
        for (ns, one) in [(49_000, 0), (49_001, 1)] {
            let mut widths = zeros();
            widths[81] = ns;
            let frame = lay_out(&edges_from_widths(Level::Low, &widths)).unwrap();
            assert_eq!(read(&frame).unwrap().0, one, "{ns} ns");
        }
    }

    #[test]
    fn a_rise_that_was_seen_late_is_made_up_for_by_the_period() {
        // Looks of 7 µs, and one of 18: what a quarter-speed board does.
        for (high, late, gap, expected) in [
            (26, 13, 18, ("good", 0)),
            (26, 13, 0, ("pulse", 0)),
            (70, 11, 18, ("good", 1)),
            (70, 11, 0, ("ambiguous-high", 1)),
            // Too far off for its gap: something else is wrong.
            (70, 20, 10, ("ambiguous-high", 1)),
        ] {
            let mut widths = zeros();
            (widths[80], widths[81]) = ((50 + late) * US, (high - late) * US);
            let mut edges = edges_from_widths(Level::Low, &widths);
            edges[81].gap_ns = gap * 1_000;
            edges[82].gap_ns = gap.min(7) * 1_000;
            let bits = lay_out(&edges).and_then(|frame| read(&frame));
            let last = bits.map_or(expected.1, |(bits, _)| bits & 1);
            assert_eq!((name(&edges), last), expected, "{high} µs, {late} late, gap {gap}");
        }
    }

    #[test]
    fn a_fall_that_may_have_been_late_is_not_made_up_for() {
        // A 0 whose fall was seen 16 µs late looks like 42 µs; its period is too long to be sure.
        let mut widths = zeros();
        widths[81] = 42 * US;
        let mut edges = edges_from_widths(Level::Low, &widths);
        edges[82].gap_ns = 20_000;
        assert_eq!(name(&edges), "ambiguous-high");
    }

    #[test]
    fn a_gap_counts_only_where_it_can_hide_a_pulse() {
        let mut edges = after_a_release();
        edges[1].gap_ns = 200_000; // up to the response: nothing to hide before it
        assert_eq!(name(&edges), "good");
        for (gap_ns, expected) in
            [(30_000, "good"), (30_001, "poll-gap"), (45_000, "poll-gap"), (45_001, "gap")]
        {
            for index in [2, 40, 84] {
                let mut edges = after_a_release();
                edges[index].gap_ns = gap_ns;
                assert_eq!(name(&edges), expected, "{gap_ns} ns before edge {index}");
            }
        }
    }
}
