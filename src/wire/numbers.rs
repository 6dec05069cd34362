//! The numbers in other publishers' messages: a plain number, or those in a JSON object, up to two levels down, under
//! dotted names. A member that is no number costs itself, not the message.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::payload::PAYLOAD_MAX_BYTES;

/// Longest dotted name that is kept, in bytes.
pub const FIELD_MAX_BYTES: usize = 128;
/// Most numbers taken from one message; further ones are left out.
pub const NUMBERS_MAX: usize = 64;
/// Most names before a number: those of the object in the payload, of an object in it, and of one in that.
const NAMES_MAX: usize = 3;
/// Longest text that is taken for one that was meant as a number, and longest unit in it, in bytes.
const NEAR_MAX_BYTES: usize = 40;
const UNIT_MAX_BYTES: usize = 12;

/// The numbers found in a message.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Numbers {
    /// Name and value, in the order of the message. The name of a plain number is empty; names of nested members are
    /// joined by dots (`AM2301.Temperature`), items of an array have their index (`Power.0`).
    pub found: Vec<(String, f64)>,
    /// Texts, booleans and nulls, which are no numbers.
    pub texts: u64,
    /// The first of the texts that was meant as a number, if any was.
    pub near: Option<Box<NearNumber>>,
    /// What may have been a number and is not kept: not finite (`NaN`, `1e400`), in an object further down, under a name
    /// over [`FIELD_MAX_BYTES`] or one that was there already, or beyond [`NUMBERS_MAX`].
    pub left_out: u64,
}

/// A text that was meant as a number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NearNumber {
    /// Its name, as in [`Numbers::found`].
    pub field: String,
    /// The text as it came.
    pub came: String,
    /// The number as it would be kept.
    pub meant: String,
}

impl From<Vec<(String, f64)>> for Numbers {
    fn from(found: Vec<(String, f64)>) -> Self {
        Self { found, ..Self::default() }
    }
}

/// Why there was nothing to keep in a foreign message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NumberError {
    /// More than [`PAYLOAD_MAX_BYTES`].
    #[error("payload over {PAYLOAD_MAX_BYTES} bytes")]
    Large,
    /// Text, an array, or an object without numbers.
    #[error("no number in the payload")]
    None,
    /// Nothing but NaN, an infinity, or a number beyond the largest double.
    #[error("a number in the payload is not finite")]
    NotFinite,
}

impl NumberError {
    /// A short name to count by.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Large => "payload-large",
            Self::None => "foreign-no-number",
            Self::NotFinite => "foreign-not-finite",
        }
    }
}

/// The numbers of a foreign payload: a plain decimal number, or those of a JSON object up to two levels down
/// (`{"AM2301":{"Temperature":21.5},"TempUnit":"C"}` gives `AM2301.Temperature`).
///
/// # Errors
/// [`NumberError`] when there is nothing to keep.
pub fn numbers(payload: &[u8]) -> Result<Numbers, NumberError> {
    if payload.len() > PAYLOAD_MAX_BYTES {
        return Err(NumberError::Large);
    }
    let text = std::str::from_utf8(payload).map_err(|_| NumberError::None)?;
    let text = text.trim_start_matches('\u{feff}').trim();
    // `parse` also takes "inf" and "nan", which are no measurements.
    if let Ok(number) = text.parse::<f64>() {
        return if number.is_finite() {
            Ok(Numbers { found: vec![(String::new(), number)], ..Numbers::default() })
        } else {
            Err(NumberError::NotFinite)
        };
    }
    if !text.starts_with('{') {
        return Err(NumberError::None);
    }
    if let Some(numbers) = object(text) {
        return if numbers.found.is_empty() { Err(NumberError::None) } else { Ok(numbers) };
    }
    let (mended, not_finite) = without_non_finite(text);
    let mut numbers = object(&mended).filter(|_| not_finite > 0).ok_or(NumberError::None)?;
    numbers.left_out += not_finite;
    if numbers.found.is_empty() { Err(NumberError::NotFinite) } else { Ok(numbers) }
}

/// What was meant as a number in a payload of which nothing is kept.
#[must_use]
pub fn near_number(payload: &[u8]) -> Option<NearNumber> {
    let text = std::str::from_utf8(payload).ok()?.trim_start_matches('\u{feff}').trim();
    if text.starts_with('{') {
        let mut numbers = Numbers::default();
        let mut json = serde_json::Deserializer::from_str(text);
        let mut path = String::new();
        let members = Members { numbers: &mut numbers, path: &mut path, names: 0 };
        let _ = json.deserialize_map(members);
        return numbers.near.map(|near| *near);
    }
    let bare = text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(text);
    let meant = meant(bare)?;
    Some(NearNumber { field: String::new(), came: text.to_owned(), meant })
}

/// The number that a text means: with a decimal comma, with a unit, or one that is in quotes. A date, a time, an address and
/// a sentence are none.
fn meant(text: &str) -> Option<String> {
    if text.len() > NEAR_MAX_BYTES {
        return None;
    }
    let text = text.trim();
    let (sign, rest) = match text.strip_prefix(['-', '−']) {
        Some(rest) => ("-", rest),
        None => ("", text.strip_prefix('+').unwrap_or(text)),
    };
    if !rest.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    let digits = |text: &str| text.bytes().take_while(u8::is_ascii_digit).count();
    let (whole, mut unit) = rest.split_at(digits(rest));
    let mut fraction = None;
    for separator in ['.', ','] {
        if let Some(after) = unit.strip_prefix(separator).filter(|after| digits(after) > 0) {
            fraction = Some((separator, &after[..digits(after)]));
            unit = &after[digits(after)..];
            break;
        }
    }
    let unit = unit.trim();
    let is_more = |c: char| c.is_numeric() || c.is_whitespace() || ",.:;-".contains(c);
    if unit.len() > UNIT_MAX_BYTES || unit.contains(is_more) {
        return None;
    }
    Some(match fraction {
        None => format!("{sign}{whole}"),
        // A thousand, or one and a quarter: only its publisher knows.
        Some((',', fraction)) if fraction.len() == 3 => {
            format!("{sign}{whole}.{fraction} or {sign}{whole}{fraction}")
        }
        Some((_, fraction)) => format!("{sign}{whole}.{fraction}"),
    })
}

/// The numbers of a JSON object; `None` when it is none.
fn object(text: &str) -> Option<Numbers> {
    let (mut numbers, mut path) = (Numbers::default(), String::new());
    let mut json = serde_json::Deserializer::from_str(text);
    json.deserialize_map(Members { numbers: &mut numbers, path: &mut path, names: 0 }).ok()?;
    json.end().ok()?;
    Some(numbers)
}

/// The text with an empty object in place of each bare word that Rust reads as a number that is not finite: JSON has no
/// `NaN`, which Python and C print, and `1e400` does not fit. Also how many there were.
fn without_non_finite(text: &str) -> (Cow<'_, str>, u64) {
    let (mut mended, mut copied, mut count) = (String::new(), 0, 0);
    let (mut quoted, mut escaped, mut word) = (false, false, None);
    for (at, byte) in text.bytes().enumerate() {
        let in_word =
            !quoted && (byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.'));
        if in_word {
            word.get_or_insert(at);
            continue;
        }
        if let Some(start) = word.take()
            && text[start..at].parse::<f64>().is_ok_and(|number| !number.is_finite())
        {
            mended.push_str(&text[copied..start]);
            mended.push_str("{}");
            (copied, count) = (at, count + 1);
        }
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = quoted,
            b'"' => quoted = !quoted,
            _ => {}
        }
    }
    if count == 0 {
        return (text.into(), 0);
    }
    mended.push_str(&text[copied..]);
    (mended.into(), count)
}

/// Takes the members of an object, or the items of an array, under the names in `path`.
struct Members<'a> {
    numbers: &'a mut Numbers,
    path: &'a mut String,
    /// How many names are in `path`.
    names: usize,
}

impl Members<'_> {
    /// The value of the member with the name at the end of `path`.
    const fn value(&mut self) -> Members<'_> {
        Members { numbers: &mut *self.numbers, path: &mut *self.path, names: self.names + 1 }
    }

    fn push(self, number: f64) {
        let found = &mut self.numbers.found;
        let fits = self.path.len() <= FIELD_MAX_BYTES && found.len() < NUMBERS_MAX;
        if number.is_finite() && fits && !found.iter().any(|(name, _)| name == self.path) {
            found.push((self.path.clone(), number));
        } else {
            self.numbers.left_out += 1;
        }
    }
}

impl<'de> DeserializeSeed<'de> for Members<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Members<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<(), E> {
        self.push(number);
        Ok(())
    }

    // A counter beyond 2^53 loses its last digits, as the log's column does.
    #[allow(clippy::cast_precision_loss)]
    fn visit_u64<E: Error>(self, number: u64) -> Result<(), E> {
        self.visit_f64(number as f64)
    }

    #[allow(clippy::cast_precision_loss)]
    fn visit_i64<E: Error>(self, number: i64) -> Result<(), E> {
        self.visit_f64(number as f64)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<(), E> {
        self.numbers.texts += 1;
        if self.numbers.near.is_none()
            && self.path.len() <= FIELD_MAX_BYTES
            && let Some(meant) = meant(text)
        {
            let (field, came) = (self.path.clone(), format!("\"{text}\""));
            self.numbers.near = Some(Box::new(NearNumber { field, came, meant }));
        }
        Ok(())
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<(), E> {
        self.visit_str("")
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        self.visit_str("")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut members: A) -> Result<(), A::Error> {
        let length = self.path.len();
        while let Some(name) = members.next_key::<Cow<'_, str>>()? {
            if self.names == NAMES_MAX {
                self.numbers.left_out += 1;
                members.next_value::<IgnoredAny>()?;
                continue;
            }
            if self.names > 0 {
                self.path.push('.');
            }
            self.path.push_str(&name);
            members.next_value_seed(self.value())?;
            self.path.truncate(length);
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut items: A) -> Result<(), A::Error> {
        use fmt::Write as _;

        let length = self.path.len();
        if self.names == NAMES_MAX {
            while items.next_element::<IgnoredAny>()?.is_some() {
                self.numbers.left_out += 1;
            }
            return Ok(());
        }
        for index in 0_usize.. {
            let _ = write!(self.path, ".{index}");
            let more = items.next_element_seed(self.value())?.is_some();
            self.path.truncate(length);
            if !more {
                break;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(payload: &str) -> Vec<(String, f64)> {
        numbers(payload.as_bytes()).map(|numbers| numbers.found).unwrap_or_default()
    }

    fn names(payload: &str) -> String {
        let names: Vec<String> =
            found(payload).into_iter().map(|(name, value)| format!("{name}={value}")).collect();
        names.join(" ")
    }

    #[test]
    fn numbers_are_found_in_plain_payloads_and_in_objects() {
        assert_eq!(found(" 81.5\n"), [(String::new(), 81.5)]);
        assert_eq!(names(r#"{"t":1,"on":true,"u":"C","n":{"x":-2}}"#), "t=1 n.x=-2");
        for nothing in [
            "",
            "ON",
            "[1]",
            "{}",
            "null",
            "\"5\"",
            r#"{"NaN":"NaN"}"#,
            "{NaN}",
            "{\"t\":1",
            r#"{"t":1} x"#,
            r#"{"t":1,}"#,
            r#"{"a":{"b":{"c":{"d":1}}}}"#,
        ] {
            assert_eq!(numbers(nothing.as_bytes()), Err(NumberError::None), "{nothing}");
        }
        let large = format!("{{\"t\":1,\"u\":\"{}\"}}", "x".repeat(PAYLOAD_MAX_BYTES));
        assert_eq!(numbers(large.as_bytes()), Err(NumberError::Large));
    }

    #[test]
    fn a_member_that_is_no_number_costs_itself() {
        let python =
            r#"{"a":NaN,"b":1e400,"c":"NaN \" 1e400","d":-Infinity,"e":{"f":2,"g":null},"h":nan}"#;
        let numbers = numbers(python.as_bytes()).unwrap();
        assert_eq!(numbers.found, [("e.f".to_owned(), 2.0)]);
        assert_eq!((numbers.texts, numbers.left_out), (2, 4));
    }

    #[test]
    fn a_text_that_is_meant_as_a_number_is_told_with_the_number() {
        for (payload, expected) in [
            ("21,5", ("", "21,5", "21.5")),
            ("21.5 °C", ("", "21.5 °C", "21.5")),
            ("\"21.5 °C\"", ("", "\"21.5 °C\"", "21.5")),
            ("\"7\"", ("", "\"7\"", "7")),
            (" −3,25%", ("", "−3,25%", "-3.25")),
            ("1,234", ("", "1,234", "1.234 or 1234")),
            ("12 km/h", ("", "12 km/h", "12")),
            (r#"{"time":"2026-02-11T07:31:04","a":{"t":"21,5"}}"#, ("a.t", "\"21,5\"", "21.5")),
        ] {
            let NearNumber { field, came, meant } = near_number(payload.as_bytes()).unwrap();
            assert_eq!((field.as_str(), came.as_str(), meant.as_str()), expected, "{payload}");
            assert_eq!(numbers(payload.as_bytes()), Err(NumberError::None), "{payload}");
        }
        for none in [
            "",
            "ON",
            "3T04:05:06",
            "2026-02-11",
            "12:30",
            "192.168.1.1",
            "01131B123456",
            "3 new messages",
            "1.2.3",
            "{}",
            "-",
            "١٢",
            "21.5 °C °C °C",
            "[21,5]",
        ] {
            assert_eq!(near_number(none.as_bytes()), None, "{none}");
        }
        let beside = numbers(br#"{"rssi":-58,"t":"21,5","u":"7"}"#).unwrap();
        assert_eq!((beside.found.len(), beside.texts), (1, 2));
        assert_eq!(beside.near.unwrap().field, "t");
    }

    #[test]
    fn what_is_beyond_a_bound_is_left_out_and_counted() {
        let deep = numbers(br#"{"a":{"b":{"c":1,"d":{"e":2},"f":[3,4]}}}"#).unwrap();
        assert_eq!((deep.found, deep.left_out), (vec![("a.b.c".to_owned(), 1.0)], 3));
        let many: Vec<String> = (0..NUMBERS_MAX + 3).map(|n| format!("\"n{n}\":{n}")).collect();
        let many = numbers(format!("{{{}}}", many.join(",")).as_bytes()).unwrap();
        assert_eq!((many.found.len(), many.left_out), (NUMBERS_MAX, 3));
        let long = format!(r#"{{"t":1,"{}":{{"x":2}}}}"#, "n".repeat(FIELD_MAX_BYTES));
        let long = numbers(long.as_bytes()).unwrap();
        assert_eq!((long.found.len(), long.left_out), (1, 1));
        let twice = numbers(br#"{"a.b":1,"a":{"b":2},"c":1,"c":3}"#).unwrap();
        assert_eq!((twice.found.len(), twice.left_out), (2, 2));
    }

    /// What devices publish, in the form of their documents' examples: each number has the name that its owner knows.
    #[test]
    fn numbers_of_usual_publishers_have_the_names_that_their_owners_know() {
        for (payload, expected) in [
            // Tasmota: tele/+/SENSOR, tele/+/STATE.
            (
                r#"{"Time":"2026-02-11T07:31:04","AM2301":{"Temperature":19.3,"Humidity":61.2,"DewPoint":11.7},"TempUnit":"C"}"#,
                "AM2301.Temperature=19.3 AM2301.Humidity=61.2 AM2301.DewPoint=11.7",
            ),
            (
                r#"{"Time":"2026-02-11T07:31:04","DS18B20-1":{"Id":"01131B123456","Temperature":58.4},"DS18B20-2":{"Id":"01131B654321","Temperature":44.1},"TempUnit":"C"}"#,
                "DS18B20-1.Temperature=58.4 DS18B20-2.Temperature=44.1",
            ),
            (
                r#"{"Time":"2026-02-11T07:31:04","ENERGY":{"TotalStartTime":"2025-11-01T00:00:00","Total":81.402,"Power":[212,0],"Factor":0.93,"Voltage":231}}"#,
                "ENERGY.Total=81.402 ENERGY.Power.0=212 ENERGY.Power.1=0 ENERGY.Factor=0.93 ENERGY.Voltage=231",
            ),
            (
                r#"{"Time":"2026-02-11T07:31:04","BME280":{"Temperature":22.8,"Humidity":40.9,"Pressure":1011.6},"PressureUnit":"hPa","TempUnit":"C"}"#,
                "BME280.Temperature=22.8 BME280.Humidity=40.9 BME280.Pressure=1011.6",
            ),
            (
                r#"{"Time":"2026-02-11T07:31:04","Uptime":"3T04:05:06","Heap":24,"LoadAvg":19,"POWER":"ON","Wifi":{"AP":1,"SSId":"hall","RSSI":84,"Signal":-58}}"#,
                "Heap=24 LoadAvg=19 Wifi.AP=1 Wifi.RSSI=84 Wifi.Signal=-58",
            ),
            // zigbee2mqtt: zigbee2mqtt/FRIENDLY_NAME.
            (
                r#"{"battery":91,"humidity":52.14,"linkquality":120,"pressure":998.2,"temperature":20.71,"voltage":2995}"#,
                "battery=91 humidity=52.14 linkquality=120 pressure=998.2 temperature=20.71 voltage=2995",
            ),
            (r#"{"contact":false,"battery":77,"linkquality":48}"#, "battery=77 linkquality=48"),
            (
                r#"{"state":"ON","brightness":180,"color":{"x":0.41,"y":0.39},"color_mode":"xy","update":{"state":"idle","installed_version":16780297,"latest_version":16780297}}"#,
                "brightness=180 color.x=0.41 color.y=0.39 update.installed_version=16780297 update.latest_version=16780297",
            ),
            (
                r#"{"power":41.7,"current":0.19,"voltage":229,"energy":12.08,"state":"ON","power_outage_memory":null}"#,
                "power=41.7 current=0.19 voltage=229 energy=12.08",
            ),
            (
                r#"{"occupancy":true,"illuminance":38,"device":{"friendlyName":"gate","networkAddress":4711},"last_seen":"2026-02-11T07:31:04Z"}"#,
                "illuminance=38 device.networkAddress=4711",
            ),
            // ESPHome: PREFIX/sensor/NAME/state, and its JSON events.
            ("23.4", "=23.4"),
            ("-7", "=-7"),
            ("1013.25", "=1013.25"),
            ("0.000", "=0"),
            (r#"{"key":{"temperature":18.9,"ok":true}}"#, "key.temperature=18.9"),
            // Shelly: shellies/…, and status and events/rpc of the second generation.
            ("17.88", "=17.88"),
            (
                r#"{"id":0,"source":"timer","output":true,"apower":9.1,"voltage":231.4,"current":0.041,"aenergy":{"total":7.31,"by_minute":[51.2,49.8,90.1],"minute_ts":1770000000},"temperature":{"tC":31.5,"tF":88.7}}"#,
                "id=0 apower=9.1 voltage=231.4 current=0.041 aenergy.total=7.31 aenergy.by_minute.0=51.2 aenergy.by_minute.1=49.8 aenergy.by_minute.2=90.1 aenergy.minute_ts=1770000000 temperature.tC=31.5 temperature.tF=88.7",
            ),
            (
                r#"{"src":"shellyplusht-1","dst":"hall/events","method":"NotifyStatus","params":{"ts":1770000000.5,"temperature:0":{"id":0,"tC":20.4,"tF":68.7}}}"#,
                "params.ts=1770000000.5 params.temperature:0.id=0 params.temperature:0.tC=20.4 params.temperature:0.tF=68.7",
            ),
            (r#"{"id":0,"rh":47.9,"errors":null}"#, "id=0 rh=47.9"),
            (
                r#"{"wifi_sta":{"connected":true,"rssi":-63},"tmp":{"value":21.75,"units":"C","is_valid":true},"bat":{"value":88}}"#,
                "wifi_sta.rssi=-63 tmp.value=21.75 bat.value=88",
            ),
            // Home Assistant's statestream: PREFIX/sensor/NAME/state and its attributes.
            ("21.6", "=21.6"),
            ("440", "=440"),
            ("1.25e-3", "=0.00125"),
            ("\n64.0", "=64"),
            (r#"{"min":7,"max":35,"step":0.5,"mode":"auto"}"#, "min=7 max=35 step=0.5"),
        ] {
            assert_eq!(names(payload), expected, "{payload}");
        }
    }

    #[test]
    fn numbers_that_are_not_finite_are_refused_by_name() {
        for spelled in ["NaN", "Infinity", "-Infinity", "1e999", "-1e999", "1.8e308"] {
            let alone = format!(r#"{{"t":{spelled}}}"#);
            assert_eq!(numbers(alone.as_bytes()), Err(NumberError::NotFinite), "{alone}");
            let beside = format!("{{\"a\":1,\n \"t\" : {spelled} }}");
            assert_eq!(found(&beside), [("a".to_owned(), 1.0)], "{beside}");
        }
        for plain in ["nan", "NaN", "inf", "-inf", "Infinity", "1e999"] {
            assert_eq!(numbers(plain.as_bytes()), Err(NumberError::NotFinite), "{plain}");
        }
    }

    /// To the last bit, from either form.
    #[test]
    fn every_finite_double_arrives_as_it_was_sent() {
        let numbers_of = [
            f64::MAX,
            -f64::MAX,
            f64::MIN_POSITIVE,
            f64::MIN_POSITIVE / 2.0,
            5e-324,
            -5e-324,
            0.0,
            -0.0,
            9_007_199_254_740_993.0,
            1.797e308,
            0.1 + 0.2,
            123_456_789.123_456_79,
            1e23,
            8.5e-310,
        ];
        for number in numbers_of {
            for text in [format!("{number}"), format!("{number:e}")] {
                let found =
                    [numbers(text.as_bytes()), numbers(format!(r#"{{"":{text}}}"#).as_bytes())];
                for found in found {
                    assert_eq!(found.unwrap().found[0].1.to_bits(), number.to_bits(), "{text}");
                }
            }
        }
        // Integers above 2^53 become the nearest double.
        for (text, nearest) in [
            ("9007199254740993", 9_007_199_254_740_992.0),
            ("18446744073709551615", 18_446_744_073_709_551_616.0_f64),
        ] {
            let found = numbers(format!(r#"{{"n":{text}}}"#).as_bytes()).unwrap().found[0].1;
            assert_eq!(found.to_bits(), f64::to_bits(nearest), "{text}");
        }
    }
}
