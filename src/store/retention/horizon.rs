//! From when on single rows and each tier of roll-ups are kept. Every time is a whole hour, and none of
//! them ever goes back.

use rusqlite::{Connection, params};

use crate::store::rollup::schema::Tier;

/// What is kept, from when on: Unix ms, inclusive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::store) struct Horizon {
    /// Single rows. What is older is in the roll-ups and may be deleted.
    pub rows_from: i64,
    /// Roll-ups, finest first.
    rolled_from: [i64; 3],
}

impl Horizon {
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

    pub fn save(&self, connection: &Connection) -> rusqlite::Result<()> {
        let [minutes, quarters, hours] = self.rolled_from;
        connection
            .prepare_cached("UPDATE kept SET rows = ?, minutes = ?, quarters = ?, hours = ?")?
            .execute(params![self.rows_from, minutes, quarters, hours])?;
        Ok(())
    }

    pub const fn rolled_from(&self, tier: Tier) -> i64 {
        self.rolled_from[tier as usize]
    }

    /// Whether single rows were ever given up.
    pub const fn is_all(&self) -> bool {
        self.rows_from == i64::MIN
    }

    /// Gives up single rows before `at`.
    pub fn raise_rows(&mut self, at: i64) {
        self.rows_from = self.rows_from.max(at);
    }

    /// Gives up a tier before `at`, and with it whatever is finer.
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
    fn giving_up_a_tier_gives_up_what_is_finer() {
        let mut horizon = Horizon { rows_from: 5, rolled_from: [4, 3, 2] };
        horizon.raise(Tier::Quarter, 7);
        assert_eq!(horizon, Horizon { rows_from: 7, rolled_from: [7, 7, 2] });
        horizon.raise(Tier::Hour, 6);
        assert_eq!(horizon, Horizon { rows_from: 7, rolled_from: [7, 7, 6] });
    }
}
