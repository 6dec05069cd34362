//! Settings: from flags, environment and a TOML file to the types that the commands take. Every mistake is reported at
//! once, and behind this module no setting is asked for by its name.
//!
//! ```text
//! parse ← pins · alarms · values · logging ← settings (the table) · stray ← layers ← pin_uses · upstream ← node · broker · commands
//! ```

mod access;
mod alarms;
mod broker;
mod commands;
mod key;
mod layers;
mod logging;
mod node;
mod parse;
mod pin_uses;
mod pins;
mod problem;
mod settings;
mod stray;
mod upstream;
mod values;

pub use broker::{Demo, ServerConfig, broker, demo};
pub use commands::{
    Doctor, Health, Probe, Wiring, data, data_and_discovery, data_and_retention, doctor, health,
    probe, users_file, wiring,
};
pub use key::{Scope, Setting};
pub use layers::{Effective, Layers, Origin};
pub use logging::{LogFormat, Logging};
pub use node::{forget, node};
pub use parse::{interval, time};
pub use problem::{Problem, Problems};
pub use settings::SETTINGS;
pub use upstream::{data_and_target, data_and_upstream, upstream as target};

/// The mistakes in all settings that are there, whichever role they are for.
#[must_use]
pub fn validate_all(layers: &Layers) -> Problems {
    let mut layers = layers.clone();
    let _ = broker::fields(&mut layers);
    let _ = node::fields(&mut layers, false);
    layers.problems()
}
