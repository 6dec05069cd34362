//! Which topics of other publishers are logged: those of the setting's filters, without what humidor publishes itself and
//! without what describes devices.

use tracing::info;

use crate::mqtt::Filter;
use crate::wire::{Discovery, is_device_description};

/// First level of humidor's own topics.
const OWN: &str = "humidor/";

/// The filters, and where Home Assistant looks for devices.
#[derive(Debug, Default)]
pub struct LoggedTopics {
    filters: Vec<Filter>,
    discovery: Option<Discovery>,
}

impl LoggedTopics {
    /// Says in the log which they are. `discovery` is where Home Assistant looks for devices; `None`: nowhere that the
    /// broker knows of.
    #[must_use]
    pub fn new(filters: Vec<Filter>, discovery: Option<Discovery>) -> Self {
        for filter in &filters {
            info!(filter = filter.as_str(), "logging foreign topics");
        }
        Self { filters, discovery }
    }

    /// Whether numbers of this topic are logged. A wildcard in front matches no topic of humidor's, as it matches none of
    /// `$SYS`: `#` means other publishers. Numbers in the description of a device are no samples.
    #[must_use]
    pub fn contains(&self, topic: &str) -> bool {
        let is_own = topic.starts_with(OWN);
        let begins_with_wildcard = |filter: &Filter| filter.parts().1.starts_with(['+', '#']);
        self.filters
            .iter()
            .any(|filter| filter.matches(topic) && !(is_own && begins_with_wildcard(filter)))
            && !is_device_description(topic)
            && !self.discovery.as_ref().is_some_and(|discovery| discovery.is_description(topic))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_humidor_publishes_and_what_describes_devices_is_no_sample() {
        let logged = |filter: &str, topic: &str| {
            let discovery = Some("homeassistant".parse().unwrap());
            LoggedTopics::new(vec![filter.parse().unwrap()], discovery).contains(topic)
        };
        for (filter, topic, expected) in [
            ("homeassistant/#", "homeassistant/sensor/hall/state", true),
            ("homeassistant/#", "homeassistant/sensor/hall/config/state", true),
            ("homeassistant/#", "homeassistant/device/humidor_press/config", false),
            ("homeassistant/#", "homeassistant/sensor/0x00158d/temperature/config", false),
            // A node with another prefix than the broker's.
            ("plant/#", "plant/ha/device/humidor_press/config", false),
            ("plant/#", "plant/press/config", true),
            ("#", "plant/press", true),
            ("#", "humidor/press/health", false),
            ("+/press/health", "humidor/press/health", false),
            ("humidor/+/health", "humidor/press/health", true),
            ("#", "$SYS/broker/uptime", false),
        ] {
            assert_eq!(logged(filter, topic), expected, "{filter} {topic}");
        }
    }
}
