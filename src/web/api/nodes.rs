//! `/api/v1/nodes`: the state of every board, and the removal of a retired one.

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Extension, Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};

use super::state::ApiState;
use crate::broker::Stopping;
use crate::mqtt::Filter;
use crate::reading::Id;
use crate::store::Log;
use crate::web::auth::Identity;
use crate::web::http_error::HttpError;
use crate::web::live::boards::Status;
use crate::web::live::feed::NamedBoard;
use crate::web::live::visible::visible_boards;
use crate::wire::NodeTopics;

/// The state of every board.
pub async fn nodes(
    State(state): State<ApiState>,
    Extension(identity): Extension<Identity>,
) -> Response {
    let boards = state.feed.boards();
    let boards: Vec<_> = visible_boards(&boards, &identity).collect();
    let nodes: Vec<_> = boards.iter().map(|(node, board)| NamedBoard::new(node, board)).collect();
    Json(nodes).into_response()
}

/// Has a node forgotten: 202. Its retained messages, sessions and readings are deleted within seconds, of a large log
/// within minutes.
pub async fn forget(
    State(state): State<ApiState>,
    Extension(identity): Extension<Identity>,
    path: Result<Path<Id>, PathRejection>,
) -> Result<Response, HttpError> {
    let Path(node) = path?;
    if !identity.may_forget {
        return Ok(identity.refuse("remove boards"));
    }
    let status = state.feed.boards().get(&node).map(|board| board.status);
    if status == Some(Some(Status::Online)) {
        let error = format!("board `{node}` is online; stop it first, or it comes back at once");
        return Err(HttpError::new(StatusCode::CONFLICT, error));
    }
    let (name, topics) = (node.clone(), NodeTopics::new(node.clone()).everything());
    let topics: Vec<Filter> = topics.parse().into_iter().collect();
    let has_any = move |log: &Log| Ok(log.has_node(&name)? || log.is_any_retained(&topics)?);
    if status.is_none() {
        let wanted = state.turns.take(&identity.holder).await;
        if !state.log.read(&wanted.turn(), has_any).await? {
            return Err(HttpError::not_found(format!("there is no node `{node}`")));
        }
    }
    let user = identity.user.as_deref();
    tracing::info!(%node, user, "asked over HTTP to forget a node");
    let stopping = |error: Stopping| HttpError::unavailable(error.to_string());
    state.local_client.forget(node).await.map_err(stopping)?;
    Ok(StatusCode::ACCEPTED.into_response())
}
