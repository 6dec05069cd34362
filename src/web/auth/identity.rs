//! The identity behind a request, and the checks of what it may do.

use std::sync::Arc;

use axum::http::StatusCode;
use axum::http::header::WWW_AUTHENTICATE;
use axum::response::{IntoResponse, Response};

use super::guests::GuestPermissions;
use crate::broker::Permissions;
use crate::mqtt::Filter;
use crate::web::http_error::HttpError;

/// A user who may subscribe to this filter may read over HTTP.
const READ_FILTER: &str = "humidor/#";

/// A user or a guest; in the extensions of every request behind the authentication.
#[derive(Debug, Clone)]
pub struct Identity {
    /// The user's permissions; `None` for a guest.
    permissions: Option<Arc<Permissions>>,
    /// The user's name; `None` for a guest.
    pub user: Option<Arc<str>>,
    /// Whether the log and the boards may be read.
    pub may_read: bool,
    /// Whether outputs may be switched; a user's rules then decide for each output.
    pub may_switch: bool,
}

impl Identity {
    /// A guest with these permissions.
    pub const fn guest(GuestPermissions { read, switch }: GuestPermissions) -> Self {
        Self { permissions: None, user: None, may_read: read, may_switch: switch }
    }

    /// A user, with the permissions that the broker granted.
    pub fn user(name: Arc<str>, permissions: Arc<Permissions>) -> Self {
        let filter: Result<Filter, _> = READ_FILTER.parse();
        let may_read = filter.is_ok_and(|filter| permissions.acl().may_subscribe(&filter));
        Self { permissions: Some(permissions), user: Some(name), may_read, may_switch: true }
    }

    /// Whether this identity may publish to `topic`.
    pub fn may_publish(&self, topic: &str) -> bool {
        self.may_switch
            && self.permissions.as_ref().is_none_or(|permissions| permissions.may_write(topic))
    }

    /// The response to a request that this identity may not send: 403 for a user, 401 for a guest. `action` follows
    /// "may not" and "log in to".
    pub fn refuse(&self, action: &str) -> Response {
        if let Some(user) = &self.user {
            let error =
                format!("user `{user}` may not {action}; `humidor user list` shows its role");
            return HttpError::new(StatusCode::FORBIDDEN, error).into_response();
        }
        let error =
            format!("log in to {action}; HUMIDOR_HTTP_GUESTS sets what is allowed without a login");
        // At `Basic` a browser would open a login window of its own.
        let challenge = [(WWW_AUTHENTICATE, "Session realm=\"humidor\"")];
        (challenge, HttpError::new(StatusCode::UNAUTHORIZED, error)).into_response()
    }
}
