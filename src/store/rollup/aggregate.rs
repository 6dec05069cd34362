//! Aggregates of numbers: count, sum, minimum and maximum, as a roll-up keeps them and a chart shows them.

/// The values within one step of a chart.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub struct Band {
    /// Minimum.
    pub min: f64,
    /// Mean.
    pub mean: f64,
    /// Maximum.
    pub max: f64,
}

/// Count, sum, minimum and maximum of the numbers added so far.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(in crate::store) struct Aggregate {
    pub count: i64,
    pub sum: f64,
    pub min: f64,
    pub max: f64,
}

impl Aggregate {
    pub const EMPTY: Self = Self { count: 0, sum: 0.0, min: f64::INFINITY, max: f64::NEG_INFINITY };

    pub fn add(&mut self, value: f64) {
        self.merge(&Self { count: 1, sum: value, min: value, max: value });
    }

    pub fn merge(&mut self, other: &Self) {
        self.count += other.count;
        self.sum += other.sum;
        self.min = self.min.min(other.min);
        self.max = self.max.max(other.max);
    }

    /// Minimum, mean and maximum; `None` when there is no number.
    pub fn band(&self) -> Option<Band> {
        // Counts stay far below 2^53.
        #[expect(clippy::cast_precision_loss)]
        let mean = self.sum / self.count as f64;
        (self.count > 0).then_some(Band { min: self.min, mean, max: self.max })
    }
}

/// The rows of one series within one span of time, aggregated: `N` values a row.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(in crate::store) struct Bucket<const N: usize> {
    /// Start of the span, Unix ms.
    pub at: i64,
    /// Rows.
    pub count: i64,
    /// One a value, in the order of the columns.
    pub aggregates: [Aggregate; N],
}

impl<const N: usize> Bucket<N> {
    /// A bucket without rows.
    pub const fn empty(at: i64) -> Self {
        Self { at, count: 0, aggregates: [Aggregate::EMPTY; N] }
    }

    /// The bucket of a single row.
    pub fn row(at: i64, values: [Option<f64>; N]) -> Self {
        let mut row = Self { count: 1, ..Self::empty(at) };
        for (aggregate, value) in row.aggregates.iter_mut().zip(values) {
            if let Some(value) = value {
                aggregate.add(value);
            }
        }
        row
    }

    pub fn merge(&mut self, other: &Self) {
        self.count += other.count;
        for (mine, theirs) in self.aggregates.iter_mut().zip(&other.aggregates) {
            mine.merge(theirs);
        }
    }
}

/// Start of the span of `step_ms` that `at` lies in. Spans count from 1970, so that they are the same
/// whatever range is asked for.
pub(in crate::store) fn start_of(at: i64, step_ms: i64) -> i64 {
    at.div_euclid(step_ms).saturating_mul(step_ms)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_band_is_minimum_mean_and_maximum() {
        let mut aggregate = Aggregate::EMPTY;
        assert_eq!(aggregate.band(), None);
        for value in [21.0, -3.0, 6.0] {
            aggregate.add(value);
        }
        assert_eq!(aggregate.band(), Some(Band { min: -3.0, mean: 8.0, max: 21.0 }));
    }

    #[test]
    fn spans_before_1970_begin_at_their_start_too() {
        assert_eq!(start_of(61_000, 60_000), 60_000);
        assert_eq!(start_of(-1, 60_000), -60_000);
        assert_eq!(start_of(i64::MIN, 7), i64::MIN);
    }
}
