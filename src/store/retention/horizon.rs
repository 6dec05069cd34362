//! The retention horizon: from when on single rows and each tier of roll-ups are kept. None of its times ever goes back.
//!
//! There is one of the whole log, and a later one of each series that had to give data up before others had to.

use std::collections::HashMap;
use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension, Row, params};

use crate::store::rollup::schema::{SeriesSchema, Tier};

/// From when on data is kept: Unix ms, inclusive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::store) struct Horizon {
    /// Single rows. Older ones are in the roll-ups and may be deleted.
    pub rows_from: i64,
    /// Roll-ups before this time are not computed from rows any more, since some of those may be deleted: a row that comes
    /// later is added to them. A whole quarter of an hour, not before `rows_from`.
    pub closed_until: i64,
    /// Roll-ups, finest first; whole hours, not after `rows_from`.
    rolled_from: [i64; 3],
}

impl Horizon {
    /// Reads the horizon of the whole log. Its rows end at a whole hour.
    pub fn load(connection: &Connection) -> rusqlite::Result<Self> {
        connection
            .prepare_cached("SELECT rows, rows, minutes, quarters, hours FROM kept")?
            .query_row([], Self::read)
    }

    /// Reads the horizon of a series, by the code of its schema.
    pub fn load_of(connection: &Connection, code: i64, series: i64) -> rusqlite::Result<Self> {
        let all = Self::load(connection)?;
        let own = connection
            .prepare_cached(
                "SELECT rows, closed, minutes, quarters, hours FROM kept_of
                 WHERE family = ? AND series = ?",
            )?
            .query_row([code, series], Self::read)
            .optional()?;
        Ok(own.map_or(all, |own| own.or_later(all)))
    }

    fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            rows_from: row.get(0)?,
            closed_until: row.get(1)?,
            rolled_from: [row.get(2)?, row.get(3)?, row.get(4)?],
        })
    }

    #[cfg(test)]
    pub const fn from_hours(rows_from: i64, rolled_from: [i64; 3]) -> Self {
        Self { rows_from, closed_until: rows_from, rolled_from }
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
        self.close(at);
    }

    /// Computes no roll-ups before `at` any more.
    pub fn close(&mut self, at: i64) {
        self.closed_until = self.closed_until.max(at);
    }

    /// Keeps nothing of a tier before `at`, nor of any finer one.
    pub fn raise(&mut self, tier: Tier, at: i64) {
        self.raise_rows(at);
        for finer in &mut self.rolled_from[..=tier as usize] {
            *finer = (*finer).max(at);
        }
    }

    /// The later time of both, for each kind of data.
    fn or_later(mut self, other: Self) -> Self {
        self.raise_rows(other.rows_from);
        self.close(other.closed_until);
        for (mine, theirs) in self.rolled_from.iter_mut().zip(other.rolled_from) {
            *mine = theirs.max(*mine);
        }
        self
    }
}

/// The horizons of all series.
#[derive(Debug, Clone)]
pub(in crate::store) struct Horizons {
    /// That of the whole log.
    pub all: Horizon,
    /// Later ones, by schema code and series.
    own: Arc<HashMap<(i64, i64), Horizon>>,
}

impl Horizons {
    /// Reads the horizons from the log.
    pub fn load(connection: &Connection) -> rusqlite::Result<Self> {
        let own = connection
            .prepare("SELECT rows, closed, minutes, quarters, hours, family, series FROM kept_of")?
            .query_map([], |row| Ok(((row.get(5)?, row.get(6)?), Horizon::read(row)?)))?
            .collect::<rusqlite::Result<_>>()?;
        Ok(Self { all: Horizon::load(connection)?, own: Arc::new(own) })
    }

    #[cfg(test)]
    pub fn of_all(all: Horizon) -> Self {
        Self { all, own: Arc::default() }
    }

    /// Whether a series has a horizon of its own.
    pub fn has_own(&self) -> bool {
        !self.own.is_empty()
    }

    /// The horizon of a series.
    pub fn of<const N: usize>(&self, schema: &SeriesSchema<N>, series: i64) -> Horizon {
        self.of_code(schema.code, series)
    }

    /// The horizon of a series, by the code of its schema.
    pub fn of_code(&self, code: i64, series: i64) -> Horizon {
        if self.own.is_empty() {
            return self.all;
        }
        self.own.get(&(code, series)).map_or(self.all, |own| own.or_later(self.all))
    }

    /// Sets the horizon of the whole log. Own ones that are not later go.
    pub fn save_all(&mut self, connection: &Connection, all: Horizon) -> rusqlite::Result<()> {
        let [minutes, quarters, hours] = all.rolled_from;
        connection
            .prepare_cached("UPDATE kept SET rows = ?, minutes = ?, quarters = ?, hours = ?")?
            .execute(params![all.rows_from, minutes, quarters, hours])?;
        self.all = all;
        let passed: Vec<(i64, i64)> = self
            .own
            .iter()
            .filter(|(_, own)| all.or_later(**own) == all)
            .map(|(of, _)| *of)
            .collect();
        for (code, series) in passed {
            self.forget(connection, code, series)?;
        }
        Ok(())
    }

    /// Sets the horizon of a series.
    pub fn save_own(
        &mut self,
        connection: &Connection,
        (code, series): (i64, i64),
        own: Horizon,
    ) -> rusqlite::Result<()> {
        let [minutes, quarters, hours] = own.rolled_from;
        connection
            .prepare_cached(
                "REPLACE INTO kept_of (family, series, rows, closed, minutes, quarters, hours)
                 VALUES (?, ?, ?, ?, ?, ?, ?)",
            )?
            .execute(params![
                code,
                series,
                own.rows_from,
                own.closed_until,
                minutes,
                quarters,
                hours
            ])?;
        Arc::make_mut(&mut self.own).insert((code, series), own);
        Ok(())
    }

    /// Forgets the own horizon of a series.
    pub fn forget(
        &mut self,
        connection: &Connection,
        code: i64,
        series: i64,
    ) -> rusqlite::Result<()> {
        if self.own.contains_key(&(code, series)) {
            connection
                .prepare_cached("DELETE FROM kept_of WHERE family = ? AND series = ?")?
                .execute([code, series])?;
            Arc::make_mut(&mut self.own).remove(&(code, series));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::rollup::schema::READINGS;

    #[test]
    fn a_tier_that_is_not_kept_takes_the_finer_ones_along() {
        let mut horizon = Horizon::from_hours(5, [4, 3, 2]);
        horizon.raise(Tier::Quarter, 7);
        assert_eq!(horizon, Horizon::from_hours(7, [7, 7, 2]));
        horizon.raise(Tier::Hour, 6);
        assert_eq!(horizon, Horizon::from_hours(7, [7, 7, 6]));
    }

    #[test]
    fn the_horizon_of_a_series_is_the_later_one() {
        let connection = Connection::open_in_memory().unwrap();
        let scripts = crate::store::file::schema::LOG.migrations;
        for script in scripts {
            connection.execute_batch(script).unwrap();
        }
        let mut horizons = Horizons::load(&connection).unwrap();
        horizons.save_all(&connection, Horizon::from_hours(50, [40, 30, 20])).unwrap();
        let mut own = Horizon::from_hours(60, [35, 35, 10]);
        own.close(70);
        horizons.save_own(&connection, (READINGS.code, 1), own).unwrap();
        let mut expected = Horizon::from_hours(60, [40, 35, 20]);
        expected.close(70);
        for known in [&horizons, &Horizons::load(&connection).unwrap()] {
            assert_eq!(known.of(&READINGS, 1), expected);
            assert_eq!(known.of(&READINGS, 2), known.all);
        }
        assert_eq!(Horizon::load_of(&connection, READINGS.code, 1).unwrap(), expected);
        assert_eq!(Horizon::load_of(&connection, READINGS.code, 2).unwrap(), horizons.all);
        horizons.save_all(&connection, Horizon::from_hours(65, [40, 40, 20])).unwrap();
        assert!(horizons.has_own(), "its roll-ups are still closed for longer");
        horizons.save_all(&connection, Horizon::from_hours(70, [40, 40, 20])).unwrap();
        assert!(!horizons.has_own() && !Horizons::load(&connection).unwrap().has_own());
    }
}
