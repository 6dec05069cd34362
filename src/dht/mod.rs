//! From edges to a measurement: everything about the DHT11 and DHT22 that is not a pin.
//!
//! The path, one file a step, all of it pure (no I/O, no clock):
//!
//! 1. [`pulses`] turns edges into pulses and lays the frame over them: response low, response
//!    high, 40 pairs of low and high, closing low. The count decides, not the content: a frame
//!    shifted by one bit still passes its checksum in 10 to 35 % of cases (DHT22, by enumeration).
//! 2. [`bits`] reads a bit from each pair and notes what was nearly something else.
//! 3. [`frame`] checks the five bytes and gives them their meaning by [`Model`].
//!
//! [`recording`] feeds the same path from files, [`train`] from frames. An exchange without a measurement is a
//! [`Fault`], which has a stable name to count by; a frame that passed only just carries a [`Weakness`].

use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::reading::Measurement;

pub mod bits;
mod edge;
mod fault;
pub mod frame;
pub mod pulses;
pub mod recording;
pub mod train;

pub use edge::{Edge, Level};
pub use fault::{Fault, Weakness};

/// Bits in a frame: four bytes of data and the checksum.
pub const FRAME_BITS: usize = 40;
/// Pulses in a frame: response low and high, two for each bit, the closing low.
pub const FRAME_PULSES: usize = 2 + 2 * FRAME_BITS + 1;

/// Shortest low, in µs, at the start of a list that is the host's own start signal.
pub const HOST_START_MIN_US: u64 = 500;
/// Longest time, in µs, between the release and the response. The datasheets say 20 to 40 µs for
/// the DHT11 and 20 to 200 µs for the DHT22.
pub const WAIT_HIGH_MAX_US: u64 = 250;
/// Width in µs of the response's low and of its high (80 µs in both datasheets).
pub const RESPONSE_US: RangeInclusive<u64> = 60..=100;
/// Width in µs of the low that opens a bit (50 µs in the datasheets, up to 67 µs recorded between
/// two bytes).
pub const BIT_LOW_US: RangeInclusive<u64> = 35..=80;
/// Width in µs of the high that carries a bit (26 to 28 µs for 0, 70 µs for 1).
pub const BIT_HIGH_US: RangeInclusive<u64> = 15..=90;
/// Width in µs of the low after the last bit (50 µs in the datasheets, up to 90 µs recorded).
pub const CLOSING_LOW_US: RangeInclusive<u64> = 20..=120;
/// A high longer than this many µs is a 1 (`DHT11_THRESHOLD` in drivers/iio/humidity/dht11.c).
pub const ONE_ABOVE_US: u64 = 49;
/// A bit lasts at least this many µs from falling edge to falling edge if it is a 1: half way
/// between 76 µs and 120 µs.
pub const ONE_PERIOD_US: u64 = 98;
/// A high strictly between these two, in µs, is read, but the frame is weak.
pub const AMBIGUOUS_HIGH_US: (u64, u64) = (38, 60);
/// A poll gap above this many µs inside the frame may have moved a high across the threshold. Each edge is
/// stamped in the middle of its gap, so a high with such a gap at both ends is off by 30 µs at most: a 0 of
/// 28 µs stays below 60 and a 1 of 70 µs above 38, where the width alone leaves the frame weak.
pub const GAP_WEAK_US: u64 = 30;
/// A poll gap above this many µs inside the frame may have hidden a whole pulse.
pub const GAP_MAX_US: u64 = 45;

/// Nanoseconds in a microsecond: edges are stamped in ns, the datasheets speak in µs.
pub(crate) const NS_PER_US: u64 = 1_000;

/// The sensor's model. It comes from the configuration and is never guessed: the same five bytes
/// are a plausible frame of both.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Model {
    /// DHT11: integers with a tenths byte each.
    Dht11,
    /// DHT22, also sold as AM2302, and the DHT21 or AM2301 in a larger housing: tenths in 16 bits.
    Dht22,
}

/// The names of sensors that speak as the DHT22 does (Aosong's data sheets of the AM2301 and AM2302).
const DHT22_NAMES: [&str; 4] = ["dht22", "am2302", "dht21", "am2301"];

/// The text is not a [`Model`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{text}` is not a sensor model: use dht11 or dht22 (am2302, dht21 and am2301 are read as dht22)"
)]
pub struct ModelError {
    text: String,
}

impl Model {
    /// Both models.
    pub const ALL: [Self; 2] = [Self::Dht11, Self::Dht22];

    /// The word in the configuration and on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Dht11 => "dht11",
            Self::Dht22 => "dht22",
        }
    }

    /// How long the host holds the line low to ask: 20 ms for the DHT11 (its datasheet wants at
    /// least 18 ms), 1.2 ms for the DHT22 (at least 1 ms).
    #[must_use]
    pub const fn start_signal(self) -> Duration {
        match self {
            Self::Dht11 => Duration::from_millis(20),
            Self::Dht22 => Duration::from_micros(1_200),
        }
    }

    /// Shortest time between two exchanges: 1 s for the DHT11, 2 s for the DHT22. Asked sooner,
    /// the sensor disturbs its own measurement (datasheets).
    #[must_use]
    pub const fn min_interval(self) -> Duration {
        match self {
            Self::Dht11 => Duration::from_secs(1),
            Self::Dht22 => Duration::from_secs(2),
        }
    }

    /// Whether a read returns what was measured at the previous read. The DHT22 does, so its first
    /// frame after power-up is of no known age (datasheet).
    #[must_use]
    pub const fn returns_previous(self) -> bool {
        matches!(self, Self::Dht22)
    }

    /// Plausible temperatures in tenths of a degree Celsius: −20 to 60 °C (the range of newer
    /// DHT11), −40 to 80 °C.
    #[must_use]
    pub const fn temperature_range_dc(self) -> RangeInclusive<i16> {
        match self {
            Self::Dht11 => -200..=600,
            Self::Dht22 => -400..=800,
        }
    }

    /// Plausible relative humidities in tenths of a per cent: 5 to 95 % (the range of newer
    /// DHT11), 0 to 100 %.
    #[must_use]
    pub const fn humidity_range_dp(self) -> RangeInclusive<i16> {
        match self {
            Self::Dht11 => 50..=950,
            Self::Dht22 => 0..=1_000,
        }
    }

    /// Whether both quantities are within the model's range.
    #[must_use]
    pub fn is_plausible(self, measurement: Measurement) -> bool {
        self.temperature_range_dc().contains(&measurement.temperature_dc)
            && self.humidity_range_dp().contains(&measurement.humidity_dp)
    }
}

impl FromStr for Model {
    type Err = ModelError;

    fn from_str(text: &str) -> Result<Self, ModelError> {
        if text.eq_ignore_ascii_case("dht11") {
            Ok(Self::Dht11)
        } else if DHT22_NAMES.iter().any(|name| text.eq_ignore_ascii_case(name)) {
            Ok(Self::Dht22)
        } else {
            // The text may be anything; the message shows enough of it to be found.
            Err(ModelError { text: text.chars().take(32).collect() })
        }
    }
}

impl TryFrom<String> for Model {
    type Error = ModelError;

    fn try_from(text: String) -> Result<Self, ModelError> {
        text.parse()
    }
}

impl From<Model> for String {
    fn from(model: Model) -> Self {
        model.as_str().to_owned()
    }
}

impl fmt::Display for Model {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A frame that was complete, passed its checksum and is plausible.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decoded {
    /// The frame as sent, checksum last.
    pub bytes: [u8; 5],
    /// Its measurement.
    pub measurement: Measurement,
    /// Why a sampler should rather read again, if it should.
    pub weak: Option<Weakness>,
}

/// Decodes one exchange: the edges recorded from the release on.
///
/// The list may begin with the host's own start signal, with the edge of the release, with the
/// response's low, or (one lost edge) with the response's high; it must end with the rising edge
/// that closes the last low. Nothing else is skipped or searched for.
///
/// # Errors
/// A [`Fault`] that names the first thing that is wrong.
pub fn decode(edges: &[Edge], model: Model) -> Result<Decoded, Fault> {
    let frame = pulses::lay_out(edges)?;
    let (word, weak) = bits::read(&frame)?;
    let bytes = frame::bytes_from_bits(word);
    let measurement = frame::measurement_from_bytes(bytes, model)?;
    Ok(Decoded { bytes, measurement, weak })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_is_read_in_any_case_and_by_its_other_name() {
        for (text, model) in
            [("dht11", Model::Dht11), ("DHT22", Model::Dht22), ("Am2302", Model::Dht22)]
        {
            assert_eq!(text.parse(), Ok(model), "{text}");
            assert_eq!(model.to_string().parse(), Ok(model));
        }
        for text in ["", "dht12", "dht 11", "22"] {
            let error = text.parse::<Model>().unwrap_err();
            assert!(error.to_string().contains("dht22"), "{error}");
        }
    }

    #[test]
    fn a_model_in_a_file_is_its_word() {
        assert_eq!(serde_json::to_string(&Model::Dht22).unwrap(), "\"dht22\"");
        assert_eq!(serde_json::from_str::<Model>("\"AM2302\"").unwrap(), Model::Dht22);
        assert!(serde_json::from_str::<Model>("\"bme280\"").is_err());
    }
}
