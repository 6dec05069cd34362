//! From sensor lines to readings: when a sensor is read, and whether what it says is believed.

pub mod plausibility;
pub mod sampler;
