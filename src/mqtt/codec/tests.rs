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

#[test]
fn a_client_of_mqtt_5_is_told_why() {
    for (reason, hex) in [
        (Reason::MalformedPacket, "00"),
        (Reason::MalformedPacket, "30040001ff00"),
        (Reason::MalformedPacket, "300400010000"),
        (Reason::MalformedPacket, "3009000161051100000001"),
        (Reason::ProtocolError, "300e0001610a02000000010200000002"),
        (Reason::ProtocolError, "3003000000"),
        (Reason::ProtocolError, "3006000161020b01"),
        (Reason::ProtocolError, "40020000"),
        (Reason::ProtocolError, "2003000000"),
        (Reason::ProtocolError, "f000"),
        (Reason::ProtocolError, "820700010000016130"),
        (Reason::TopicNameInvalid, "300400012300"),
        (Reason::TopicAliasInvalid, "3006000003230000"),
        (Reason::PacketTooLarge, "3081801000"),
        (Reason::UnsupportedProtocolVersion, "100e00064d51497364700302003c0000"),
        (Reason::ProtocolError, "101000044d5154540502003c032100000000"),
        (Reason::TopicNameInvalid, "101300044d5154540506003c000000000001230000"),
        (Reason::PayloadFormatInvalid, "101600044d5154540506003c0000000201010001770001ff"),
    ] {
        let error = take(Version::V5, &mut BytesMut::from(&bytes(hex)[..])).expect_err(hex);
        assert_eq!(error.reason(), reason, "{hex}: {error}");
    }
}

#[test]
fn a_frame_is_refused_as_soon_as_the_bytes_that_say_so_are_there() {
    let early = |version, hex| take(version, &mut BytesMut::from(&bytes(hex)[..]));
    // The type, the flags, the length, the level: none of these bodies has arrived.
    assert!(early(Version::V4, "20").is_err());
    assert!(early(Version::V4, "80").is_err());
    assert!(early(Version::V4, "36").is_err());
    assert_eq!(early(Version::V4, "30818010"), Err(CodecError::TooLarge(262_145)));
    assert_eq!(early(Version::V4, "30808010"), Ok(false));
    assert!(early(Version::V5, "30ffffffff").is_err());
    assert!(early(Version::V5, "308000").is_err());
    assert_eq!(early(Version::V4, "107f00044d51545403"), Err(CodecError::Level(3)));
    assert!(connect(&mut BytesMut::from(&b"G"[..])).is_err());
    assert_eq!(connect(&mut BytesMut::new()), Ok(None));
}

#[test]
fn user_properties_of_one_section_are_bounded() {
    for (count, fits) in [(USER_PROPERTIES_MAX, true), (USER_PROPERTIES_MAX + 1, false)] {
        let section = b"\x26\0\0\0\0".repeat(count);
        let mut length = BytesMut::new();
        frame::put_varint(u32::try_from(section.len()).unwrap(), &mut length);
        let body = [&b"\0\x01a"[..], &length, &section].concat();
        let mut stream = BytesMut::from(&b"\x30"[..]);
        frame::put_varint(u32::try_from(body.len()).unwrap(), &mut stream);
        stream.extend_from_slice(&body);
        let expected = if fits { Ok(true) } else { Err(CodecError::TooMany("user properties")) };
        assert_eq!(take(Version::V5, &mut stream), expected);
    }
}
