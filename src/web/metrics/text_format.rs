//! Series of a registry, and its text as every Prometheus reads it.

use std::fmt;
use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// Label names and values of one series.
pub type Labels = Vec<(&'static str, String)>;
pub type GaugeFamily = Family<Labels, Gauge<f64, AtomicU64>>;
pub type CounterFamily = Family<Labels, Counter>;

/// Registers a gauge without labels.
pub fn gauge(registry: &mut Registry, name: &str, help: &str, value: f64) {
    let gauge = Gauge::<f64, AtomicU64>::default();
    gauge.set(value);
    registry.register(name, help, gauge);
}

/// Registers a counter without labels.
pub fn counter(registry: &mut Registry, name: &str, help: &str, value: u64) {
    let counter: Counter = Counter::default();
    counter.inc_by(value);
    registry.register(name, help, counter);
}

/// The text of all series.
///
/// # Errors
/// A series that cannot be written.
pub fn text(registry: &Registry) -> Result<String, fmt::Error> {
    let mut text = String::new();
    encode(&mut text, registry)?;
    Ok(classic(&text))
}

/// Turns `OpenMetrics` into the text format 0.0.4, which every Prometheus and promtool read: a counter's family is
/// named like its samples, with `_total`, and there is no end marker.
fn classic(text: &str) -> String {
    let counters: Vec<&str> = text
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.strip_suffix(" counter"))
        .collect();
    let mut classic = String::with_capacity(text.len() + 64 * counters.len());
    for line in text.lines().filter(|line| *line != "# EOF") {
        let family = line.strip_prefix("# ").and_then(|rest| rest.split(' ').nth(1));
        match family {
            Some(name) if counters.contains(&name) => {
                classic.push_str(&line.replacen(name, &format!("{name}_total"), 1));
            }
            _ => classic.push_str(line),
        }
        classic.push('\n');
    }
    classic
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counters_family_is_named_like_its_samples() {
        let mut registry = Registry::with_prefix("humidor");
        counter(&mut registry, "commits", "Transactions", 7);
        gauge(&mut registry, "clients", "Connected", 2.0);
        assert_eq!(
            text(&registry).unwrap(),
            "# HELP humidor_commits_total Transactions.\n# TYPE humidor_commits_total counter\nhumidor_commits_total 7\n\
             # HELP humidor_clients Connected.\n# TYPE humidor_clients gauge\nhumidor_clients 2.0\n"
        );
    }
}
