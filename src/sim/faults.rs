//! The ways in which a sensor's edge train or its frame gets damaged, each a function of the good one.
//!
//! Places in a train are edge or pulse indices from 0; pulse `n` lies between edges `n` and
//! `n + 1`. A place beyond the end changes nothing.

use fastrand::Rng;

use crate::dht::{Edge, NS_PER_US};

/// The train with every width changed by up to `jitter_us` µs either way, uniformly. No width gets
/// below 1 µs. Levels and poll gaps stay.
#[must_use]
pub fn jitter(edges: &[Edge], jitter_us: u32, rng: &mut Rng) -> Vec<Edge> {
    let limit_ns = i64::from(jitter_us) * 1_000;
    let mut previous = None;
    edges
        .iter()
        .map(|edge| {
            let at_ns = match previous {
                None => edge.at_ns,
                Some((before, now)) => {
                    let width_ns = edge
                        .at_ns
                        .saturating_sub(before)
                        .saturating_add_signed(rng.i64(-limit_ns..=limit_ns))
                        .max(NS_PER_US);
                    u64::saturating_add(now, width_ns)
                }
            };
            previous = Some((edge.at_ns, at_ns));
            Edge { at_ns, ..*edge }
        })
        .collect()
}

/// The train without one edge: its neighbours now have the same level.
#[must_use]
pub fn lose_edge(mut edges: Vec<Edge>, index: usize) -> Vec<Edge> {
    if index < edges.len() {
        edges.remove(index);
    }
    edges
}

/// The train without the two edges of a pulse, which so becomes a part of its neighbours.
#[must_use]
pub fn lose_pulse(edges: Vec<Edge>, index: usize) -> Vec<Edge> {
    lose_edge(lose_edge(edges, index.saturating_add(1)), index)
}

/// The train with a short pulse of the opposite level inside pulse `index`, beginning `offset_ns`
/// after it. It does not outlast the pulse it is in.
#[must_use]
pub fn glitch(mut edges: Vec<Edge>, index: usize, offset_ns: u64, width_ns: u64) -> Vec<Edge> {
    let (Some(opening), Some(closing)) =
        (edges.get(index).copied(), edges.get(index.saturating_add(1)).copied())
    else {
        return edges;
    };
    let from_ns = opening.at_ns.saturating_add(offset_ns).min(closing.at_ns);
    let to_ns = from_ns.saturating_add(width_ns).min(closing.at_ns);
    edges.splice(
        index + 1..=index,
        [
            Edge { at_ns: from_ns, level: opening.level.inverse(), gap_ns: 0 },
            Edge { at_ns: to_ns, level: opening.level, gap_ns: 0 },
        ],
    );
    edges
}

/// The frame with one bit inverted: bit 0 is the first sent, 39 the last.
#[must_use]
pub fn flip_bit(mut bytes: [u8; 5], bit: usize) -> [u8; 5] {
    if let Some(byte) = bytes.get_mut(bit / 8) {
        *byte ^= 0x80 >> (bit % 8);
    }
    bytes
}

/// The first `count` edges of the train.
#[must_use]
pub fn cut(mut edges: Vec<Edge>, count: usize) -> Vec<Edge> {
    edges.truncate(count);
    edges
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dht::train::nominal;

    const BYTES: [u8; 5] = [0x02, 0x3b, 0x00, 0xd7, 0x14];

    #[test]
    fn jitter_changes_widths_within_its_bounds_and_by_its_seed() {
        let edges = nominal(BYTES);
        let shaken = jitter(&edges, 5, &mut Rng::with_seed(1));
        assert_eq!(shaken, jitter(&edges, 5, &mut Rng::with_seed(1)));
        assert_ne!(shaken, edges);
        for (was, is) in edges.windows(2).zip(shaken.windows(2)) {
            let width = |pair: &[Edge]| pair[1].at_ns - pair[0].at_ns;
            assert!(width(was).abs_diff(width(is)) <= 5 * NS_PER_US);
        }
    }

    #[test]
    fn damage_beyond_the_end_is_no_damage() {
        let edges = nominal(BYTES);
        assert_eq!(lose_edge(edges.clone(), 999), edges);
        assert_eq!(lose_pulse(edges.clone(), 999), edges);
        assert_eq!(glitch(edges.clone(), 999, 0, 1), edges);
        assert_eq!(cut(edges.clone(), 999), edges);
        assert_eq!(flip_bit(BYTES, 40), BYTES);
    }

    #[test]
    fn a_glitch_splits_one_pulse_into_three() {
        let edges = glitch(nominal(BYTES), 3, 10_000, 2_000);
        let widths: Vec<u64> = edges[3..7].windows(2).map(|p| p[1].at_ns - p[0].at_ns).collect();
        assert_eq!(widths, [10_000, 2_000, 38_000]);
    }

    #[test]
    fn a_flipped_bit_is_counted_from_the_first_sent() {
        assert_eq!(flip_bit([0; 5], 0), [0x80, 0, 0, 0, 0]);
        assert_eq!(flip_bit([0; 5], 39), [0, 0, 0, 0, 1]);
    }
}
