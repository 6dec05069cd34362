//! DHT frames: any train of pulses is a named fault or a frame whose checksum is right and whose values are plausible.
//! A recording (JSON) is taken as such; other bytes are a model, a first level, and widths of two bytes in 10 ns.

#![no_main]

use humidor::dht::{self, Edge, Level, Model, frame, recording, train};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(text) = std::str::from_utf8(bytes) {
        let _ = recording::parse(text);
    }
    let [first, widths @ ..] = bytes else { return };
    let model = if first & 1 == 0 { Model::Dht22 } else { Model::Dht11 };
    let level = if first & 2 == 0 { Level::Low } else { Level::High };
    let widths = widths.chunks_exact(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]]));
    let mut edges: Vec<Edge> = if first & 4 == 0 {
        let widths: Vec<u64> = widths.map(|width| u64::from(width) * 10).collect();
        train::edges_from_widths(level, &widths)
    } else {
        // Stamps that jump, and levels that repeat.
        let at = |width: u16| u64::from(width).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        widths.map(|w| Edge { at_ns: at(w), level: if w & 1 == 0 { Level::Low } else { Level::High }, gap_ns: 0 }).collect()
    };
    if first & 8 != 0 {
        edges.iter_mut().step_by(3).for_each(|edge| edge.gap_ns = u32::MAX);
    }
    if let Ok(decoded) = dht::decode(&edges, model) {
        let [a, b, c, d, sum] = decoded.bytes;
        assert_eq!(frame::checksum([a, b, c, d]), sum);
        assert!(model.is_plausible(decoded.measurement), "{decoded:?}");
    }
});
