//! Which holders give data up when the log is full; pure.
//!
//! The fair share is max-min: what is to go comes from the largest, down to one size. A holder with less than half of that
//! size gives nothing. The half keeps holders that have about as much together, so that their oldest data goes first.

/// What a series takes of the log. Users share it, and the nodes or topics of a user share his part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::store) struct SeriesUse {
    /// Code of the series schema.
    pub code: i64,
    pub series: i64,
    /// Number of the user whose client began it.
    pub owner: usize,
    /// Number of the user's node or topic.
    pub holder: usize,
    /// About so many bytes.
    pub bytes: u64,
    /// Those of them that wait to be moved to their place, and cannot go before.
    pub waiting: u64,
}

/// The least that a holder of `uses` has that gives when `excess` is to go.
fn least_giver(mut uses: Vec<u64>, excess: u64) -> u64 {
    uses.sort_unstable_by(|one, other| other.cmp(one));
    let mut sum = 0_u64;
    for (number, bytes) in (1_u64..).zip(&uses) {
        sum = sum.saturating_add(*bytes);
        let share = sum.saturating_sub(excess) / number;
        let next = usize::try_from(number).ok().and_then(|next| uses.get(next));
        if sum >= excess && next.is_none_or(|next| share >= *next) {
            return (share / 2).max(1);
        }
    }
    1
}

/// Sums by the number that `key` gives.
fn sums(series: &[SeriesUse], key: impl Fn(&SeriesUse) -> usize) -> Vec<u64> {
    let mut sums = Vec::new();
    for of_series in series {
        let number = key(of_series);
        if sums.len() <= number {
            sums.resize(number + 1, 0_u64);
        }
        sums[number] = sums[number].saturating_add(of_series.bytes);
    }
    sums
}

/// The series whose holders give when `excess` bytes are to go: of the users that give, the nodes and topics that do. There
/// is always one where any has anything.
pub(in crate::store) fn givers(series: &[SeriesUse], excess: u64) -> Vec<SeriesUse> {
    let of_owners = sums(series, |of| of.owner);
    let least = least_giver(of_owners.clone(), excess);
    let mut giving: Vec<SeriesUse> =
        series.iter().filter(|of| of_owners[of.owner] >= least).copied().collect();
    let of_holders = sums(&giving, |of| of.holder);
    let least = least_giver(of_holders.clone(), excess);
    giving.retain(|of| of_holders[of.holder] >= least);
    giving
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// One series a holder: the user's number and bytes.
    fn holders(of: &[(usize, u64)]) -> Vec<SeriesUse> {
        let series = |(holder, (owner, bytes)): (usize, &(usize, u64))| SeriesUse {
            code: 0,
            series: i64::try_from(holder).unwrap(),
            owner: *owner,
            holder,
            bytes: *bytes,
            waiting: 0,
        };
        of.iter().enumerate().map(series).collect()
    }

    fn giving(of: &[(usize, u64)], excess: u64) -> Vec<i64> {
        givers(&holders(of), excess).iter().map(|of| of.series).collect()
    }

    #[test]
    fn the_one_that_fills_the_log_gives_alone_and_equal_ones_give_together() {
        assert_eq!(giving(&[(0, 10), (0, 200)], 6), [1]);
        assert_eq!(giving(&[(0, 100), (0, 104), (0, 96)], 10), [0, 1, 2]);
        assert_eq!(giving(&[(0, 100), (0, 104), (0, 30), (0, 0)], 10), [0, 1]);
        assert_eq!(giving(&[(0, 5)], 10), [0], "more is to go than there is");
        assert_eq!(giving(&[], 10), [0; 0]);
    }

    #[test]
    fn many_names_of_one_user_are_one_share() {
        let mut of = vec![(0, 90); 4];
        of.extend([(1, 10); 300]);
        assert_eq!(giving(&of, 50), (4..304).collect::<Vec<_>>());
        let all_of_one: Vec<_> = of.iter().map(|(_, bytes)| (0, *bytes)).collect();
        assert_eq!(giving(&all_of_one, 50), [0, 1, 2, 3], "without logins names are shares");
    }

    proptest! {
        #[test]
        fn nobody_with_less_than_half_of_a_fair_share_gives(
            uses in proptest::collection::vec(0..1000_u64, 1..30), excess in 1..2000_u64) {
            let of: Vec<_> = uses.iter().map(|bytes| (0, *bytes)).collect();
            let giving = giving(&of, excess);
            let total: u64 = uses.iter().sum();
            let fair = total.saturating_sub(excess) / u64::try_from(uses.len()).unwrap();
            let has = |series: &i64| uses[usize::try_from(*series).unwrap()];
            prop_assert!(giving.iter().all(|series| has(series) >= fair / 2));
            prop_assert_eq!(giving.is_empty(), total == 0);
            // Who has more than one that gives does, too.
            if let Some(least) = giving.iter().map(has).min() {
                prop_assert_eq!(uses.iter().filter(|bytes| **bytes >= least).count(), giving.len());
            }
        }
    }
}
