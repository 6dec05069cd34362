//! `/api/v1/refused`: MQTT clients that the broker refused lately, and why, for those who may mend it.

use axum::Json;
use axum::extract::{Extension, State};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::state::ApiState;
use crate::web::auth::Identity;
use crate::wire::CLIENT_ID_PREFIX;

/// The clients with the cause of each, the latest first. They name users, so only who may remove boards sees them.
pub async fn refused(
    State(state): State<ApiState>,
    Extension(identity): Extension<Identity>,
) -> Response {
    if !identity.may_forget {
        return identity.refuse("see refused clients");
    }
    let (users, boards) = (&state.authenticator, state.authenticator.user_of_boards());
    let clients = users.refused_clients().into_iter().map(|found| {
        json!({
            "client": found.client_id,
            "node": found.client_id.strip_prefix(CLIENT_ID_PREFIX),
            "user": found.user,
            "address": found.address,
            "cause": found.cause.name(),
            "count": found.count,
            "at": found.at_ms,
            "role": users.role(&found.user).map(|role| role.to_string()),
            "of_setting": users.is_of_setting(&found.user),
            "fleet": boards,
        })
    });
    Json(clients.collect::<Vec<Value>>()).into_response()
}
