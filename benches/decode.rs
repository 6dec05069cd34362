//! What a frame costs to decode, and what it costs to refuse one: `cargo bench --bench decode`.
//!
//! Prints one line of JSON a figure. A board reads one frame every two seconds, so any figure below a
//! millisecond is small beside the 5 ms that the sensor takes to send it.

use std::hint::black_box;
use std::time::Instant;

use fastrand::Rng;
use humidor::dht::{Edge, Model, decode, train};
use humidor::sim::faults;

/// Frames decoded for one sample, and samples of which the median counts.
const FRAMES: u32 = 20_000;
const SAMPLES: usize = 11;
/// 65.2 % and -10.1 °C as a DHT22 sends them.
const FRAME: [u8; 5] = [0x02, 0x8c, 0x80, 0x65, 0x73];

/// Median ns for one call of `decode` on `edges`.
fn ns_per_frame(edges: &[Edge]) -> f64 {
    let mut samples: Vec<f64> = (0..SAMPLES)
        .map(|_| {
            let start = Instant::now();
            for _ in 0..FRAMES {
                let _ = black_box(decode(black_box(edges), Model::Dht22));
            }
            start.elapsed().as_secs_f64() * 1e9 / f64::from(FRAMES)
        })
        .collect();
    samples.sort_by(f64::total_cmp);
    samples[SAMPLES / 2]
}

fn main() {
    let good = train::nominal(FRAME);
    let jittered = faults::jitter(&good, 8, &mut Rng::with_seed(1));
    let cases = [
        ("clean", good.clone(), true),
        ("jittered by 8 µs", jittered, true),
        ("one pulse lost", faults::lose_pulse(good.clone(), 30), false),
        ("wrong checksum", train::nominal(faults::flip_bit(FRAME, 3)), false),
    ];
    for (case, edges, decodes) in cases {
        assert_eq!(decode(&edges, Model::Dht22).is_ok(), decodes, "{case}");
        let figure = serde_json::json!({
            "bench": "decode", "case": case, "edges": edges.len(),
            "ns_per_frame": ns_per_frame(&edges).round(),
        });
        println!("{figure}");
    }
}
