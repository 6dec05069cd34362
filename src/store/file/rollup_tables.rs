//! The tables and views of the roll-ups, as the fourth script of the log's schema makes them for each tier.
//!
//! They are written once, by macros, because a script must be constant text: it is never changed after its release,
//! whatever [`crate::store::rollup::schema`] becomes. A test there holds the two together.

/// The columns of one value; all but the count are null when no row of the span had the value.
#[rustfmt::skip]
macro_rules! value_columns {
    ($value:literal) => {
        concat!(
            "    ", $value, "_count INTEGER NOT NULL,\n",
            "    ", $value, "_sum REAL,\n",
            "    ", $value, "_min REAL,\n",
            "    ", $value, "_max REAL,\n",
        )
    };
}

/// The table of one tier.
macro_rules! table {
    ($rows:literal, $tier:literal, $series:literal, $($value:literal),+) => {
        concat!(
            "CREATE TABLE ", $rows, "_", $tier, " (\n",
            "    ", $series, " INTEGER NOT NULL REFERENCES ", $series, " (id),\n",
            "    at INTEGER NOT NULL,\n",
            "    count INTEGER NOT NULL,\n",
            $(value_columns!($value),)+
            "    PRIMARY KEY (", $series, ", at)\n",
            ") STRICT, WITHOUT ROWID;\n\n",
        )
    };
}

/// The view of one tier of readings.
macro_rules! readings_view {
    ($tier:literal) => {
        concat!(
            "CREATE VIEW readings_", $tier,
            " (node, sensor, at, count, temperature_min, temperature_mean, temperature_max,\n",
            "    humidity_min, humidity_mean, humidity_max) AS\n",
            "SELECT node.name, sensor.name, at, count,\n",
            "       temperature_min, temperature_sum / nullif(temperature_count, 0), temperature_max,\n",
            "       humidity_min, humidity_sum / nullif(humidity_count, 0), humidity_max\n",
            "FROM reading_", $tier, " AS span JOIN sensor ON sensor.id = span.sensor",
            " JOIN node ON node.id = sensor.node;\n\n",
        )
    };
}

/// The view of one tier of samples.
#[rustfmt::skip]
macro_rules! samples_view {
    ($tier:literal) => {
        concat!(
            "CREATE VIEW samples_", $tier, " (topic, field, at, count, min, mean, max) AS\n",
            "SELECT topic, field, at, count, value_min, value_sum / value_count, value_max\n",
            "FROM sample_", $tier, " AS span JOIN source ON source.id = span.source;\n\n",
        )
    };
}

/// Roll-ups and retention.
pub(in crate::store) const V4: &str = concat!(
    table!("reading", "1m", "sensor", "temperature", "humidity"),
    table!("reading", "15m", "sensor", "temperature", "humidity"),
    table!("reading", "1h", "sensor", "temperature", "humidity"),
    table!("sample", "1m", "source", "value"),
    table!("sample", "15m", "source", "value"),
    table!("sample", "1h", "source", "value"),
    include_str!("migrations/4_rollup_state.sql"),
    readings_view!("1m"),
    readings_view!("15m"),
    readings_view!("1h"),
    samples_view!("1m"),
    samples_view!("15m"),
    samples_view!("1h"),
);
