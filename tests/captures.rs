//! Trains and frames that people published: they decode to what the sensor meant, or not at all.

use humidor::dht::{Fault, Model, decode, frame, recording, train};
use serde_json::Value;

/// Each entry names the thread it comes from in `source` and what it must give in `expect`.
const CAPTURES: &str = include_str!("fixtures/captures.json");

#[test]
fn published_trains_give_what_their_sensor_meant() {
    let entries: Vec<Value> = serde_json::from_str(CAPTURES).unwrap();
    let recordings = recording::parse(CAPTURES).unwrap();
    assert_eq!(recordings.len(), entries.len());
    let mut refused = 0;
    for (recording, entry) in recordings.iter().zip(&entries) {
        let id = recording.id.as_deref().unwrap();
        let expect = &entry["expect"];
        let result = decode(&recording.edges, recording.model);
        if expect["error"].is_string() {
            refused += 1;
            assert!(result.is_err(), "{id}: {result:?}");
            continue;
        }
        let decoded = result.unwrap_or_else(|fault| panic!("{id}: {fault}"));
        assert_eq!(serde_json::json!(decoded.bytes), expect["bytes"], "{id}");
        assert_eq!(Some(decoded.measurement.humidity()), expect["humidity"].as_f64(), "{id}");
        assert_eq!(Some(decoded.measurement.temperature()), expect["temperature"].as_f64(), "{id}");
        assert_eq!(decoded.weak, None, "{id}");
    }
    assert_eq!(refused, 1);
}

/// adafruit/circuitpython#718: a pulse before the first bit, and the closing low was not seen. Its
/// first 40 highs pass the checksum and mean nothing.
#[test]
fn a_train_whose_end_was_not_seen_is_short() {
    let recording = recording::parse(CAPTURES).unwrap().remove(1);
    assert_eq!(decode(&recording.edges, recording.model), Err(Fault::Short { pulses: 81 }));
}

/// Byte dumps from users' threads, decoded as frames and as the trains that carry them.
#[test]
fn published_frames_give_what_their_sensor_meant() {
    let vectors = [
        // Clones that send negative temperatures in two's complement.
        ([0x01, 0xb9, 0xff, 0xfa, 0xb3], Some((-6, 441))),
        ([0x01, 0x93, 0xff, 0x4d, 0xe0], Some((-179, 403))),
        // adafruit/circuitpython#718
        ([0x02, 0x3b, 0x00, 0xd7, 0x14], Some((215, 571))),
        // danjperron/PicoDHT22#5: off by one
        ([0x03, 0x48, 0x02, 0x25, 0x71], None),
    ];
    for (bytes, expected) in vectors {
        let measured = frame::measurement_from_bytes(bytes, Model::Dht22);
        assert_eq!(
            measured.ok().map(|m| (m.temperature_dc, m.humidity_dp)),
            expected,
            "{bytes:02x?}"
        );
        let decoded = decode(&train::nominal(bytes), Model::Dht22);
        assert_eq!(decoded.map(|decoded| decoded.measurement), measured);
        if expected.is_none() {
            assert_eq!(measured, Err(Fault::Checksum { bytes }));
        }
    }
}
