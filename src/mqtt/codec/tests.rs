//! The codec against a table of frames, each from a clause of the specifications.

use super::*;

const FRAMES: &str = include_str!("../../../tests/fixtures/mqtt-frames.tsv");

/// A line of the table.
struct Case {
    version: Version,
    is_accepted: bool,
    name: String,
    frame: Vec<u8>,
}

fn cases() -> Vec<Case> {
    let lines = FRAMES.lines().filter(|line| !line.starts_with('#'));
    lines.map(case).collect()
}

fn case(line: &str) -> Case {
    let [version, verdict, name, hex] =
        line.split('\t').collect::<Vec<_>>().try_into().expect(line);
    Case {
        version: match version {
            "3.1.1" => Version::V4,
            "5.0" => Version::V5,
            other => panic!("version {other} in {line}"),
        },
        is_accepted: match verdict {
            "accept" => true,
            "refuse" => false,
            other => panic!("verdict {other} in {line}"),
        },
        name: format!("{version} {name}"),
        frame: bytes(hex),
    }
}

fn bytes(hex: &str) -> Vec<u8> {
    let digits = hex.as_bytes().chunks_exact(2).map(|pair| std::str::from_utf8(pair).unwrap());
    digits.map(|pair| u8::from_str_radix(pair, 16).expect(hex)).collect()
}

/// Whether `stream` begins with a whole packet: a CONNECT, or one of an open connection.
fn take(version: Version, stream: &mut BytesMut) -> Result<bool, CodecError> {
    if is_next(PacketType::Connect, stream) {
        let connect = connect(stream)?;
        assert!(connect.as_ref().is_none_or(|connect| connect.version == version));
        return Ok(connect.is_some());
    }
    next(version, stream).map(|packet| packet.is_some())
}

#[test]
fn frames_are_judged_as_the_specification_does() {
    let cases = cases();
    assert!(cases.len() >= 290, "{} cases", cases.len());
    for Case { version, is_accepted, name, frame } in cases {
        let mut stream = BytesMut::from(&frame[..]);
        let taken = take(version, &mut stream);
        if is_accepted {
            assert_eq!(taken, Ok(true), "{name}");
            assert!(stream.is_empty(), "{name}: {} bytes left", stream.len());
        } else {
            assert!(taken.is_err(), "{name}: {taken:?}");
        }
    }
}

#[test]
fn an_accepted_frame_is_incomplete_until_its_last_byte() {
    for Case { version, name, frame, .. } in cases().iter().filter(|case| case.is_accepted) {
        for cut in 0..frame.len() {
            let taken = take(*version, &mut BytesMut::from(&frame[..cut]));
            assert_eq!(taken, Ok(false), "{name} cut at {cut}");
        }
    }
}
