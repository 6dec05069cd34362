//! How a message travels through the router: all that a subscriber's connection must know is packed in front of
//! the payload, since the router carries neither a `QoS` of ours nor who published.

use std::sync::Arc;

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::mqtt::Message;

const RETAIN: u8 = 0x04;
const EXPIRES: u8 = 0x08;

/// Packs `message`, the `serial`-th that the router gets.
pub fn pack(message: &Message, serial: u64) -> Bytes {
    let Message { payload, qos, retain, expires_at_ms, publisher, properties, .. } = message;
    let mut packed =
        BytesMut::with_capacity(24 + publisher.len() + properties.len() + payload.len());
    let retain = if *retain { RETAIN } else { 0 };
    packed.put_u8(*qos as u8 | retain | if expires_at_ms.is_some() { EXPIRES } else { 0 });
    packed.put_u64(serial);
    if let Some(at) = expires_at_ms {
        packed.put_i64(*at);
    }
    for part in [publisher.as_bytes(), properties] {
        // A client id has at most 256 bytes, a packet with its properties at most 256 KiB.
        packed.put_u32(u32::try_from(part.len()).unwrap_or(u32::MAX));
        packed.put_slice(part);
    }
    packed.put_slice(payload);
    packed.freeze()
}

/// Unpacks what [`pack`] made; `None` when it is something else.
pub fn unpack(topic: &[u8], mut packed: Bytes) -> Option<(Message, u64)> {
    let flags = packed.try_get_u8().ok()?;
    let serial = packed.try_get_u64().ok()?;
    let expires = flags & EXPIRES != 0;
    let expires_at_ms = if expires { Some(packed.try_get_i64().ok()?) } else { None };
    let mut part = || {
        let length = packed.try_get_u32().ok()? as usize;
        (length <= packed.len()).then(|| packed.split_to(length))
    };
    let (publisher, properties) = (part()?, part()?);
    let message = Message {
        topic: crate::mqtt::Topic::from_bytes(topic).ok()?,
        payload: packed,
        qos: crate::mqtt::QoS::from_u8(flags & 3)?,
        retain: flags & RETAIN != 0,
        expires_at_ms,
        publisher: Arc::from(std::str::from_utf8(&publisher).ok()?),
        properties,
    };
    Some((message, serial))
}

#[cfg(test)]
mod tests {
    use crate::mqtt::QoS;

    use super::*;

    #[test]
    fn what_is_packed_comes_out_again() {
        for (expires_at_ms, retain, properties) in
            [(None, false, &b""[..]), (Some(1_760_000_000_123), true, &[2, 1, 1][..])]
        {
            let message = Message {
                topic: "온도/hall".parse().unwrap(),
                payload: Bytes::from_static(b"21.5"),
                qos: QoS::ExactlyOnce,
                retain,
                expires_at_ms,
                publisher: Arc::from("oven"),
                properties: Bytes::copy_from_slice(properties),
            };
            let packed = pack(&message, 77);
            assert_eq!(unpack(message.topic.as_bytes(), packed.clone()), Some((message, 77)));
            for cut in 0..packed.len() - 4 {
                assert_eq!(unpack(b"t", packed.slice(..cut)), None);
            }
        }
    }
}
