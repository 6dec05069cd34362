//! Judges mutated MQTT frames by two codecs, without libFuzzer: `mutate [FRAMES] [SEED]`. Ends with a panic at the first
//! disagreement without a known reason, else prints how the verdicts came out, one line of JSON each.

use std::collections::BTreeMap;
use std::time::Instant;
use std::{env, fs};

use humidor::mqtt::codec::{self, Version};
use humidor_fuzz::mutation::{Frame, Mutation};
use humidor_fuzz::oracle::{self, Verdict};

const FRAMES: &str = include_str!("../../../tests/fixtures/mqtt-frames.tsv");

fn frames() -> Vec<Frame> {
    let lines = FRAMES.lines().filter(|line| !line.starts_with('#'));
    lines
        .map(|line| {
            let [version, _, _, hex] = line.split('\t').collect::<Vec<_>>()[..] else {
                panic!("{line}");
            };
            let version = if version == "5.0" { Version::V5 } else { Version::V4 };
            let digits =
                hex.as_bytes().chunks_exact(2).map(|pair| std::str::from_utf8(pair).unwrap());
            (version, digits.map(|pair| u8::from_str_radix(pair, 16).expect(hex)).collect())
        })
        .collect()
}

/// Packets that are full: as many topic filters and user properties as one may have, with hardly any text.
fn full() -> Vec<Frame> {
    let user_properties = b"\x26\0\0\0\0".repeat(codec::USER_PROPERTIES_MAX);
    let section = [&length(user_properties.len())[..], &user_properties].concat();
    let filters = |filter: &[u8]| filter.repeat(codec::FILTERS_MAX);
    // One more than 256 makes the vector grow that holds them, which takes the most memory for a byte.
    let grown = |filter: &[u8]| filter.repeat(codec::FILTERS_MAX / 2 + 1);
    vec![
        frame(
            Version::V5,
            0x10,
            &[b"\0\x04MQTT\x05\x06\0\0", &section, b"\0\0", &section, b"\0\x01w\0\0"],
        ),
        frame(Version::V5, 0x30, &[b"\0\x01a", &section]),
        frame(Version::V5, 0x30, &[b"\0\x01a\xc5\x02", &user_properties, b"\x26\0\0\0\0"]),
        frame(Version::V5, 0x40, &[b"\0\x01\0", &section]),
        frame(Version::V5, 0x82, &[b"\0\x01", &section, &filters(b"\0\x01a\0")]),
        frame(Version::V5, 0x82, &[b"\0\x01\0", &grown(b"\0\x01a\0")]),
        frame(Version::V4, 0x82, &[b"\0\x01", &grown(b"\0\x01a\0")]),
        frame(Version::V5, 0xa2, &[b"\0\x01", &section, &filters(b"\0\x01a")]),
        frame(Version::V4, 0xa2, &[b"\0\x01", &grown(b"\0\x01a")]),
        frame(Version::V5, 0xe0, &[b"\0", &section]),
    ]
}

fn frame(version: Version, first: u8, parts: &[&[u8]]) -> Frame {
    let body = parts.concat();
    (version, [&[first], &length(body.len())[..], &body].concat())
}

/// A length below 16,384 as a Variable Byte Integer.
fn length(length: usize) -> Vec<u8> {
    let [low, high, ..] = (length << 1).to_le_bytes();
    if length < 0x80 { vec![low >> 1] } else { vec![low >> 1 | 0x80, high] }
}

fn main() {
    let mut arguments =
        env::args().skip(1).map(|argument| argument.parse::<u64>().expect("a number"));
    let count = arguments.next().unwrap_or(1_000_000);
    let seed = arguments.next().unwrap_or(1);
    let frames: Vec<Frame> = frames().into_iter().chain(full()).collect();
    let mut verdicts = BTreeMap::<Verdict, u64>::new();
    for (version, frame) in &frames {
        *verdicts.entry(oracle::frame(*version, frame)).or_default() += 1;
    }
    for seed in fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/seeds/packet")).expect("seeds") {
        oracle::stream(&fs::read(seed.expect("a seed").path()).expect("a seed"));
    }
    let mut mutation = Mutation::new(frames, seed);
    let start = Instant::now();
    let mut bytes = 0;
    for n in 0..count {
        let (version, frame) = mutation.next_frame();
        bytes += frame.len();
        let verdict = oracle::frame(version, &frame);
        *verdicts.entry(verdict).or_default() += 1;
        // Accepted frames are what the next ones start from, some of them.
        if verdict == Verdict::BothAccept && n % 7 == 0 {
            mutation.learn((version, frame));
        }
    }
    let seconds = start.elapsed().as_secs_f64();
    println!(
        "{{\"frames\":{count},\"seed\":{seed},\"bytes\":{bytes},\"seconds\":{seconds:.1},\"memory_beyond_10_x_bytes\":{}}}",
        oracle::most_memory()
    );
    for (verdict, count) in verdicts {
        println!(
            "{{\"verdict\":{:?},\"frames\":{count}}}",
            format!("{verdict:?}").replace('"', "")
        );
    }
}
