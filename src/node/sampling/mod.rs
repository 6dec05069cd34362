//! From sensor lines to readings: when a sensor is read, and whether its measurement is plausible.

pub mod plausibility;
pub mod reads;
pub mod sampler;
