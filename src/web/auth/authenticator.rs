//! Who may look and who may switch: guests by where they come from, users by a session that a login opens, or by
//! name and password with each request. What a user may is what the broker's rules say of MQTT topics.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::Json;
use axum::extract::rejection::JsonRejection;
use axum::extract::{Extension, Request, State};
use axum::http::StatusCode;
use axum::http::header::{
    AUTHORIZATION, COOKIE, FORWARDED, HeaderMap, HeaderName, RETRY_AFTER, SET_COOKIE,
    WWW_AUTHENTICATE,
};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use base64::Engine;
use futures_util::FutureExt;
use serde::Deserialize;
use tokio::time::Instant;

use crate::broker::{Access, Grants, NotAdmitted};
use crate::mqtt::Filter;
use crate::web::Web;
use crate::web::http_error::HttpError;
use crate::web::server::Peer;

/// Client id that rules see of whoever comes over HTTP.
const CLIENT_ID: &str = "http";
/// Whoever may subscribe to this may look at the pages.
const READ: &str = "humidor/#";
const COOKIE_NAME: &str = "humidor_session";
/// Sessions at once; beyond it the one unused for longest ends.
const SESSIONS: usize = 256;
/// A session that is not used for this long ends.
const SESSION_IDLE: Duration = Duration::from_hours(12);
/// Bytes of a session's secret name.
const TOKEN_BYTES: usize = 32;

/// What those may do who have not logged in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Guests {
    /// Nothing.
    None,
    /// Who is on this machine looks, and switches where MQTT asks for no name either; others nothing.
    #[default]
    Local,
    /// Everybody looks; who is on this machine switches as above.
    Read,
    /// Everybody looks and switches.
    Switch,
}

impl Guests {
    /// The setting's word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Local => "local",
            Self::Read => "read",
            Self::Switch => "switch",
        }
    }
}

/// Who asks.
#[derive(Debug, Clone)]
pub struct Visitor {
    /// The user, whose rules count; `None` for a guest.
    grants: Option<Arc<Grants>>,
    /// Their name.
    pub user: Option<Arc<str>>,
    /// Whether they may look.
    pub read: bool,
    /// Whether they may switch outputs at all.
    pub switch: bool,
}

impl Visitor {
    /// Whether they may publish to `topic`.
    pub fn may_write(&self, topic: &str) -> bool {
        self.switch && self.grants.as_ref().is_none_or(|grants| grants.may_write(topic))
    }

    /// The answer to somebody who may not do `what`.
    pub fn refused(&self, what: &str) -> Response {
        if let Some(user) = &self.user {
            let error = format!("{user} may not {what}");
            return HttpError::new(StatusCode::FORBIDDEN, error).into_response();
        }
        let error =
            format!("who has not logged in may not {what} from here; see HUMIDOR_HTTP_GUESTS");
        // Not `Basic`, at which a browser would ask in a window of its own.
        let how = [(WWW_AUTHENTICATE, "Session realm=\"humidor\"")];
        (how, HttpError::new(StatusCode::UNAUTHORIZED, error)).into_response()
    }
}

#[derive(Debug)]
struct Session {
    user: Arc<str>,
    grants: Arc<Grants>,
    used: Instant,
}

/// The rules at the entry, and who has come in.
#[derive(Debug, Clone)]
pub struct Entry {
    guests: Guests,
    access: Access,
    sessions: Arc<Mutex<HashMap<String, Session>>>,
}

impl Entry {
    /// With these rights for guests, and the broker's users.
    pub fn new(guests: Guests, access: Access) -> Self {
        Self { guests, access, sessions: Arc::default() }
    }

    /// Whether a login is of use: the broker asks for names.
    pub fn has_users(&self) -> bool {
        self.access.has_users()
    }

    /// Whether MQTT asks somebody for no name who comes by HTTP like this.
    pub fn admits_anonymous(&self) -> bool {
        self.access.admits_anonymous()
    }

    /// Whether only who is on this machine may come to MQTT, and this is somebody else.
    pub fn keeps_out(&self, headers: &HeaderMap, peer: SocketAddr) -> bool {
        self.access.admits_anonymous() && !self.access.is_open() && !is_local(headers, peer)
    }

    fn sessions(&self) -> MutexGuard<'_, HashMap<String, Session>> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn visitor(&self, headers: &HeaderMap, peer: SocketAddr) -> Result<Visitor, HttpError> {
        if let Some(token) = token(headers)
            && let Some(visitor) = self.resume(&token)
        {
            return Ok(visitor);
        }
        // Without users any name would do for the broker.
        if let Some((name, password)) = basic(headers).filter(|_| self.has_users()) {
            let login = Some((name.as_str(), password.as_bytes()));
            let grants = self.access.admit(peer, CLIENT_ID, login).await.map_err(not_admitted)?;
            return Ok(user(name.into(), Arc::new(grants)));
        }
        let local = is_local(headers, peer);
        let (read, switch) = match self.guests {
            Guests::None => (false, false),
            Guests::Local => (local, local && self.access.admits_anonymous()),
            Guests::Read => (true, local && self.access.admits_anonymous()),
            Guests::Switch => (true, true),
        };
        Ok(Visitor { grants: None, user: None, read, switch })
    }

    fn resume(&self, token: &str) -> Option<Visitor> {
        let mut sessions = self.sessions();
        let session = sessions.get_mut(token)?;
        let idle = session.used.elapsed() > SESSION_IDLE;
        if idle || session.grants.withdrawn().now_or_never().is_some() {
            sessions.remove(token);
            return None;
        }
        session.used = Instant::now();
        Some(user(Arc::clone(&session.user), Arc::clone(&session.grants)))
    }

    fn open(&self, user: Arc<str>, grants: Arc<Grants>) -> Result<String, getrandom::Error> {
        let mut secret = [0; TOKEN_BYTES];
        getrandom::fill(&mut secret)?;
        let token = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(secret);
        let mut sessions = self.sessions();
        if sessions.len() >= SESSIONS {
            let oldest = sessions.iter().min_by_key(|(_, session)| session.used);
            if let Some(oldest) = oldest.map(|(token, _)| token.clone()) {
                sessions.remove(&oldest);
            }
        }
        sessions.insert(token.clone(), Session { user, grants, used: Instant::now() });
        Ok(token)
    }
}

fn user(name: Arc<str>, grants: Arc<Grants>) -> Visitor {
    let everything: Result<Filter, _> = READ.parse();
    let read = everything.is_ok_and(|filter| grants.rulings().may_subscribe(&filter));
    Visitor { grants: Some(grants), user: Some(name), read, switch: true }
}

fn not_admitted(refusal: NotAdmitted) -> HttpError {
    match refusal {
        NotAdmitted::Busy => HttpError::new(
            StatusCode::TOO_MANY_REQUESTS,
            "too many logins wait or were wrong; wait a minute",
        ),
        NotAdmitted::NotAuthorized | NotAdmitted::ClientId(_) => {
            HttpError::new(StatusCode::UNAUTHORIZED, "no such user, or not their password")
        }
    }
}

fn token(headers: &HeaderMap) -> Option<String> {
    let cookies = headers.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut pairs =
        cookies.flat_map(|line| line.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.find(|(name, _)| *name == COOKIE_NAME).map(|(_, token)| token.to_owned())
}

/// Name and password of an `Authorization: Basic`, as Prometheus, Grafana and curl send them.
fn basic(headers: &HeaderMap) -> Option<(String, String)> {
    let text = headers.get(AUTHORIZATION)?.to_str().ok()?.strip_prefix("Basic ")?;
    let pair = base64::engine::general_purpose::STANDARD.decode(text.trim()).ok()?;
    let (name, password) = std::str::from_utf8(&pair).ok()?.split_once(':')?;
    Some((name.to_owned(), password.to_owned()))
}

/// Whether somebody on this machine asks. A proxy on this machine asks for others, and says so.
fn is_local(headers: &HeaderMap, peer: SocketAddr) -> bool {
    let passed_on = headers.contains_key(FORWARDED)
        || ["x-forwarded-for", "x-real-ip", "via"]
            .iter()
            .any(|name| headers.contains_key(HeaderName::from_static(name)));
    !passed_on && peer.ip().to_canonical().is_loopback()
}

/// Notes who asks, for the handlers.
pub async fn meet(
    State(entry): State<Entry>,
    Extension(Peer(peer)): Extension<Peer>,
    headers: HeaderMap,
    mut request: Request,
    next: Next,
) -> Response {
    match entry.visitor(&headers, peer).await {
        Ok(visitor) => {
            request.extensions_mut().insert(visitor);
            next.run(request).await
        }
        Err(error) => error.into_response(),
    }
}

/// Lets only those through who may look.
pub async fn readers(request: Request, next: Next) -> Response {
    match request.extensions().get::<Visitor>() {
        Some(visitor) if !visitor.read => visitor.refused("look"),
        Some(_) => next.run(request).await,
        None => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

/// A login.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Login {
    name: String,
    password: String,
}

/// Opens a session. The broker's own limits on wrong passwords count here too.
pub async fn log_in(
    State(web): State<Web>,
    Extension(Peer(peer)): Extension<Peer>,
    body: Result<Json<Login>, JsonRejection>,
) -> Result<Response, HttpError> {
    let Json(login) = body?;
    if !web.entry.has_users() {
        return Err(HttpError::new(
            StatusCode::UNAUTHORIZED,
            "this broker has no users; `humidor user` makes one",
        ));
    }
    let given = Some((login.name.as_str(), login.password.as_bytes()));
    let grants = match web.entry.access.admit(peer, CLIENT_ID, given).await {
        Ok(grants) => Arc::new(grants),
        Err(refusal @ NotAdmitted::Busy) => {
            return Ok(([(RETRY_AFTER, "60")], not_admitted(refusal)).into_response());
        }
        Err(refusal) => return Err(not_admitted(refusal)),
    };
    let token = web
        .entry
        .open(login.name.into(), grants)
        .map_err(|_| HttpError::unavailable("the system gives no random bytes"))?;
    let cookie = format!("{COOKIE_NAME}={token}; HttpOnly; SameSite=Strict; Path=/");
    Ok((StatusCode::NO_CONTENT, [(SET_COOKIE, cookie)]).into_response())
}

/// Ends the session, if there is one.
pub async fn log_out(State(web): State<Web>, headers: HeaderMap) -> Response {
    if let Some(token) = token(&headers) {
        web.entry.sessions().remove(&token);
    }
    let cookie = format!("{COOKIE_NAME}=; HttpOnly; SameSite=Strict; Path=/; Max-Age=0");
    (StatusCode::NO_CONTENT, [(SET_COOKIE, cookie)]).into_response()
}
