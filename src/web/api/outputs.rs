//! `/api/v1/outputs`: the state of every output, and commands to one.

use axum::Json;
use axum::extract::rejection::{JsonRejection, PathRejection};
use axum::extract::{Extension, Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Value, json};

use super::state::ApiState;
use crate::broker::Stopping;
use crate::reading::Id;
use crate::web::auth::Identity;
use crate::web::http_error::HttpError;
use crate::web::live::visible::visible_boards;
use crate::wire::{FOR_MAX_MS, NodeTopics};

/// Every output with its state.
pub async fn outputs(
    State(state): State<ApiState>,
    Extension(identity): Extension<Identity>,
) -> Response {
    let boards = state.feed.boards();
    let boards: Vec<_> = visible_boards(&boards, &identity).collect();
    let outputs: Vec<Value> = boards
        .iter()
        .flat_map(|(node, board)| board.outputs.iter().map(move |output| (node, output)))
        .map(|(node, (output, on))| json!({ "node": node, "output": output, "on": on }))
        .collect();
    Json(outputs).into_response()
}

/// A command to an output.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Command {
    /// The state to take.
    on: bool,
    /// How long to hold that state before the other one, in ms, 1 to [`FOR_MAX_MS`]; for ever when absent.
    for_ms: Option<u64>,
}

/// Publishes a command to an output: 202. The board publishes the new state when its line has changed.
pub async fn switch(
    State(state): State<ApiState>,
    Extension(identity): Extension<Identity>,
    path: Result<Path<(Id, Id)>, PathRejection>,
    body: Result<Json<Command>, JsonRejection>,
) -> Result<Response, HttpError> {
    let Path((node, output)) = path?;
    let Json(command) = body?;
    let topic = NodeTopics::new(node.clone()).command(&output);
    if !identity.may_publish(&topic) {
        return Ok(identity.refuse("switch this output"));
    }
    if command.for_ms.is_some_and(|ms| !(1..=FOR_MAX_MS).contains(&ms)) {
        let error = format!("`for_ms` must be from 1 to {FOR_MAX_MS}");
        return Err(HttpError::bad_request(&error));
    }
    let known =
        state.feed.boards().get(&node).is_some_and(|board| board.outputs.contains_key(&output));
    if !known {
        return Err(HttpError::not_found(format!("node `{node}` has no output `{output}`")));
    }
    let value = if command.on { "ON" } else { "OFF" };
    let payload = match command.for_ms {
        None => value.to_owned(),
        Some(ms) => json!({ "state": value, "for_ms": ms }).to_string(),
    };
    let user = identity.user.as_deref();
    tracing::info!(%node, %output, payload, user, "output command received over HTTP");
    let stopping = |error: Stopping| HttpError::unavailable(error.to_string());
    state.local_client.publish(topic, payload.into()).await.map_err(stopping)?;
    Ok(StatusCode::ACCEPTED.into_response())
}
