//! Settings: from flags, environment and a TOML file to the objects the roles take, with every
//! mistake reported at once.

mod access;
mod alarms;
mod layers;
mod pins;
mod retention;
mod roles;
mod settings;

pub use access::users_file;
pub use layers::{Layers, Origin, Problem, Problems};
pub use pins::{Probe, board, probe, uses};
pub use retention::retention;
pub use roles::{
    LogFormat, broker, data_folder, forget, interval, log_filter, log_format, node, node_id,
    validate_all,
};
pub use settings::{SETTINGS, Scope, Setting};
