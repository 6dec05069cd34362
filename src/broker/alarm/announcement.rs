//! What the broker publishes of its alarms: their states, and their discovery by Home Assistant.

use std::collections::BTreeSet;

use crate::mqtt::Message;
use crate::reading::Id;
use crate::wire::{
    BROKER_DEVICE_ID, BROKER_STATUS, Component, Device, Platform, Switch, alarm_topic,
};

/// The retained state of an alarm.
pub fn state_message(name: &Id, raised: bool) -> Message {
    let state = if raised { Switch::On } else { Switch::Off };
    Message::own(alarm_topic(name), state.as_str())
}

/// The device discovery of the broker's alarms for Home Assistant. A component with nothing but its platform is
/// removed there.
pub fn announcement(known: &BTreeSet<Id>, gone: &[Id]) -> Vec<u8> {
    if known.is_empty() {
        return Vec::new();
    }
    let mut device = Device::new(
        BROKER_DEVICE_ID.to_owned(),
        "humidor alarms".to_owned(),
        "broker",
        vec![BROKER_STATUS.to_owned()],
    );
    for name in gone {
        device.add(format!("alarm_{name}"), Component::removed(Platform::BinarySensor));
    }
    for name in known {
        let id = format!("humidor_alarm_{name}");
        let platform = Platform::BinarySensor;
        let alarm = Component::new(platform, name.to_string(), id, alarm_topic(name));
        device.add(format!("alarm_{name}"), Component { device_class: Some("problem"), ..alarm });
    }
    device.to_json()
}
