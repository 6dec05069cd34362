//! The codec without a socket, for tests and the fuzzer: any bytes, in any pieces.

use bytes::BytesMut;

use super::{CodecError, connect, next};

/// What a stream of bytes came to.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Read {
    /// Packets, as text.
    pub packets: Vec<String>,
    /// Why the connection would be closed.
    pub refused: Option<CodecError>,
}

/// Reads `bytes` as a connection does when they come in pieces of `piece` bytes.
#[must_use]
pub fn read(bytes: &[u8], piece: usize) -> Read {
    let mut read = Read::default();
    let mut stream = BytesMut::new();
    let mut version = None;
    for piece in bytes.chunks(piece.max(1)) {
        stream.extend_from_slice(piece);
        loop {
            let packet = match version {
                Some(version) => {
                    next(version, &mut stream).map(|packet| packet.map(|p| format!("{p:?}")))
                }
                None => connect(&mut stream).map(|connect| {
                    let connect = connect?;
                    version = Some(connect.version);
                    Some(format!("{connect:?}"))
                }),
            };
            match packet {
                Ok(Some(packet)) => read.packets.push(packet),
                Ok(None) => break,
                Err(error) => {
                    read.refused = Some(error);
                    return read;
                }
            }
        }
    }
    read
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn the_fuzzers_seeds_read_the_same_in_any_pieces() {
        let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds/packet");
        let mut packets = 0;
        for seed in std::fs::read_dir(seeds).unwrap() {
            let bytes = std::fs::read(seed.unwrap().path()).unwrap();
            let whole = read(&bytes, bytes.len());
            assert_eq!(whole, read(&bytes, 1));
            packets += whole.packets.len();
        }
        assert!(packets >= 8, "the seeds hold {packets} packets");
    }
}
