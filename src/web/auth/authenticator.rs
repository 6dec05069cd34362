//! Authentication: finds the user or the guest behind a request, by session, by name and password, or by address.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::http::header::{AUTHORIZATION, COOKIE, FORWARDED, HeaderMap, HeaderName, USER_AGENT};
use axum::http::{StatusCode, Version};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::guests::{Guests, is_local};
use super::identity::Identity;
use super::sessions::LoginSessions;
use crate::broker::{Access, NotAdmitted, Permissions, RefusedClient, Role, UserOfBoards};
use crate::web::http_error::HttpError;

/// Client id of every HTTP client, for the broker's rules and its log.
const CLIENT_ID: &str = "http";
/// Name of the cookie with the session's token.
pub const COOKIE_NAME: &str = "humidor_session";
/// Cookies of this name in a request that are looked at.
const SESSION_COOKIES_MAX: usize = 8;

/// The broker's users, the setting for guests, and the open login sessions. Clones share them.
#[derive(Debug, Clone)]
pub struct Authenticator {
    guests: Guests,
    access: Access,
    pub sessions: LoginSessions,
}

impl Authenticator {
    /// No session is open yet.
    pub fn new(guests: Guests, access: Access) -> Self {
        Self { guests, access, sessions: LoginSessions::default() }
    }

    /// Whether the broker has users, so that a login is possible.
    pub fn has_users(&self) -> bool {
        self.access.has_users()
    }

    /// What a client may do without a login.
    pub const fn guests(&self) -> Guests {
        self.guests
    }

    /// The MQTT clients that were refused lately.
    pub fn refused_clients(&self) -> Vec<RefusedClient> {
        self.access.refused_clients()
    }

    /// The user that the boards have, or may be given.
    pub fn user_of_boards(&self) -> UserOfBoards {
        self.access.user_of_boards()
    }

    /// The role of a user; `None`: there is no such user any more.
    pub fn role(&self, user: &str) -> Option<Role> {
        self.access.role(user)
    }

    /// Whether a user comes from a setting, so that no command changes it.
    pub fn is_of_setting(&self, user: &str) -> bool {
        self.access.is_of_setting(user)
    }

    /// Whether a client on any machine may connect without a login.
    pub fn is_open(&self) -> bool {
        self.access.is_open()
    }

    /// Whether MQTT clients need no login.
    pub fn admits_anonymous(&self) -> bool {
        self.access.admits_anonymous()
    }

    /// Whether MQTT is open to this machine's clients only and this client is on another machine.
    pub fn refuses_remote(&self, version: Version, headers: &HeaderMap, peer: SocketAddr) -> bool {
        let local = is_local(version, headers, peer);
        self.access.admits_anonymous() && !self.access.is_open() && !local
    }

    /// The identity behind a request.
    ///
    /// # Errors
    /// When the request has a user's name and a wrong password, or too many logins wait.
    pub async fn identify(
        &self,
        version: Version,
        headers: &HeaderMap,
        peer: SocketAddr,
    ) -> Result<Identity, HttpError> {
        let session = session_tokens(headers).find_map(|token| self.sessions.resume(token));
        if let Some((user, permissions)) = session {
            return Ok(Identity::user(user, permissions));
        }
        // Without users the broker would admit any name; the client is a guest then.
        if let Some((name, password)) = basic_credentials(headers).filter(|_| self.has_users()) {
            let permissions =
                self.check(peer, headers, &name, &password).await.map_err(login_error)?;
            return Ok(Identity::user(name.into(), permissions));
        }
        let local = is_local(version, headers, peer);
        let role = self.guests.role(local, self.admits_anonymous());
        // A rule for all users that cannot be applied to guests gives them nothing.
        let permissions = role.and_then(|role| self.access.guest(CLIENT_ID, role).ok());
        let may_forget = self.guests.may_forget(local, self.admits_anonymous());
        Ok(Identity::guest(peer.ip(), permissions, may_forget))
    }

    /// Checks a name and a password. The broker's limits on wrong passwords apply.
    ///
    /// # Errors
    /// The refusal; the broker has logged it.
    pub async fn check(
        &self,
        peer: SocketAddr,
        headers: &HeaderMap,
        name: &str,
        password: &str,
    ) -> Result<Arc<Permissions>, NotAdmitted> {
        let login = Some((name, password.as_bytes()));
        self.access.admit_as(peer, CLIENT_ID, &client(headers), login).await.map(Arc::new)
    }
}

/// What tells the clients of HTTP at one address apart: the program, and behind a proxy the address that it names. Others
/// who know both can say the same, and share the guesses of that client.
fn client(headers: &HeaderMap) -> String {
    let mut client = CLIENT_ID.to_owned();
    for name in [USER_AGENT, HeaderName::from_static("x-forwarded-for"), FORWARDED] {
        client.push('\n');
        for value in headers.get_all(name) {
            client.push_str(&String::from_utf8_lossy(value.as_bytes()));
        }
    }
    client
}

/// The response to a refused login: 429 or 401.
pub fn login_error(refusal: NotAdmitted) -> HttpError {
    match refusal {
        NotAdmitted::Busy => HttpError::new(
            StatusCode::TOO_MANY_REQUESTS,
            "too many logins are waiting; try again in a minute",
        ),
        NotAdmitted::NotAuthorized
        | NotAdmitted::NoGuessLeft
        | NotAdmitted::Crowded
        | NotAdmitted::Name(_) => HttpError::new(
            StatusCode::UNAUTHORIZED,
            "unknown user or wrong password; after several wrong ones wait a minute",
        ),
    }
}

/// The tokens in a request's cookies. There may be several: pages of the same host with another port, or of a host above it,
/// may set a cookie of this name, too, and it may come first.
pub fn session_tokens(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let cookies = headers.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok());
    let pairs =
        cookies.flat_map(|line| line.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.filter(|(name, _)| *name == COOKIE_NAME).map(|(_, token)| token).take(SESSION_COOKIES_MAX)
}

/// Name and password of an `Authorization: Basic` header, as Prometheus, Grafana and curl send it.
fn basic_credentials(headers: &HeaderMap) -> Option<(String, String)> {
    let text = headers.get(AUTHORIZATION)?.to_str().ok()?.strip_prefix("Basic ")?;
    let pair = STANDARD.decode(text.trim()).ok()?;
    let (name, password) = std::str::from_utf8(&pair).ok()?.split_once(':')?;
    Some((name.to_owned(), password.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: &axum::http::HeaderName, values: &[&str]) -> HeaderMap {
        values.iter().map(|value| (name.clone(), value.parse().unwrap())).collect()
    }

    #[test]
    fn the_token_is_found_among_other_cookies() {
        let tokens = |values: &[&str]| {
            let headers = headers(&COOKIE, values);
            session_tokens(&headers).map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(tokens(&["a=1; humidor_session=x-y; b=2"]), ["x-y"]);
        assert_eq!(tokens(&["a=1", "humidor_session=x-y"]), ["x-y"]);
        assert_eq!(tokens(&["humidor_session=z; humidor_session=x-y"]), ["z", "x-y"]);
        assert!(tokens(&["other_humidor_session=x", "humidor_session"]).is_empty());
    }

    #[test]
    fn a_password_may_contain_colons_and_other_schemes_are_ignored() {
        let pair = |value: &str| basic_credentials(&headers(&AUTHORIZATION, &[value]));
        assert_eq!(pair("Basic a2ltOmE6Yg=="), Some(("kim".to_owned(), "a:b".to_owned())));
        for other in ["Basic", "Basic a2lt", "Basic ***", "Bearer a2ltOmE6Yg=="] {
            assert_eq!(pair(other), None, "{other}");
        }
    }
}
