//! The laws of the decoder: what was sent comes out, or a fault does, but never something else.

use fastrand::Rng;
use humidor::dht::train::{self, edges_from_widths};
use humidor::dht::{Edge, Fault, Level, Model, decode, frame, recording};
use humidor::reading::Measurement;
use humidor::sim::faults;
use proptest::prelude::*;

/// A frame on its way: what was sent, and the edges that arrived.
#[derive(Debug, Clone)]
struct Sent {
    model: Model,
    measurement: Measurement,
    bytes: [u8; 5],
    edges: Vec<Edge>,
}

fn models() -> impl Strategy<Value = Model> {
    prop_oneof![Just(Model::Dht11), Just(Model::Dht22)]
}

/// A measurement the model can send. Every other one is a whole number, as from units that always
/// send 0 as tenths.
fn measurements(model: Model) -> impl Strategy<Value = Measurement> {
    (model.temperature_range_dc(), model.humidity_range_dp(), any::<bool>()).prop_map(
        |(temperature_dc, humidity_dp, whole)| {
            let unit = if whole { 10 } else { 1 };
            Measurement {
                temperature_dc: temperature_dc / unit * unit,
                humidity_dp: humidity_dp / unit * unit,
            }
        },
    )
}

/// The beginnings that a list may have: with the host's start signal, from the release on (with
/// any wait), from the response on, from the response's high on.
fn begin(edges: &[Edge], beginning: u8, wait_us: u64) -> Vec<Edge> {
    let (release, response) = (edges[0], edges[1].at_ns);
    let shift = wait_us * 1_000;
    let waited = edges[1..].iter().map(|e| Edge { at_ns: e.at_ns - response + shift, ..*e });
    let mut list = vec![release];
    list.extend(waited);
    match beginning {
        0 => {
            let start_ns = 20_000_000;
            let mut all = vec![Edge { at_ns: 0, level: Level::Low, gap_ns: 0 }];
            all.extend(list.iter().map(|e| Edge { at_ns: e.at_ns + start_ns, ..*e }));
            all
        }
        1 => list,
        2 => list.split_off(1),
        _ => list.split_off(2),
    }
}

/// A frame as a sensor sends it, with each beginning and with widths up to 10 µs off.
fn sent() -> impl Strategy<Value = Sent> {
    let parts = models().prop_flat_map(|model| (Just(model), measurements(model)));
    let all_zero = "all zero is not sent";
    (parts, any::<u64>(), 0_u8..4, 1_u64..=250).prop_filter_map(
        all_zero,
        |((model, measurement), seed, beginning, wait_us)| {
            let bytes = frame::encode(measurement, model)?;
            let edges = faults::jitter(&train::nominal(bytes), 10, &mut Rng::with_seed(seed));
            let edges = begin(&edges, beginning, wait_us);
            Some(Sent { model, measurement, bytes, edges })
        },
    )
}

/// The law for damage of any kind.
fn nothing_else(sent: &Sent, edges: &[Edge]) -> Result<(), TestCaseError> {
    match decode(edges, sent.model) {
        Ok(decoded) => prop_assert_eq!(decoded.measurement, sent.measurement),
        Err(fault) => prop_assert!(Fault::NAMES.contains(&fault.name())),
    }
    Ok(())
}

/// The train with the pulses `from..to` repeated `times` times (0 removes them), in step.
fn repeat(edges: &[Edge], from: usize, to: usize, times: usize) -> Vec<Edge> {
    let widths: Vec<u64> = edges.windows(2).map(|pair| pair[1].at_ns - pair[0].at_ns).collect();
    let widths = [&widths[..from], &widths[from..to].repeat(times), &widths[to..]].concat();
    edges_from_widths(edges[0].level, &widths)
}

fn edge() -> impl Strategy<Value = Edge> {
    let at_ns = prop_oneof![4 => 0_u64..6_000_000, 1 => any::<u64>()];
    let gap_ns = prop_oneof![4 => Just(0_u32), 1 => any::<u32>()];
    (at_ns, any::<bool>(), gap_ns).prop_map(|(at_ns, low, gap_ns)| Edge {
        at_ns,
        level: if low { Level::Low } else { Level::High },
        gap_ns,
    })
}

/// The indices are of any size; what they hit is their remainder.
fn places() -> impl Strategy<Value = usize> {
    0_usize..100_000
}

#[test]
fn every_measurement_a_model_can_send_comes_back() {
    for model in Model::ALL {
        for temperature_dc in model.temperature_range_dc() {
            for humidity_dp in model.humidity_range_dp() {
                let sent = Measurement { temperature_dc, humidity_dp };
                let Some(bytes) = frame::encode(sent, model) else {
                    assert_eq!((temperature_dc, humidity_dp), (0, 0));
                    continue;
                };
                assert_eq!(frame::measurement_from_bytes(bytes, model), Ok(sent));
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn jitter_up_to_10_us_changes_nothing(sent in sent()) {
        let decoded = decode(&sent.edges, sent.model).unwrap();
        prop_assert_eq!(decoded.measurement, sent.measurement);
        prop_assert_eq!(decoded.bytes, sent.bytes);
        prop_assert_eq!(decoded.weak, None);
    }

    #[test]
    fn a_flipped_bit_is_refused(sent in sent(), wait_us in 1_u64..=250) {
        for bit in 0..40 {
            let bytes = faults::flip_bit(sent.bytes, bit);
            prop_assert!(frame::measurement_from_bytes(bytes, sent.model).is_err());
            for beginning in 0..4 {
                let edges = begin(&train::nominal(bytes), beginning, wait_us);
                prop_assert!(decode(&edges, sent.model).is_err());
            }
        }
    }

    #[test]
    fn a_lost_edge_never_makes_another_measurement(sent in sent()) {
        for index in 0..sent.edges.len() {
            nothing_else(&sent, &faults::lose_edge(sent.edges.clone(), index))?;
        }
    }

    #[test]
    fn a_lost_pulse_never_makes_another_measurement(sent in sent()) {
        for index in 0..sent.edges.len() {
            nothing_else(&sent, &faults::lose_pulse(sent.edges.clone(), index))?;
        }
    }

    #[test]
    fn an_extra_edge_never_makes_another_measurement(sent in sent(), extra in edge()) {
        for index in 0..=sent.edges.len() {
            for in_order in [false, true] {
                let mut edges = sent.edges.clone();
                let at_ns = match edges.get(index) {
                    Some(next) if in_order => next.at_ns,
                    _ => extra.at_ns,
                };
                edges.insert(index, Edge { at_ns, ..extra });
                nothing_else(&sent, &edges)?;
            }
        }
    }

    #[test]
    fn a_glitch_never_makes_another_measurement(
        sent in sent(),
        offset_ns in 0_u64..120_000,
        width_ns in 0_u64..120_000,
    ) {
        for index in 0..sent.edges.len() {
            nothing_else(&sent, &faults::glitch(sent.edges.clone(), index, offset_ns, width_ns))?;
        }
    }

    #[test]
    fn a_pulse_before_or_after_never_makes_another_measurement(
        sent in sent(),
        near_ns in 1_000_u64..150_000,
        far_ns in 1_000_u64..150_000,
    ) {
        let widths: Vec<u64> = sent.edges.windows(2).map(|p| p[1].at_ns - p[0].at_ns).collect();
        let first = sent.edges[0].level;
        nothing_else(&sent, &edges_from_widths(first, &[&widths[..], &[near_ns, far_ns]].concat()))?;
        nothing_else(&sent, &edges_from_widths(first, &[&[far_ns, near_ns], &widths[..]].concat()))?;
    }

    #[test]
    fn a_lost_bit_never_makes_another_measurement(sent in sent(), bits in 1_usize..4) {
        let pulses = sent.edges.len() - 1;
        for from in 0..=pulses - 2 * bits {
            nothing_else(&sent, &repeat(&sent.edges, from, from + 2 * bits, 0))?;
        }
    }

    #[test]
    fn a_doubled_bit_never_makes_another_measurement(sent in sent(), bits in 1_usize..4) {
        let pulses = sent.edges.len() - 1;
        for from in 0..=pulses - 2 * bits {
            nothing_else(&sent, &repeat(&sent.edges, from, from + 2 * bits, 2))?;
        }
    }

    #[test]
    fn a_train_cut_anywhere_never_makes_another_measurement(sent in sent(), start in places()) {
        let start = start % 6;
        for end in 0..=sent.edges.len() {
            nothing_else(&sent, &faults::cut(sent.edges.clone(), end))?;
            nothing_else(&sent, &sent.edges[end..])?;
            nothing_else(&sent, sent.edges.get(start..end).unwrap_or(&[]))?;
        }
    }

    #[test]
    fn the_end_of_the_last_low_must_be_seen(sent in sent()) {
        let edges = faults::cut(sent.edges.clone(), sent.edges.len() - 1);
        prop_assert_eq!(decode(&edges, sent.model).map_err(Fault::name), Err("short"));
    }

    #[test]
    fn a_poll_gap_inside_the_frame_is_weak_and_a_long_one_is_refused(
        sent in sent(),
        place in places(),
        weak_ns in 30_001_u32..=45_000,
        long_ns in 45_001_u32..,
    ) {
        // The frame's first edge may come late; from there on nothing may be missed. The frame is
        // the last 83 pulses, or 82 if its first edge is missing.
        let inside = 82;
        let index = sent.edges.len() - inside + place % inside;
        let with_gap = |gap_ns| {
            let mut edges = sent.edges.clone();
            edges[index].gap_ns = gap_ns;
            decode(&edges, sent.model)
        };
        prop_assert_eq!(with_gap(30_000).map(|decoded| decoded.weak), Ok(None));
        let weak = with_gap(weak_ns).unwrap();
        prop_assert_eq!(weak.measurement, sent.measurement);
        prop_assert_eq!(weak.weak.map(humidor::dht::Weakness::name), Some("poll-gap"));
        prop_assert_eq!(with_gap(long_ns).map_err(Fault::name), Err("gap"));
    }

    #[test]
    fn any_edges_give_an_answer(edges in prop::collection::vec(edge(), 0..200), model in models()) {
        let _ = decode(&edges, model);
    }

    #[test]
    fn a_frame_damaged_in_several_places_gives_an_answer(
        sent in sent(),
        damage in prop::collection::vec((places(), 0_u8..5, edge()), 1..6),
    ) {
        let mut edges = sent.edges;
        for (place, kind, edge) in damage {
            let index = place % edges.len().max(1);
            edges = match kind {
                0 => faults::lose_edge(edges, index),
                1 => faults::lose_pulse(edges, index),
                2 => faults::glitch(edges, index, edge.at_ns, u64::from(edge.gap_ns)),
                3 => faults::cut(edges, index),
                _ => {
                    edges.insert(index, edge);
                    edges
                }
            };
        }
        let _ = decode(&edges, sent.model);
    }

    #[test]
    fn any_five_bytes_give_a_plausible_measurement_or_a_fault(bytes: [u8; 5], model in models()) {
        let [a, b, c, d, _] = bytes;
        let summed = [a, b, c, d, frame::checksum([a, b, c, d])];
        for bytes in [bytes, summed] {
            if let Ok(measurement) = frame::measurement_from_bytes(bytes, model) {
                prop_assert!(model.is_plausible(measurement));
            }
        }
    }

    #[test]
    fn any_text_is_recordings_or_an_error_that_says_something(text in any::<String>()) {
        if let Err(error) = recording::parse(&text) {
            prop_assert!(!error.to_string().is_empty());
        }
    }

    #[test]
    fn any_recording_can_be_decoded(
        model in prop_oneof![Just("dht11"), Just("DHT22"), Just("dht33")],
        first in prop_oneof![Just("low"), Just("high"), Just("sideways")],
        us in prop::collection::vec(prop_oneof![9 => 0.0..120.0, 1 => any::<f64>()], 0..100),
        array: bool,
    ) {
        let object = serde_json::json!({"model": model, "first": first, "us": us});
        let text = if array { format!("[{object},{object}]") } else { object.to_string() };
        for recording in recording::parse(&text).unwrap_or_default() {
            let _ = decode(&recording.edges, recording.model);
        }
    }

    #[test]
    fn a_recorded_train_says_what_was_sent(sent in sent(), start in 1_usize..6) {
        let edges = train::nominal(sent.bytes);
        let us: Vec<u64> = edges.windows(2).map(|p| (p[1].at_ns - p[0].at_ns) / 1_000).collect();
        let first = if edges[start - 1].level == Level::Low { "low" } else { "high" };
        // From the wait, the response, its high, or either part of the first bit: what is missing is put back.
        let text = serde_json::json!({
            "model": sent.model.as_str(), "first": first, "us": us[start - 1..],
        });
        let recording = recording::parse(&text.to_string()).unwrap().remove(0);
        let decoded = decode(&recording.edges, recording.model).unwrap();
        prop_assert_eq!(decoded.measurement, sent.measurement);
    }
}
