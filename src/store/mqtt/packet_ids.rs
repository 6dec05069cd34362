//! Packet ids of messages that wait for sessions.

/// Packet ids there are ([MQTT-2.3.1-1]); a message that as many later ones have overtaken is dropped.
pub(in crate::store) const PACKET_IDS: i64 = 65_535;

/// The packet id of every delivery of the message with this number.
pub(in crate::store) fn packet_id(number: i64) -> u16 {
    u16::try_from(number.rem_euclid(PACKET_IDS) + 1).unwrap_or(1)
}
