//! The log's schema, one script a version. A script that has been released is never changed.

use crate::store::file::migrate::Database;
use crate::store::file::rollup_tables::V4;

/// The log of the broker: `application_id` is `hmdr` in ASCII.
pub(in crate::store) const LOG: Database = Database {
    application_id: 0x686d_6472,
    migrations: &[V1, V2, V3, V4, V5, V6, V7, V8, V9, V10, V11, V12, V13],
};

/// Readings, samples and refusals.
///
/// `reading` has no rowid: its key *is* the idempotency key (run, seq), so that a repeat costs one look-up and the
/// table needs no second index to refuse it. Names are interned: a row takes about 40 bytes instead of 120, which
/// spares an SD card.
const V1: &str = include_str!("migrations/1_readings.sql");

/// The state that MQTT asks a server to keep over a restart.
///
/// `session.expiry_s` is 4294967295 when the session has no end; `left_at` is null while its client is connected. In
/// `queued`, `payload` and `message` are null when the client has the message and only PUBREL is left to send.
const V2: &str = include_str!("migrations/2_mqtt.sql");

/// The history of alarms.
const V3: &str = include_str!("migrations/3_alarms.sql");

/// The table in which readings arrive.
const V5: &str = include_str!("migrations/5_arrival.sql");

/// Wills of clients that are connected, or whose will is delayed: `due_at` is null while the client is connected.
/// `session.sent` is the highest number of a message that was ever sent to the client; null when that is not known.
const V6: &str = include_str!("migrations/6_wills.sql");

/// Means without sums, newest readings, and times that no step of the clock touches.
const V7: &str = include_str!("migrations/7_numbers_and_times.sql");

/// Who began a series, and the nodes that are to be forgotten.
const V8: &str = include_str!("migrations/8_series.sql");

/// Times of alarms that are corrected when the clock is set.
const V9: &str = include_str!("migrations/9_alarm_times.sql");

/// The queue for the upstream database.
const V10: &str = include_str!("migrations/10_forward.sql");
/// Horizons of single series.
const V11: &str = include_str!("migrations/11_own_horizons.sql");

/// Runs whose clock is not set, by node.
const V12: &str = include_str!("migrations/12_runs_without_clock.sql");

/// Messages that wait for several sessions, stored once.
const V13: &str = include_str!("migrations/13_messages_once.sql");

/// `reading.clock` of a reading whose node had no set clock.
pub(in crate::store) const CLOCK_UNSYNCED: i64 = 0;
/// `reading.clock` of a reading whose node's clock was set.
pub(in crate::store) const CLOCK_SYNCED: i64 = 1;
/// `reading.clock` of a reading that was taken before the clock was set and corrected later from its run's offset.
pub(in crate::store) const CLOCK_RESTAMPED: i64 = 2;
/// `reading.clock` of a reading that was taken before the clock was set, at a time before the retention horizon: it
/// waits for its corrected time and is in no roll-up. The view says `unsynced`.
pub(in crate::store) const CLOCK_AWAITING: i64 = 3;

#[cfg(test)]
mod tests {
    use super::*;

    /// FNV-1a over the script without the blank space around it.
    fn fingerprint(script: &str) -> u64 {
        script.trim().bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        })
    }

    #[test]
    fn a_released_script_is_never_changed() {
        let found: Vec<String> =
            LOG.migrations.iter().map(|script| format!("{:016x}", fingerprint(script))).collect();
        assert_eq!(
            found,
            [
                "8835881ff49f3dbd",
                "4e95994fedf2e44b",
                "7131e2453c69fb77",
                "9dc0f4f9238c7528",
                "832e88d32dc36b12",
                "ffc63bcca235f7a8",
                "19fc66e6a1bdb4c3",
                "e7180997117ec043",
                "9ed82ace9440fd67",
                "c50da0edc94edfe5",
                "d069bb29c3164d77",
                "022367e241327734",
                "f443d360cc0a452a"
            ]
        );
    }
}
