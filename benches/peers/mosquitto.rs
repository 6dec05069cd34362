//! mosquitto as fast as it goes: nothing logged, nothing kept, no delay before sending. Its queues have no limit, as one that
//! loses deliveries has less to do.

use std::path::{Path, PathBuf};

use super::{Broker, Kind, Running, version};

/// `None` when the program does not run.
pub(super) fn find(program: PathBuf) -> Option<Broker> {
    let name = version(&program, "-h", "mosquitto version")?.replace(" version", "");
    Some(Broker { name, kind: Kind::Mosquitto(program) })
}

pub(super) fn start(program: &Path) -> Running {
    Running::configured(program, "-c", |port| {
        format!(
            "listener {port} 127.0.0.1
allow_anonymous true
set_tcp_nodelay true
log_type none
persistence false
max_queued_messages 0
max_inflight_messages 0
"
        )
    })
}
