//! Which data the log keeps, and the deletion of the rest.
//!
//! [`policy`] is pure: the order of deletion, by age and by size. [`horizon`] is its state, from when on the data is kept;
//! [`size`] says how it rises, [`raise`] raises it, and [`delete`] deletes what lies before it. [`usage`] measures what each
//! series takes, and [`share`], pure, says whose horizon rises for it. [`deleted_ranges`] remembers the numbers of
//! deleted readings, and [`fold`] adds a row that comes too late to the roll-ups. [`park`] takes readings out that
//! wait for their clock. [`ahead`] has the readings that go by their
//! arrival, since their time is in the future.

pub(in crate::store) mod ahead;
pub(in crate::store) mod delete;
pub(in crate::store) mod deleted_ranges;
pub(in crate::store) mod fold;
pub(in crate::store) mod horizon;
mod oldest;
pub(in crate::store) mod park;
pub(in crate::store) mod policy;
pub(in crate::store) mod present;
pub(in crate::store) mod raise;
pub(in crate::store) mod share;
pub(in crate::store) mod size;
pub(in crate::store) mod usage;
