//! MQTT over WebSocket: the HTTP handshake at `/mqtt`, and the byte stream that the broker reads packets from.

mod byte_stream;
mod handshake;
mod short_frames;

pub use handshake::routes;
