//! `FlashMQ` with a thread a processor: nothing logged, nothing kept, no delay before sending. Its queues
//! are as long as its settings allow, as one that loses deliveries has less to do.

use std::path::{Path, PathBuf};

use super::{Broker, Kind, Running, version};

/// `None` when the program does not run.
pub(super) fn find(program: PathBuf) -> Option<Broker> {
    let said = version(&program, "--version", "FlashMQ")?.replace(" Version", "");
    let name = said.split_whitespace().take(2).collect::<Vec<_>>().join(" ");
    Some(Broker { name, kind: Kind::FlashMq(program) })
}

pub(super) fn start(program: &Path) -> Running {
    Running::configured(program, "--config-file", |port| {
        format!(
            "allow_anonymous true
log_file /dev/null
max_qos_msg_pending_per_client 65535
max_qos_bytes_pending_per_client 67108864
client_max_write_buffer_size 67108864
listen {{
  protocol mqtt
  port {port}
  inet4_bind_address 127.0.0.1
  tcp_nodelay true
}}
"
        )
    })
}
