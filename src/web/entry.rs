//! Who may look and who may switch: guests by where they come from, others by a login.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::http::header::{FORWARDED, HeaderName};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::problem::Problem;
use super::server::Peer;

/// What those may do who have not logged in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Guests {
    /// Nothing.
    None,
    /// Who is on this machine looks and switches, others nothing.
    #[default]
    Local,
    /// Everybody looks; who is on this machine switches too.
    Read,
    /// Everybody looks and switches.
    Switch,
}

/// Who asks.
#[derive(Debug, Clone)]
pub struct Visitor {
    /// The user who has logged in.
    pub user: Option<Arc<str>>,
    /// Whether they may look.
    pub read: bool,
    /// Whether they may switch outputs.
    pub switch: bool,
}

impl Visitor {
    /// The answer to somebody who may not do `what`.
    pub fn refused(&self, what: &str) -> Problem {
        let (status, error) = match &self.user {
            Some(user) => (StatusCode::FORBIDDEN, format!("{user} may not {what}")),
            None => (
                StatusCode::UNAUTHORIZED,
                format!("who has not logged in may not {what} from here; see HUMIDOR_HTTP_GUESTS"),
            ),
        };
        Problem::new(status, error)
    }
}

/// The rules at the entry.
#[derive(Debug, Clone, Default)]
pub struct Entry {
    guests: Guests,
}

impl Entry {
    /// With these rights for guests.
    pub const fn new(guests: Guests) -> Self {
        Self { guests }
    }

    /// Whether there is anybody who could log in.
    pub const fn has_users(&self) -> bool {
        let _ = self;
        false
    }

    fn visitor(&self, request: &Request) -> Visitor {
        let local = is_local(request);
        let (read, switch) = match self.guests {
            Guests::None => (false, false),
            Guests::Local => (local, local),
            Guests::Read => (true, local),
            Guests::Switch => (true, true),
        };
        Visitor { user: None, read, switch }
    }
}

/// Whether somebody on this machine asks. A proxy on this machine asks for others, and says so.
fn is_local(request: &Request) -> bool {
    let headers = request.headers();
    let passed_on = headers.contains_key(FORWARDED)
        || ["x-forwarded-for", "x-real-ip", "via"]
            .iter()
            .any(|name| headers.contains_key(HeaderName::from_static(name)));
    let peer = request.extensions().get::<Peer>();
    !passed_on && peer.is_some_and(|Peer(peer)| peer.ip().to_canonical().is_loopback())
}

/// Notes who asks, for the handlers.
pub async fn meet(State(entry): State<Entry>, mut request: Request, next: Next) -> Response {
    let visitor = entry.visitor(&request);
    request.extensions_mut().insert(visitor);
    next.run(request).await
}

/// Lets only those through who may look.
pub async fn readers(request: Request, next: Next) -> Response {
    match request.extensions().get::<Visitor>() {
        Some(visitor) if !visitor.read => visitor.refused("look").into_response(),
        Some(_) => next.run(request).await,
        None => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}
