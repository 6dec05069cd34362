//! Sensors, boards and alarms.

use prometheus_client::registry::Registry;

use super::text_format::{CounterFamily, GaugeFamily};
use crate::broker::Alarms;
use crate::reading::ClockState;
use crate::store::{Overview, Reading};
use crate::web::auth::Identity;
use crate::web::live::boards::Status;
use crate::web::live::feed::Feed;
use crate::web::live::visible::visible_boards;

#[expect(clippy::cast_precision_loss)] // ms of this century are far below 2^53
pub fn register_sensors(
    registry: &mut Registry,
    overview: &Overview,
    now_ms: i64,
    identity: &Identity,
) {
    let (age, temperature, humidity) = <(GaugeFamily, GaugeFamily, GaugeFamily)>::default();
    let visible = |latest: &&Reading| identity.may_read_sensor(&latest.node, &latest.sensor);
    let latest = overview.sensors.iter().filter_map(|found| found.latest.as_ref());
    for latest in latest.filter(visible) {
        let labels = vec![("node", latest.node.clone()), ("sensor", latest.sensor.clone())];
        // Stamped by a clock that was never set, its age is not known.
        if latest.clock != ClockState::Unsynced.as_str() {
            // One that is ahead has just come, as far as anybody knows.
            let age_ms = now_ms.saturating_sub(latest.at).max(0);
            age.get_or_create(&labels).set(age_ms as f64 / 1000.0);
        }
        if let Some(value) = latest.temperature {
            temperature.get_or_create(&labels).set(value);
        }
        if let Some(value) = latest.humidity {
            humidity.get_or_create(&labels).set(value);
        }
    }
    registry.register(
        "reading_age_seconds",
        "Age of the latest reading, where its board's clock was set",
        age,
    );
    registry.register("temperature_celsius", "Latest temperature", temperature);
    registry.register("humidity_percent", "Latest relative humidity", humidity);
}

#[expect(clippy::cast_precision_loss)] // an outbox holds ten million readings at most
pub fn register_boards(registry: &mut Registry, feed: &Feed, identity: &Identity) {
    let (online, outbox) = <(GaugeFamily, GaugeFamily)>::default();
    let (dropped, failures) = <(CounterFamily, CounterFamily)>::default();
    for (node, board) in visible_boards(&feed.boards(), identity) {
        let labels = vec![("node", node.to_string())];
        if let Some(status) = board.status {
            online.get_or_create(&labels).set(f64::from(u8::from(status == Status::Online)));
        }
        let Some(health) = &board.health else { continue };
        outbox.get_or_create(&labels).set(health.outbox as f64);
        dropped.get_or_create(&labels).inc_by(health.dropped);
        for (sensor, causes) in &health.failures {
            for (cause, count) in causes {
                let labels = vec![
                    ("node", node.to_string()),
                    ("sensor", sensor.clone()),
                    ("cause", cause.clone()),
                ];
                failures.get_or_create(&labels).inc_by(*count);
            }
        }
    }
    registry.register("board_online", "1 while the board is connected, else 0", online);
    registry.register("board_outbox", "Readings waiting in the board's outbox", outbox);
    registry.register(
        "board_readings_dropped",
        "Readings lost because the board's outbox was full, since the outbox was created",
        dropped,
    );
    registry.register(
        "board_read_failures",
        "Failed reads of a sensor since the node started",
        failures,
    );
}

pub fn register_alarms(registry: &mut Registry, alarms: &Alarms, identity: &Identity) {
    let (raised, times) = <(GaugeFamily, CounterFamily)>::default();
    for alarm in alarms.states().iter().filter(|alarm| identity.may_read_alarm(&alarm.name)) {
        let labels = vec![("alarm", alarm.name.to_string())];
        raised.get_or_create(&labels).set(f64::from(u8::from(alarm.raised)));
        times.get_or_create(&labels).inc_by(alarm.raised_count);
    }
    registry.register("alarm_raised", "1 while the alarm is raised, else 0", raised);
    registry.register(
        "alarm_raises",
        "Times that the alarm was raised since the broker started",
        times,
    );
}
