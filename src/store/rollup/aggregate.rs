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

/// What the mean of a span follows from.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(in crate::store) enum Total {
    /// The sum, while a double holds it.
    Sum(f64),
    /// The mean of numbers whose sum no double holds.
    Mean(f64),
    /// Not known: an earlier version has stored a sum that was no number.
    Unknown,
}

impl Total {
    /// The sum as it is stored, if it is one.
    pub fn of_sum(sum: Option<f64>) -> Self {
        sum.filter(|sum| sum.is_finite()).map_or(Self::Unknown, Self::Sum)
    }

    /// The mean of `count` numbers.
    // Counts stay far below 2^53.
    #[expect(clippy::cast_precision_loss)]
    fn mean(self, count: i64) -> Option<f64> {
        match self {
            Self::Sum(sum) => Some(sum / count as f64),
            Self::Mean(mean) => Some(mean),
            Self::Unknown => None,
        }
    }
}

/// Count, total, minimum and maximum of the numbers added so far.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(in crate::store) struct Aggregate {
    pub count: i64,
    pub total: Total,
    pub min: f64,
    pub max: f64,
}

impl Aggregate {
    pub const EMPTY: Self =
        Self { count: 0, total: Total::Sum(0.0), min: f64::INFINITY, max: f64::NEG_INFINITY };

    pub fn add(&mut self, value: f64) {
        self.merge(&Self { count: 1, total: Total::Sum(value), min: value, max: value });
    }

    pub fn merge(&mut self, other: &Self) {
        self.total = match (self.total, other.total) {
            (Total::Sum(mine), Total::Sum(theirs)) if (mine + theirs).is_finite() => {
                Total::Sum(mine + theirs)
            }
            _ => self.mean_with(other),
        };
        self.count += other.count;
        self.min = self.min.min(other.min);
        self.max = self.max.max(other.max);
    }

    /// The mean of the numbers of both, by their shares: finite whatever the numbers are.
    // Counts stay far below 2^53.
    #[expect(clippy::cast_precision_loss)]
    fn mean_with(&self, other: &Self) -> Total {
        if self.count == 0 || other.count == 0 {
            return if self.count == 0 { other.total } else { self.total };
        }
        let (Some(mine), Some(theirs)) =
            (self.total.mean(self.count), other.total.mean(other.count))
        else {
            return Total::Unknown;
        };
        let all = (self.count + other.count) as f64;
        let mean = mine * (self.count as f64 / all) + theirs * (other.count as f64 / all);
        // Rounding may carry it past the largest double.
        Total::Mean(mean.clamp(self.min.min(other.min), self.max.max(other.max)))
    }

    /// Minimum, mean and maximum; `None` when there is no number, or its mean is not known.
    pub fn band(&self) -> Option<Band> {
        let mean = self.total.mean(self.count).filter(|_| self.count > 0)?;
        Some(Band { min: self.min, mean, max: self.max })
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
    fn the_mean_of_any_doubles_is_finite_and_among_them() {
        let huge = f64::MAX;
        let numbers =
            [huge, -huge, 0.0, -0.0, f64::MIN_POSITIVE / 2.0, 5e-324, 9_007_199_254_740_993.0];
        for first in numbers {
            for second in numbers {
                // In one bucket, and as the sum of two buckets of two each.
                let (mut one, mut parts) = (Aggregate::EMPTY, [Aggregate::EMPTY; 2]);
                for n in 0..2 {
                    one.add(first);
                    one.add(second);
                    parts[0].add(first);
                    parts[1].add(second);
                    let mut merged = Aggregate::EMPTY;
                    for part in &parts {
                        merged.merge(part);
                    }
                    for Band { min, mean, max } in [one.band().unwrap(), merged.band().unwrap()] {
                        let expected = first / 2.0 + second / 2.0;
                        let exact = first.abs().max(second.abs()) * 1e-15 + 1e-323;
                        assert!(min <= mean && mean <= max, "{first} {second} {n}: {mean}");
                        assert!((mean - expected).abs() <= exact, "{first} {second} {n}: {mean}");
                    }
                }
            }
        }
    }

    #[test]
    fn a_total_that_is_not_known_stays_so() {
        let mut aggregate = Aggregate { count: 2, total: Total::of_sum(None), min: 1.0, max: 2.0 };
        aggregate.merge(&Aggregate::EMPTY);
        aggregate.add(3.0);
        assert_eq!((aggregate.count, aggregate.max, aggregate.band()), (3, 3.0, None));
        assert_eq!(Total::of_sum(Some(f64::INFINITY)), Total::Unknown);
        assert_eq!(Total::of_sum(Some(f64::NAN)), Total::Unknown);
    }

    #[test]
    fn spans_before_1970_begin_at_their_start_too() {
        assert_eq!(start_of(61_000, 60_000), 60_000);
        assert_eq!(start_of(-1, 60_000), -60_000);
        assert_eq!(start_of(i64::MIN, 7), i64::MIN);
    }
}
