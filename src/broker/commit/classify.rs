//! Classifies a PUBLISH for the log: a reading, numbers of a foreign publisher, a refusal, or nothing.

use super::logged_topics::LoggedTopics;
use crate::mqtt::Message;
use crate::store::{EXAMPLE_MAX_BYTES, Record};
use crate::wire::{Telemetry, numbers, telemetry_source};

/// Whether the log keeps a record of messages with this topic.
#[must_use]
pub fn is_logged(topic: &str, logged: &LoggedTopics) -> bool {
    telemetry_source(topic).is_some() || logged.contains(topic)
}

/// The record that the log keeps of a message, if any. `logged` are the topics of other publishers; `at_ms` is now, in
/// log time.
#[must_use]
pub fn record(message: &Message, logged: &LoggedTopics, at_ms: i64) -> Option<Record> {
    let refused = |cause| refusal(message, at_ms, cause);
    match telemetry_source(&message.topic) {
        Some(Ok((node, sensor))) => Some(match Telemetry::parse(&message.payload) {
            Ok(telemetry) => Record::Reading { node, sensor, telemetry },
            Err(error) => refused(error.name()),
        }),
        Some(Err(_)) => Some(refused("topic-id")),
        // An empty payload deletes a retained message; it has no numbers.
        None if message.payload.is_empty() => None,
        None if logged.contains(&message.topic) => Some(match numbers(&message.payload) {
            Ok(numbers) => Record::Foreign { topic: message.topic.to_string(), at_ms, numbers },
            Err(error) => refused(error.name()),
        }),
        None => None,
    }
}

/// The record of a message that the log refuses.
pub fn refusal(message: &Message, at_ms: i64, cause: &'static str) -> Record {
    Record::Refused {
        topic: message.topic.to_string(),
        at_ms,
        cause,
        payload: message.payload.slice(..message.payload.len().min(EXAMPLE_MAX_BYTES)).to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recorded(topic: &str, payload: &str) -> Option<Record> {
        let message = Message { retain: false, ..Message::own(topic, payload.to_owned()) };
        record(&message, &LoggedTopics::new(vec!["plant/#".parse().unwrap()], None), 7)
    }

    #[test]
    fn only_readings_and_logged_numbers_are_recorded() {
        let reading = r#"{"boot":"b","seq":1,"at":5,"clock":"synced","mono":1,"temperature":20}"#;
        assert!(matches!(recorded("humidor/a/sensor/s", reading), Some(Record::Reading { .. })));
        assert!(matches!(
            recorded("humidor/a/sensor/s", "20"),
            Some(Record::Refused { cause: "payload-json", .. })
        ));
        assert!(matches!(
            recorded("humidor/A/sensor/s", reading),
            Some(Record::Refused { cause: "topic-id", .. })
        ));
        assert!(matches!(recorded("plant/press", "81.5"), Some(Record::Foreign { .. })));
        assert!(matches!(recorded("plant/press", "hot"), Some(Record::Refused { .. })));
        assert!(recorded("plant/press", "").is_none());
        assert!(recorded("office/coffee", "81.5").is_none());
        assert!(recorded("humidor/a/status", "online").is_none());
    }
}
