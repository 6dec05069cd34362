//! Samples whose times are not sure: they came before the broker's clock was set, or at a time whose rows are not kept any
//! more. They are noted as stretches of ids, one row a stretch: all samples of it are corrected by the same amount when the
//! clock is stepped, and retention takes them by their arrival.

use rusqlite::{Row, Transaction, params};

/// A stretch is no longer than this, ms: retention takes it as a whole.
const STRETCH_MS: i64 = 3_600_000;

/// A row of table `early`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::store) struct Stretch {
    pub first: i64,
    pub last: i64,
    /// Unix time of the samples minus log time, ms; `None`: they are not corrected any more.
    pub correction_ms: Option<i64>,
    /// How far they have been corrected, ms.
    pub shift_ms: i64,
    /// Whether they are in the roll-ups.
    pub rolled: bool,
    /// When the last one came, log time.
    pub arrived_ms: i64,
    /// When the first one came, log time.
    pub begun_ms: i64,
}

impl Stretch {
    pub fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            first: row.get(0)?,
            last: row.get(1)?,
            correction_ms: row.get(2)?,
            shift_ms: row.get(3)?,
            rolled: row.get(4)?,
            arrived_ms: row.get(5)?,
            begun_ms: row.get(6)?,
        })
    }

    /// Writes it, joined with the one that ends right before it and says the same.
    pub fn save(self, transaction: &Transaction<'_>) -> rusqlite::Result<()> {
        let joined = transaction
            .prepare_cached(
                "UPDATE early SET last = ?2, arrived = max(arrived, ?6)
                 WHERE first = (SELECT max(first) FROM early WHERE first < ?1) AND last = ?1 - 1
                     AND correction IS ?3 AND shift = ?4 AND rolled = ?5 AND begun >= ?6 - ?7",
            )?
            .execute(params![
                self.first,
                self.last,
                self.correction_ms,
                self.shift_ms,
                self.rolled,
                self.arrived_ms,
                STRETCH_MS
            ])?;
        if joined == 0 {
            transaction
                .prepare_cached(
                    "REPLACE INTO early (first, last, correction, shift, rolled, arrived, begun)
                     VALUES (?, ?, ?, ?, ?, ?, ?)",
                )?
                .execute(params![
                    self.first,
                    self.last,
                    self.correction_ms,
                    self.shift_ms,
                    self.rolled,
                    self.arrived_ms,
                    self.begun_ms
                ])?;
        }
        Ok(())
    }
}

/// The stretch to which the samples of this commit belong.
#[derive(Debug, Default)]
pub(in crate::store) struct EarlySamples {
    current: Option<Stretch>,
}

impl EarlySamples {
    /// Notes sample `id`, which came at `arrived_ms` in log time; `correction_ms` is `None` when its time stays as it is.
    pub fn note(
        &mut self,
        transaction: &Transaction<'_>,
        id: i64,
        arrived_ms: i64,
        correction_ms: Option<i64>,
        rolled: bool,
    ) -> rusqlite::Result<()> {
        match &mut self.current {
            Some(current) if current.rolled == rolled && current.last + 1 == id => {
                current.last = id;
                current.arrived_ms = arrived_ms.max(current.arrived_ms);
            }
            _ => {
                self.save(transaction)?;
                self.current = Some(Stretch {
                    first: id,
                    last: id,
                    correction_ms,
                    shift_ms: 0,
                    rolled,
                    arrived_ms,
                    begun_ms: arrived_ms,
                });
            }
        }
        Ok(())
    }

    /// Writes the stretch: at the end of each commit.
    pub fn save(&mut self, transaction: &Transaction<'_>) -> rusqlite::Result<()> {
        self.current.take().map_or(Ok(()), |current| current.save(transaction))
    }
}
