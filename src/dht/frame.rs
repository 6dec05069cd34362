//! The five bytes of a frame and what they mean, by model, in both directions.

use super::{Fault, Model};
use crate::reading::Measurement;

/// Bit 15 of the DHT22's temperature and bit 7 of the DHT11's last data byte: below zero.
const SIGN_16: u16 = 0x8000;
const SIGN_8: u8 = 0x80;

/// The checksum: the low byte of the sum of the four bytes before it (both datasheets).
///
/// Some old DHT11 sum only bytes 0 and 2. That is not accepted beside this one: a flipped bit in a
/// tenths byte would then pass. Units that always send 0 as tenths agree with both.
#[must_use]
pub fn checksum(data: [u8; 4]) -> u8 {
    data.into_iter().fold(0, u8::wrapping_add)
}

/// The frame of 40 bits, of which the first sent is bit 39. Higher bits are dropped.
#[must_use]
pub fn bytes_from_bits(bits: u64) -> [u8; 5] {
    let [_, _, _, bytes @ ..] = bits.to_be_bytes();
    bytes
}

/// The measurement in a frame.
///
/// DHT22: humidity, then temperature, 16 bits each, in tenths. Negative temperatures are sign and
/// magnitude in the datasheet; some units send two's complement in 16 or in 12 bits. Inside the
/// model's range the three do not overlap, so the value decides.
///
/// DHT11: humidity and its tenths, then temperature and its tenths with the sign in bit 7.
///
/// # Errors
/// [`Fault::AllZero`], [`Fault::Checksum`], and [`Fault::Implausible`] for values outside of the
/// model's range and for bits that the model never sets.
pub fn measurement_from_bytes(bytes: [u8; 5], model: Model) -> Result<Measurement, Fault> {
    if bytes == [0; 5] {
        // A dead line reads so, and its checksum is right.
        return Err(Fault::AllZero);
    }
    let [a, b, c, d, sum] = bytes;
    if checksum([a, b, c, d]) != sum {
        return Err(Fault::Checksum { bytes });
    }
    let measurement = match model {
        Model::Dht11 => dht11([a, b, c, d]),
        Model::Dht22 => dht22([a, b, c, d]),
    };
    measurement
        .filter(|&measurement| model.is_plausible(measurement))
        .ok_or(Fault::Implausible { bytes })
}

fn dht11([humidity, humidity_tenths, temperature, last]: [u8; 4]) -> Option<Measurement> {
    let temperature_tenths = last & !SIGN_8;
    // The field of the last byte is its low nibble; with anything else set this is above 9 too.
    if humidity_tenths > 9 || temperature_tenths > 9 {
        return None;
    }
    let magnitude = i16::from(temperature) * 10 + i16::from(temperature_tenths);
    Some(Measurement {
        temperature_dc: if last & SIGN_8 == 0 { magnitude } else { -magnitude },
        humidity_dp: i16::from(humidity) * 10 + i16::from(humidity_tenths),
    })
}

fn dht22(
    [humidity_high, humidity_low, temperature_high, temperature_low]: [u8; 4],
) -> Option<Measurement> {
    let raw = u16::from_be_bytes([temperature_high, temperature_low]);
    let temperature_dc = match raw {
        0..=0x0320 => i16::try_from(raw).ok()?,
        SIGN_16..=0x8190 => -i16::try_from(raw & !SIGN_16).ok()?,
        0xfe70..=0xffff => raw.cast_signed(),
        0x0e70..=0x0fff => (raw | 0xf000).cast_signed(),
        _ => return None,
    };
    Some(Measurement {
        temperature_dc,
        humidity_dp: i16::try_from(u16::from_be_bytes([humidity_high, humidity_low])).ok()?,
    })
}

/// The frame of a measurement; `None` for one that the model cannot send: outside of its range, or the frame of five
/// zeros, which no decoder may take for a measurement. Negative DHT22
/// temperatures are sign and magnitude, as in the datasheet.
#[must_use]
pub fn encode(measurement: Measurement, model: Model) -> Option<[u8; 5]> {
    if !model.is_plausible(measurement) {
        return None;
    }
    let humidity = measurement.humidity_dp.unsigned_abs();
    let temperature = measurement.temperature_dc.unsigned_abs();
    let negative = measurement.temperature_dc < 0;
    let [a, b, c, d] = match model {
        Model::Dht11 => [
            u8::try_from(humidity / 10).ok()?,
            u8::try_from(humidity % 10).ok()?,
            u8::try_from(temperature / 10).ok()?,
            u8::try_from(temperature % 10).ok()? | if negative { SIGN_8 } else { 0 },
        ],
        Model::Dht22 => {
            let [a, b] = humidity.to_be_bytes();
            let [c, d] = (temperature | if negative { SIGN_16 } else { 0 }).to_be_bytes();
            [a, b, c, d]
        }
    };
    let bytes = [a, b, c, d, checksum([a, b, c, d])];
    (bytes != [0; 5]).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn summed([a, b, c, d]: [u8; 4]) -> [u8; 5] {
        [a, b, c, d, checksum([a, b, c, d])]
    }

    fn temperature(raw: u16) -> Option<i16> {
        let [c, d] = raw.to_be_bytes();
        measurement_from_bytes(summed([1, 0, c, d]), Model::Dht22).ok().map(|m| m.temperature_dc)
    }

    #[test]
    fn a_dht22_temperature_is_decided_by_its_value() {
        for (raw, expected) in [
            (0x0000, Some(0)),
            (0x0320, Some(800)),
            (0x0321, None),
            (0x0e6f, None),
            (0x0e70, Some(-400)),
            (0x0fff, Some(-1)),
            (0x1000, None),
            (0x7fff, None),
            (0x8000, Some(0)),
            (0x8001, Some(-1)),
            (0x8190, Some(-400)),
            (0x8191, None),
            (0xfe6f, None),
            (0xfe70, Some(-400)),
            (0xffff, Some(-1)),
        ] {
            assert_eq!(temperature(raw), expected, "{raw:#06x}");
        }
    }

    #[test]
    fn a_dht11_frame_has_tenths_and_a_sign() {
        for (data, expected) in [
            ([23, 0, 23, 6], Some((236, 230))),
            ([55, 9, 0, 0x85], Some((-5, 559))),
            ([55, 0, 20, 0x80], Some((-200, 550))),
            ([55, 0, 20, 0x81], None),
            ([55, 0, 0, 0x80], Some((0, 550))),
            ([5, 0, 60, 0], Some((600, 50))),
            ([5, 0, 60, 1], None),
            ([4, 9, 20, 0], None),
            ([95, 0, 20, 0], Some((200, 950))),
            ([95, 1, 20, 0], None),
            ([55, 10, 20, 0], None),
            ([55, 0, 20, 10], None),
            ([55, 0, 20, 0x10], None),
            ([55, 0, 20, 0x40], None),
        ] {
            let decoded = measurement_from_bytes(summed(data), Model::Dht11).ok();
            assert_eq!(decoded.map(|m| (m.temperature_dc, m.humidity_dp)), expected, "{data:?}");
        }
    }

    #[test]
    fn five_zeros_are_refused_although_their_sum_is_right() {
        for model in Model::ALL {
            assert_eq!(measurement_from_bytes([0; 5], model), Err(Fault::AllZero));
        }
        let zero = Measurement { temperature_dc: 0, humidity_dp: 0 };
        assert_eq!(encode(zero, Model::Dht22), None);
    }

    #[test]
    fn the_sum_of_two_bytes_is_no_checksum() {
        // 55.1 % with the tenths' bit flipped on the way: the sum of bytes 0 and 2 would hide it.
        let bytes = [55, 1, 23, 0, 55 + 23];
        assert_eq!(measurement_from_bytes(bytes, Model::Dht11), Err(Fault::Checksum { bytes }));
    }

    #[test]
    fn what_a_model_cannot_measure_is_not_encoded() {
        let at = |temperature_dc, humidity_dp| Measurement { temperature_dc, humidity_dp };
        for (model, measurement) in [
            (Model::Dht11, at(601, 500)),
            (Model::Dht11, at(-201, 500)),
            (Model::Dht11, at(200, 49)),
            (Model::Dht22, at(801, 500)),
            (Model::Dht22, at(200, 1_001)),
            (Model::Dht22, at(200, -1)),
            (Model::Dht22, at(i16::MIN, i16::MIN)),
        ] {
            assert_eq!(encode(measurement, model), None, "{model} {measurement:?}");
        }
    }
}
