//! `/api/v1/`: nodes, sensors, readings, other publishers' samples, exports, outputs, alarms, refused clients and the copy in PostgreSQL as JSON. `assets/openapi.json` describes it for
//! programs.

mod alarms;
mod export;
mod nodes;
mod outputs;
mod readings;
mod refused;
mod sources;
mod state;
mod upstream;

use axum::extract::{Extension, State};
use axum::routing::{delete, get, post};
use axum::{Json, Router};
use serde_json::{Value, json};

pub use state::{ApiState, ExportLimit};

use crate::broker::BOARDS_USER;
use crate::clock;
use crate::web::auth::Identity;

/// Routes that need the read permission.
pub fn read_routes(state: ApiState) -> Router {
    Router::new()
        .route("/api/v1/nodes", get(nodes::nodes))
        .route("/api/v1/sensors", get(readings::sensors))
        .route("/api/v1/latest", get(readings::latest))
        .route("/api/v1/series", get(readings::series))
        .route("/api/v1/sources", get(sources::sources))
        .route("/api/v1/sources/series", get(sources::series))
        .route("/api/v1/sources/lost", get(sources::lost))
        .route("/api/v1/export", get(export::export))
        .route("/api/v1/outputs", get(outputs::outputs))
        .route("/api/v1/alarms", get(alarms::alarms))
        .route("/api/v1/alarms/changes", get(alarms::changes))
        .route("/api/v1/upstream", get(upstream::upstream))
        .with_state(state)
}

/// Routes that check the identity's permissions themselves.
pub fn routes(state: ApiState) -> Router {
    Router::new()
        .route("/api/v1/about", get(about))
        .route("/api/v1/refused", get(refused::refused))
        .route("/api/v1/nodes/{node}", delete(nodes::forget))
        .route("/api/v1/outputs/{node}/{output}", post(outputs::switch))
        .with_state(state)
}

/// The program, and the permissions of the client.
async fn about(
    State(state): State<ApiState>,
    Extension(identity): Extension<Identity>,
) -> Json<Value> {
    // Which users there are is for those who manage them.
    let boards = if identity.may_forget {
        json!(state.authenticator.user_of_boards())
    } else {
        json!({ "name": BOARDS_USER })
    };
    Json(json!({
        "version": env!("CARGO_PKG_VERSION"),
        "revision": option_env!("HUMIDOR_REVISION"),
        "run": &*state.run,
        "started": state.started_ms,
        "now": clock::unix_ms(),
        "user": identity.user.as_deref(),
        "may": { "read": identity.may_read, "switch": identity.may_switch, "forget": identity.may_forget },
        "login": state.authenticator.has_users(),
        "guests": state.authenticator.guests().as_str(),
        "mqtt": {
            "host": state.mqtt_host, "port": state.mqtt.port(),
            "local": state.mqtt.ip().is_loopback(), "open": state.authenticator.is_open(),
        },
        "boards": boards,
        "upstream": state.counters.upstream().is_some(),
    }))
}
