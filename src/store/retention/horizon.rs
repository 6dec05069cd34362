//! The retention horizon: from when on single rows and each tier of roll-ups are kept. Every time is a whole hour, and
//! none of them ever goes back.

use rusqlite::{Connection, params};

use crate::store::rollup::schema::Tier;

/// From when on data is kept: Unix ms, inclusive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::store) struct Horizon {
    /// Single rows. Older ones are in the roll-ups and may be deleted.
    pub rows_from: i64,
    /// Roll-ups, finest first.
    rolled_from: [i64; 3],
}

impl Horizon {
    /// Reads the horizon from the log.
    pub fn load(connection: &Connection) -> rusqlite::Result<Self> {
        connection.prepare_cached("SELECT rows, minutes, quarters, hours FROM kept")?.query_row(
            [],
            |row| {
                Ok(Self {
                    rows_from: row.get(0)?,
                    rolled_from: [row.get(1)?, row.get(2)?, row.get(3)?],
                })
            },
        )
    }

    #[cfg(test)]
    pub const fn from_hours(rows_from: i64, rolled_from: [i64; 3]) -> Self {
        Self { rows_from, rolled_from }
    }

    /// Writes the horizon to the log.
    pub fn save(&self, connection: &Connection) -> rusqlite::Result<()> {
        let [minutes, quarters, hours] = self.rolled_from;
        connection
            .prepare_cached("UPDATE kept SET rows = ?, minutes = ?, quarters = ?, hours = ?")?
            .execute(params![self.rows_from, minutes, quarters, hours])?;
        Ok(())
    }

    /// From when on a tier of roll-ups is kept.
    pub const fn rolled_from(&self, tier: Tier) -> i64 {
        self.rolled_from[tier as usize]
    }

    /// Whether all single rows are kept, from the beginning.
    pub const fn is_all(&self) -> bool {
        self.rows_from == i64::MIN
    }

    /// Keeps no single rows before `at`.
    pub fn raise_rows(&mut self, at: i64) {
        self.rows_from = self.rows_from.max(at);
    }

    /// Keeps nothing of a tier before `at`, nor of any finer one.
    pub fn raise(&mut self, tier: Tier, at: i64) {
        self.raise_rows(at);
        for finer in &mut self.rolled_from[..=tier as usize] {
            *finer = (*finer).max(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tier_that_is_not_kept_takes_the_finer_ones_along() {
        let mut horizon = Horizon { rows_from: 5, rolled_from: [4, 3, 2] };
        horizon.raise(Tier::Quarter, 7);
        assert_eq!(horizon, Horizon { rows_from: 7, rolled_from: [7, 7, 2] });
        horizon.raise(Tier::Hour, 6);
        assert_eq!(horizon, Horizon { rows_from: 7, rolled_from: [7, 7, 6] });
    }
}
