//! Medians, their spread, and quantiles.

use std::time::Duration;

use super::round;

/// The same figure from several rounds.
#[derive(Debug, Clone, Copy)]
pub struct Spread {
    pub median: f64,
    pub min: f64,
    pub max: f64,
}

impl Spread {
    /// Of at least one value.
    pub fn of(mut values: Vec<f64>) -> Self {
        values.sort_by(f64::total_cmp);
        let middle = values.len() / 2;
        let median = if values.len() % 2 == 1 {
            values[middle]
        } else {
            values[middle - 1].midpoint(values[middle])
        };
        Self { median, min: values[0], max: values[values.len() - 1] }
    }
}

/// A quantile of sorted times, in ms.
pub fn ms(sorted: &[Duration], share: f64) -> f64 {
    #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let index = ((sorted.len() as f64 * share) as usize).min(sorted.len() - 1);
    round(sorted[index].as_secs_f64() * 1e3, 2)
}
