//! The identity behind a request, and the checks of what it may do. They are the broker's checks of the MQTT topic that
//! holds the same thing, so that a rule means the same over HTTP as over MQTT.

use std::net::IpAddr;
use std::sync::{Arc, LazyLock};

use axum::http::StatusCode;
use axum::http::header::WWW_AUTHENTICATE;
use axum::response::{IntoResponse, Response};

use crate::broker::{Permissions, origin};
use crate::mqtt::Filter;
use crate::reading::Id;
use crate::web::http_error::HttpError;
use crate::wire::{NodeTopics, SYS_BROKER, alarm_topic};

/// All topics but the broker's own, which no client's message has.
static EVERYTHING: LazyLock<Filter> = LazyLock::new(|| filter("#"));
/// Topics of what HTTP shows of boards, sensors and alarms.
static BOARDS: LazyLock<Filter> = LazyLock::new(|| filter("humidor/#"));
/// Topics of what the metrics show of the broker.
static COUNTERS: LazyLock<Filter> = LazyLock::new(|| filter(&format!("{SYS_BROKER}#")));
/// Topics of commands to outputs.
static COMMANDS: LazyLock<Filter> = LazyLock::new(|| filter("humidor/+/output/+/set"));

fn filter(text: &str) -> Filter {
    text.parse().expect("a filter of ours")
}

/// A user or a guest; in the extensions of every request behind the authentication.
#[derive(Debug, Clone)]
// Each is a permission of its own.
#[expect(clippy::struct_excessive_bools)]
pub struct Identity {
    /// `None` for a guest that may do nothing.
    permissions: Option<Arc<Permissions>>,
    /// The user's name; `None` for a guest.
    pub user: Option<Arc<str>>,
    /// Whose share of the pools its requests have: its user's, or its address's.
    pub holder: Arc<str>,
    /// Whether anything may be read.
    pub may_read: bool,
    /// Whether some output may be switched.
    pub may_switch: bool,
    /// Whether a node may be forgotten: the role admin, or where there are no users the broker's own machine.
    pub may_forget: bool,
    /// Whether all boards, sensors and alarms may be read, so that single ones need no check.
    reads_all: bool,
    /// Whether other publishers' topics may all be read.
    reads_foreign: bool,
}

impl Identity {
    /// A guest; `None`: without any permission.
    pub fn guest(from: IpAddr, permissions: Option<Permissions>, may_forget: bool) -> Self {
        let holder = origin(from).to_string().into();
        Self { may_forget, ..Self::new(None, holder, permissions.map(Arc::new)) }
    }

    /// A user, with the permissions that the broker granted.
    pub fn user(name: Arc<str>, permissions: Arc<Permissions>) -> Self {
        Self::new(Some(Arc::clone(&name)), name, Some(permissions))
    }

    fn new(
        user: Option<Arc<str>>,
        holder: Arc<str>,
        permissions: Option<Arc<Permissions>>,
    ) -> Self {
        let has = |check: fn(&Permissions) -> bool| permissions.as_deref().is_some_and(check);
        let may_read =
            has(|permissions| permissions.reads_some(&BOARDS) || permissions.reads_some(&COUNTERS));
        let may_switch = has(|permissions| permissions.writes_some(&COMMANDS));
        let reads_all = has(|permissions| permissions.reads_all(&BOARDS));
        let reads_foreign = has(|permissions| permissions.reads_all(&EVERYTHING));
        let may_forget = has(Permissions::is_admin);
        Self {
            permissions,
            user,
            holder,
            may_read,
            may_switch,
            may_forget,
            reads_all,
            reads_foreign,
        }
    }

    /// Whether this identity may publish to `topic`. A refusal is counted, and logged, throttled.
    pub fn may_publish(&self, topic: &str) -> bool {
        self.permissions.as_ref().is_some_and(|permissions| permissions.may_write(topic))
    }

    /// Whether this identity may read all boards, sensors and alarms.
    pub const fn reads_all(&self) -> bool {
        self.reads_all
    }

    /// Whether this identity may read a message of `topic`.
    pub fn may_read_topic(&self, topic: &str) -> bool {
        self.permissions.as_ref().is_some_and(|permissions| permissions.may_read(topic))
    }

    /// Whether this identity may read what other publishers send.
    pub const fn may_read_foreign_topics(&self) -> bool {
        self.reads_foreign
    }

    /// Whether this identity may read what another publisher sends on `topic`.
    pub fn may_read_foreign(&self, topic: &str) -> bool {
        self.reads_foreign || self.may_read_topic(topic)
    }

    /// Whether this identity may read every message that `filter` matches.
    pub fn may_read_filter(&self, filter: &Filter) -> bool {
        self.reads_all
            || self.permissions.as_ref().is_some_and(|permissions| permissions.reads_all(filter))
    }

    /// Whether this identity may read the readings of a sensor. Names that are no ids are nobody's.
    pub fn may_read_sensor(&self, node: &str, sensor: &str) -> bool {
        let ids = || Some((node.parse::<Id>().ok()?, sensor.parse::<Id>().ok()?));
        self.reads_all
            || ids().is_some_and(|(node, sensor)| {
                self.may_read_topic(&NodeTopics::new(node).sensor(&sensor))
            })
    }

    /// Whether this identity may read the state of an alarm.
    pub fn may_read_alarm(&self, alarm: &Id) -> bool {
        self.reads_all || self.may_read_topic(&alarm_topic(alarm))
    }

    /// Whether this identity may read a report of the broker: `$SYS/broker/<report>`.
    pub fn may_read_report(&self, report: &str) -> bool {
        self.may_read_topic(&format!("{SYS_BROKER}{report}"))
    }

    /// Whether the permissions are no longer valid.
    pub fn is_withdrawn(&self) -> bool {
        self.permissions.as_ref().is_none_or(|permissions| permissions.are_withdrawn())
    }

    /// Resolves when the permissions are no longer valid.
    pub async fn withdrawn(&self) {
        if let Some(permissions) = &self.permissions {
            permissions.withdrawn().await;
        }
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
