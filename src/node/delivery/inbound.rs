//! The check of the broker's packets before rumqttc reads them. rumqttc ends the connection for an acknowledgement that it
//! does not expect and for a payload over its limit; neither may stand in the way of readings.

use tokio::time::Instant;

use super::frames::{self, Frame, Frames, Kept, LengthError};
use super::traffic::Traffic;

/// Bytes kept of a message's payload: more than the longest command, so that a longer one is still none.
const PAYLOAD_KEPT_BYTES: usize = 512;
/// Longest packet of a broker that is no PUBLISH, in bytes: a SUBACK for one filter.
const OTHER_MAX_BYTES: usize = 64;
/// Bytes of the longest packet that passes: the longest topic, its length, the packet id and the payload.
pub const PASSED_MAX_BYTES: usize = 2 + 65_535 + 2 + PAYLOAD_KEPT_BYTES;

/// The code of a refused subscription (MQTT 3.1.1, 3.9.3).
const SUBACK_REFUSED: u8 = 0x80;

/// The broker broke the protocol in a way that leaves no use for the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Breach {
    /// No CONNACK came first.
    #[error("what answers there is no MQTT broker, or it speaks TLS: check HUMIDOR_BROKER")]
    NoBroker,
    /// A length of five bytes.
    #[error("the broker sent {0}")]
    Length(#[from] LengthError),
    /// A packet longer than its type can be, or of a type that only clients send.
    #[error(
        "the broker sent a packet of type {kind} with {length} bytes, which MQTT does not allow"
    )]
    Packet {
        /// The type, 0 to 15.
        kind: u8,
        /// Its remaining length.
        length: usize,
    },
}

/// PINGRESP, whole.
const PONG: [u8; 2] = [0xd0, 0];

/// Notes the publishes and pings on their way to the broker.
#[derive(Debug)]
pub struct Outbound(Frames);

impl Outbound {
    /// At the beginning of a connection.
    pub const fn new() -> Self {
        Self(Frames::new(Kept { payload: 0, other: 0 }))
    }

    /// Notes the publishes and pings among `bytes`.
    ///
    /// # Errors
    /// None for the bytes of an MQTT client.
    pub fn note(
        &mut self,
        bytes: &[u8],
        traffic: &Traffic,
        now: Instant,
    ) -> Result<(), LengthError> {
        self.0.feed(bytes, |frame| {
            if frame.first == 0xc0 {
                traffic.ping(now);
            }
            if frame.first & 0xf0 == 0x30
                && frame.first & 0x06 != 0
                && let Some(packet_id) = frame.body.last_chunk()
            {
                traffic.publish(u16::from_be_bytes(*packet_id));
            }
            Ok(())
        })
    }
}

/// The packets of a broker.
#[derive(Debug)]
pub struct Inbound {
    frames: Frames,
    /// Whether the first byte has come.
    begun: bool,
    accepted: bool,
    /// Acknowledgements of nothing, and CONNACKs after the first.
    ignored: u64,
}

impl Inbound {
    /// At the beginning of a connection.
    pub const fn new() -> Self {
        let kept = Kept { payload: PAYLOAD_KEPT_BYTES, other: OTHER_MAX_BYTES };
        Self { frames: Frames::new(kept), begun: false, accepted: false, ignored: 0 }
    }

    /// Takes bytes as they come; adds to `passed` what rumqttc may see of them.
    ///
    /// # Errors
    /// [`Breach`].
    pub fn take(
        &mut self,
        bytes: &[u8],
        traffic: &Traffic,
        now: Instant,
        passed: &mut Vec<u8>,
    ) -> Result<(), Breach> {
        let Self { frames, begun, accepted, ignored } = self;
        if !std::mem::replace(begun, true) && bytes.first().is_some_and(|first| *first != 0x20) {
            return Err(Breach::NoBroker);
        }
        frames.feed(bytes, |frame| {
            if !pass(frame, accepted, traffic, now, passed)? {
                *ignored += 1;
            }
            Ok::<_, Breach>(())
        })?;
        if frames.is_in_publish() {
            traffic.more(now);
        }
        if traffic.lend_pong() {
            passed.extend(PONG);
        }
        Ok(())
    }

    /// The number of packets ignored since the last call.
    pub fn take_ignored(&mut self) -> u64 {
        std::mem::take(&mut self.ignored)
    }
}

/// Adds the packet to `passed`, as far as it is of use; returns whether it is expected at all.
fn pass(
    frame: Frame<'_>,
    accepted: &mut bool,
    traffic: &Traffic,
    now: Instant,
    passed: &mut Vec<u8>,
) -> Result<bool, Breach> {
    let kind = frame.first >> 4;
    let breach = Breach::Packet { kind, length: frame.length };
    if kind != 3 && frame.length > frame.body.len() {
        return Err(breach);
    }
    let mut body = frame.body;
    let refused;
    match (kind, body) {
        (2, _) => {
            if std::mem::replace(accepted, true) {
                return Ok(false);
            }
        }
        _ if !*accepted => return Err(Breach::NoBroker),
        // The node publishes at QoS 1: PUBREC and PUBCOMP answer nothing.
        (4, [high, low, ..]) if traffic.acknowledge(u16::from_be_bytes([*high, *low])) => {}
        (4 | 5 | 7, _) => return Ok(false),
        // One filter is asked for at a time, so one code is due.
        (9, [high, low, codes @ ..]) if codes.first().is_none_or(|code| *code > 2) => {
            refused = [*high, *low, SUBACK_REFUSED];
            body = &refused;
        }
        (3, [high, low, rest @ ..]) => {
            let length = usize::from(u16::from_be_bytes([*high, *low]));
            traffic.message(&rest[..length.min(rest.len())], now);
        }
        (13, _) => traffic.pong(),
        (3 | 6 | 9 | 11, _) => {}
        _ => return Err(breach),
    }
    passed.extend(frames::header(frame.first, body.len()));
    passed.extend_from_slice(body);
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONNACK: &[u8] = &[0x20, 2, 0, 0];

    fn take(stream: &[u8], sent: &Traffic) -> Result<(Vec<u8>, u64), Breach> {
        let (mut inbound, mut passed) = (Inbound::new(), Vec::new());
        inbound.take(CONNACK, sent, Instant::now(), &mut passed)?;
        passed.clear();
        inbound.take(stream, sent, Instant::now(), &mut passed)?;
        Ok((passed, inbound.take_ignored()))
    }

    #[test]
    fn only_an_acknowledgement_of_something_sent_passes_and_only_once() {
        let sent = Traffic::default();
        let (mut outbound, now) = (Outbound::new(), Instant::now());
        outbound
            .note(b"\x32\x07\x00\x01t\x00\x05{}\x30\x04\x00\x01t!\x32\x05\x00", &sent, now)
            .unwrap();
        outbound.note(b"\x01t\x00\x06", &sent, now).unwrap();
        let stream = [&[0x40, 2, 0, 5][..], &[0x40, 2, 0, 5], &[0x40, 2, 0, 0], &[0x40, 1, 0]];
        let more = [&[0x40, 2, 0, 6][..], &[0x50, 2, 0, 6], CONNACK];
        let (passed, ignored) = take(&[stream.concat(), more.concat()].concat(), &sent).unwrap();
        assert_eq!((passed, ignored), (vec![0x40, 2, 0, 5, 0x40, 2, 0, 6], 5));
    }

    #[test]
    fn a_connack_may_come_in_pieces_and_nothing_else_may_come_first() {
        let sent = Traffic::default();
        let (mut inbound, mut passed) = (Inbound::new(), Vec::new());
        for byte in CONNACK {
            inbound.take(&[*byte], &sent, Instant::now(), &mut passed).unwrap();
        }
        assert_eq!(passed, CONNACK);
        let outcome = Inbound::new().take(b"HTTP/1.1", &sent, Instant::now(), &mut passed);
        assert!(matches!(outcome, Err(Breach::NoBroker)));
    }

    #[test]
    fn a_large_message_keeps_its_head_and_a_short_suback_is_a_refusal() {
        let sent = Traffic::default();
        let body = [&b"\x00\x01t\x00\x09"[..], &vec![b'x'; 256 * 1024]].concat();
        let stream: Vec<u8> = frames::header(0x33, body.len()).chain(body.clone()).collect();
        let (passed, _) = take(&stream, &sent).unwrap();
        let kept = 5 + PAYLOAD_KEPT_BYTES;
        assert!(passed.iter().copied().eq(frames::header(0x33, kept).chain(body[..kept].to_vec())));
        assert!(passed.len() < PASSED_MAX_BYTES);
        for short in [&[0x90, 2, 0, 1][..], &[0x90, 3, 0, 1, 0x87]] {
            assert_eq!(take(short, &sent).unwrap().0, [0x90, 3, 0, 1, 0x80]);
        }
        assert_eq!(take(&[0x90, 3, 0, 1, 1], &sent).unwrap().0, [0x90, 3, 0, 1, 1]);
    }

    #[test]
    fn what_no_broker_sends_ends_the_connection() {
        let sent = Traffic::default();
        for (stream, breach) in [
            (&[0xc0, 0][..], Breach::Packet { kind: 12, length: 0 }),
            (&[0x00, 0], Breach::Packet { kind: 0, length: 0 }),
            (&[0x40, 0xff, 0x7f], Breach::Length(LengthError)),
        ] {
            let found = take(stream, &sent);
            let long = matches!(breach, Breach::Length(_));
            // A long PUBACK is a breach once its kept part is there.
            assert!(long && found == Ok((vec![], 0)) || found == Err(breach), "{found:?}");
        }
        let mut passed = Vec::new();
        for other in [&b"HTTP/1.1 400"[..], &[0xd0, 0], &[0x15, 3, 1]] {
            let found = Inbound::new().take(other, &sent, Instant::now(), &mut passed);
            assert_eq!(found, Err(Breach::NoBroker));
        }
    }

    #[test]
    fn while_a_large_message_comes_rumqttc_gets_its_pong() {
        let (traffic, start) = (Traffic::default(), Instant::now());
        let (mut inbound, mut outbound) = (Inbound::new(), Outbound::new());
        let mut take = |bytes: &[u8], seconds| {
            let (mut passed, now) = (Vec::new(), start + std::time::Duration::from_secs(seconds));
            inbound.take(bytes, &traffic, now, &mut passed).unwrap();
            passed
        };
        take(CONNACK, 0);
        let body = [&b"\x00\x01t"[..], &vec![b'x'; 256 * 1024]].concat();
        let stream: Vec<u8> = frames::header(0x30, body.len()).chain(body).collect();
        let kept = take(&stream[..2048], 1);
        assert_eq!(kept[0], 0x30);
        for second in 2..60 {
            outbound.note(&[0xc0, 0], &traffic, start).unwrap();
            let bytes = &stream[second * 1024..(second + 1) * 1024];
            assert_eq!(take(bytes, second as u64), PONG, "at {second} s");
        }
        let now = start + std::time::Duration::from_mins(1);
        assert_eq!(traffic.held_up(start, now).unwrap().topic, "t");
        take(&stream[60 * 1024..], 61);
        take(&[PONG; 60].concat(), 62);
        assert_eq!(traffic.held_up(start, now), None);
    }
}
