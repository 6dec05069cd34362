//! Edge trains from widths and from frames: what a sensor that keeps the datasheet's times sends.
//!
//! The kernel's driver gives values without edges, and a simulated sensor has none of its own: both become such a train,
//! so that they pass the same decoder as a sensor on a wire.

use super::{Edge, Level, NS_PER_US};

/// From the release to the response in µs (both datasheets: 20 to 40 µs).
pub const WAIT_US: u64 = 30;
/// The response's low, and its high, in µs (both datasheets).
pub const RESPONSE_US: u64 = 80;
/// The low before each bit, and the closing low, in µs (both datasheets).
pub const LOW_US: u64 = 50;
/// The high of a 0 in µs (DHT22 datasheet; 26 to 28 µs for the DHT11).
pub const ZERO_US: u64 = 26;
/// The high of a 1 in µs (both datasheets).
pub const ONE_US: u64 = 70;

/// The train of a frame with nominal widths, from the rising edge of the release at time 0.
#[must_use]
pub fn nominal(bytes: [u8; 5]) -> Vec<Edge> {
    let mut widths_us = vec![WAIT_US, RESPONSE_US, RESPONSE_US];
    for byte in bytes {
        for bit in (0..u8::BITS).rev() {
            let one = byte >> bit & 1 == 1;
            widths_us.extend([LOW_US, if one { ONE_US } else { ZERO_US }]);
        }
    }
    widths_us.push(LOW_US);
    let nanoseconds: Vec<u64> = widths_us.into_iter().map(|us| us * NS_PER_US).collect();
    edges_from_widths(Level::High, &nanoseconds)
}

/// The edges of a train of pulses with the given widths in ns, the first of them at `first` level.
/// The first edge is at 0, opens the first width, and the last edge closes the last width: `n`
/// widths give `n + 1` edges, none give none. The edges carry no poll gap.
#[must_use]
pub fn edges_from_widths(first: Level, widths_ns: &[u64]) -> Vec<Edge> {
    if widths_ns.is_empty() {
        return Vec::new();
    }
    let mut level = first;
    let mut at_ns = 0_u64;
    let mut edges = Vec::with_capacity(widths_ns.len() + 1);
    edges.push(Edge { at_ns, level, gap_ns: 0 });
    for width_ns in widths_ns {
        level = level.inverse();
        at_ns = at_ns.saturating_add(*width_ns);
        edges.push(Edge { at_ns, level, gap_ns: 0 });
    }
    edges
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dht::{FRAME_PULSES, Model, decode};

    const BYTES: [u8; 5] = [0x02, 0x3b, 0x00, 0xd7, 0x14];

    #[test]
    fn a_nominal_train_says_its_bytes() {
        let edges = nominal(BYTES);
        assert_eq!(edges.len(), 1 + FRAME_PULSES + 1);
        let decoded = decode(&edges, Model::Dht22).unwrap();
        assert_eq!((decoded.bytes, decoded.weak), (BYTES, None));
    }
}
