//! `/api/v1/upstream`: how far the copy of the log in PostgreSQL is, and what keeps it.

use axum::Json;
use axum::extract::{Extension, State};
use serde_json::{Value, json};

use super::state::ApiState;
use crate::web::auth::Identity;

/// The forwarder's state, `null` where there is no upstream database. The server and the error name machines and users, so
/// they are there for those who may read everything.
pub async fn upstream(
    State(state): State<ApiState>,
    Extension(identity): Extension<Identity>,
) -> Json<Value> {
    let Some(forwarding) = state.counters.upstream() else { return Json(Value::Null) };
    let status = forwarding.status();
    let whole = identity.reads_all();
    let lag_ms = u64::try_from(status.lag_time.as_millis()).unwrap_or(u64::MAX);
    Json(json!({
        "connected": status.server.is_some(),
        "server": status.server.filter(|_| whole),
        "failing": status.error.is_some(),
        "error": status.error.filter(|_| whole),
        "filling": status.filling,
        "lag": status.lag,
        "lag_ms": lag_ms,
        "forwarded": status.forwarded,
        "refused": status.refused,
        "overflowed": status.overflowed,
        "acknowledge": if forwarding.is_awaited() { "upstream" } else { "stored" },
    }))
}
