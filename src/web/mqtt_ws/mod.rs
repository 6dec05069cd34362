//! MQTT over WebSocket: the handshake, and the byte stream behind it.

mod byte_stream;
pub mod handshake;
