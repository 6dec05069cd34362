//! Topics and filters, two lines of text: what is accepted keeps its text, and a filter that is a topic matches that alone.

#![no_main]

use humidor::mqtt::{Filter, topic_name};
use humidor::wire::{telemetry_source};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let cut = bytes.iter().position(|byte| *byte == b'\n').unwrap_or(bytes.len());
    let (filter, topic) = (&bytes[..cut], bytes.get(cut + 1..).unwrap_or_default());
    let topic = topic_name(topic);
    if let Ok(topic) = topic
        && let Some(Ok((node, sensor))) = telemetry_source(topic)
    {
        assert_eq!(topic, format!("humidor/{node}/sensor/{sensor}"));
    }
    let Ok(text) = std::str::from_utf8(filter) else { return };
    let Ok(filter) = text.parse::<Filter>() else { return };
    assert_eq!(filter.as_str(), text);
    let (share, proper) = filter.parts();
    assert_eq!(share.is_empty(), !filter.is_shared());
    assert!(filter.parts().0.len() + proper.len() == text.len());
    if let Ok(topic) = topic {
        let matches = filter.matches(topic);
        if !proper.contains(['+', '#']) {
            assert_eq!(matches, topic == proper, "{text} on {topic}");
        }
        if proper == "#" {
            assert_eq!(matches, !topic.starts_with('$'));
        }
    }
});
