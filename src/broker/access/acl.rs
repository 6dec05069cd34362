//! Topic rules, compiled for one client: the first rule that matches a topic decides, and a topic that no rule matches
//! is denied. Pure.

use std::fmt;
use std::str::FromStr;

use crate::mqtt::{Filter, FilterError};
use crate::reading::Id;
use crate::wire::{CLIENT_ID_PREFIX, is_brokers_own, is_ours, is_reserved_id};

/// The access that a rule allows or denies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Access {
    /// Subscribing and receiving.
    Read,
    /// Publishing.
    Write,
    /// Both.
    All,
}

/// `allow write plant/%u/#`. The filter may have placeholders: `%u` is the user's name, `%c` the client id, `%n` the
/// node id in the client id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    allow: bool,
    access: Access,
    pattern: String,
}

/// Why a text is no rule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RuleError {
    /// Not three words.
    #[error(
        "`{0}` is no rule: write `allow write plant/%u/#` (allow or deny; read, write or all; a topic filter)"
    )]
    Form(String),
    /// The filter is malformed.
    #[error("`{rule}`: {cause}")]
    Filter {
        /// The rule.
        rule: String,
        /// Why not.
        cause: FilterError,
    },
    /// An unknown letter follows `%`.
    #[error("`{0}`: after `%` only u (user), c (client id) and n (node) are allowed")]
    Placeholder(String),
}

impl FromStr for Rule {
    type Err = RuleError;

    fn from_str(text: &str) -> Result<Self, RuleError> {
        let form = || RuleError::Form(text.to_owned());
        let mut words = text.splitn(3, ' ');
        let allow = match words.next() {
            Some("allow") => true,
            Some("deny") => false,
            _ => return Err(form()),
        };
        let access = match words.next() {
            Some("read") => Access::Read,
            Some("write") => Access::Write,
            Some("all") => Access::All,
            _ => return Err(form()),
        };
        let pattern = words.next().ok_or_else(form)?.trim();
        let example = pattern.replace("%u", "x").replace("%c", "x").replace("%n", "x");
        if example.contains('%') {
            return Err(RuleError::Placeholder(text.to_owned()));
        }
        match example.parse::<Filter>() {
            Ok(filter) if !filter.is_shared() => {
                Ok(Self { allow, access, pattern: pattern.to_owned() })
            }
            Ok(_) => Err(form()),
            Err(cause) => Err(RuleError::Filter { rule: text.to_owned(), cause }),
        }
    }
}

/// A named set of rules that follows a user's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Everything, `$SYS` too.
    Admin,
    /// Reads everything and commands outputs: Home Assistant, a dashboard, a person.
    Operator,
    /// Reads everything.
    Reader,
    /// One board, whose user name is its node id.
    Node,
    /// All boards share this user; each has the topics of the node id in its client id.
    Fleet,
    /// Nothing but the user's own rules.
    #[default]
    None,
}

/// All roles by name, the one with the most rights first.
pub const ROLES: [(&str, Role); 6] = [
    ("admin", Role::Admin),
    ("operator", Role::Operator),
    ("reader", Role::Reader),
    ("node", Role::Node),
    ("fleet", Role::Fleet),
    ("none", Role::None),
];

impl Role {
    const fn rules(self) -> &'static [(Access, &'static str)] {
        match self {
            Self::Admin => &[(Access::All, "#"), (Access::All, "$SYS/#")],
            Self::Operator => &[
                (Access::Read, "#"),
                (Access::Read, "$SYS/#"),
                (Access::Write, "humidor/+/output/+/set"),
                // Home Assistant's birth and will, under any prefix.
                (Access::Write, "+/status"),
            ],
            Self::Reader => &[(Access::Read, "#"), (Access::Read, "$SYS/#")],
            Self::Node => &[
                (Access::All, "humidor/%u/#"),
                (Access::Read, "humidor/broker/status"),
                (Access::Write, "+/device/humidor_%u/config"),
                (Access::Read, "+/status"),
            ],
            Self::Fleet => &[
                (Access::All, "humidor/%n/#"),
                (Access::Read, "humidor/broker/status"),
                (Access::Write, "+/device/humidor_%n/config"),
                (Access::Read, "+/status"),
            ],
            Self::None => &[],
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = ROLES.iter().find(|(_, role)| role == self).map_or("none", |(name, _)| name);
        f.pad(name)
    }
}

/// A rule with its placeholders replaced.
#[derive(Debug, Clone)]
struct CompiledRule {
    allow: bool,
    access: Access,
    filter: Filter,
}

/// The rules of one connection.
#[derive(Debug, Clone, Default)]
pub struct CompiledAcl(Vec<CompiledRule>);

/// A rule has a placeholder, and the client's value for it would change the meaning of the rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum UnfitName {
    /// The value of `%c`.
    #[error(
        "a rule has %c, and the client id has `/`, `+`, `#` or `%`, begins with `$`, or is `broker`, `alarm`, or `humidor` where it would be the first level"
    )]
    ClientId,
    /// The value of `%n`.
    #[error(
        "a rule has %n, and the client id is that of a node `broker`, `alarm`, or `humidor` as the first level: these are topics of others"
    )]
    Node,
    /// The value of `%u`.
    #[error(
        "a rule of the user or its role has %u, and `broker`, `alarm`, and `humidor` as the first level are topics of others; give the user another name"
    )]
    User,
    /// The filter that a rule becomes.
    #[error("a rule is no topic filter of at most 1024 bytes with the names of this client in it")]
    Rule,
}

impl CompiledAcl {
    /// Rules that allow everything.
    #[cfg(test)]
    pub fn everything() -> Self {
        Self::new(&[], Role::Admin, None, "c").expect("no rule has %c")
    }

    /// Compiles `rules`, then those of `role`, for one user and client id.
    ///
    /// # Errors
    /// When a rule has a placeholder whose value could widen an `allow` or narrow a `deny`: it has a character with a
    /// meaning in filters, or is a level that belongs to the broker.
    pub fn new(
        rules: &[&[Rule]],
        role: Role,
        user: Option<&str>,
        client_id: &str,
    ) -> Result<Self, UnfitName> {
        let own = rules.iter().copied().flatten();
        let own = own.map(|rule| (rule.allow, rule.access, rule.pattern.as_str()));
        let of_role = role.rules().iter().map(|(access, pattern)| (true, *access, *pattern));
        let mut acl = Vec::new();
        for (allow, access, pattern) in own.chain(of_role) {
            if let Some(filter) = fill_in(pattern, user, client_id)? {
                acl.push(CompiledRule { allow, access, filter });
            }
        }
        Ok(Self(acl))
    }

    /// Whether this topic may be published to. Nobody publishes to the broker's own topics.
    #[must_use]
    pub fn may_write(&self, topic: &str) -> bool {
        let mut about = self.writing();
        !is_brokers_own(topic)
            && about.find(|rule| rule.filter.matches(topic)).is_some_and(|rule| rule.allow)
    }

    /// Whether a message of this topic may be received.
    #[must_use]
    pub fn may_read(&self, topic: &str) -> bool {
        let mut about = self.reading();
        about.find(|rule| rule.filter.matches(topic)).is_some_and(|rule| rule.allow)
    }

    /// Whether this filter may be subscribed to. A filter that also matches denied topics is granted, since
    /// [`CompiledAcl::may_read`] checks each message. In a shared subscription it is not granted: a message that one
    /// member may not read would be lost to the others.
    #[must_use]
    pub fn may_subscribe(&self, filter: &Filter) -> bool {
        if filter.is_shared() {
            return self.reads_all(filter);
        }
        self.reading().find(|rule| contains(&rule.filter, filter)).is_some_and(|rule| rule.allow)
    }

    /// Whether every topic that `filter` matches may be read.
    #[must_use]
    pub fn reads_all(&self, filter: &Filter) -> bool {
        self.reading()
            .find(|rule| {
                contains(&rule.filter, filter) || !rule.allow && meet(&rule.filter, filter)
            })
            .is_some_and(|rule| rule.allow)
    }

    /// Whether some topic that `filter` matches may be read, as far as single rules tell.
    #[must_use]
    pub fn reads_some(&self, filter: &Filter) -> bool {
        allows_some(self.reading(), filter)
    }

    /// Whether some topic that `filter` matches may be published to, as far as single rules tell.
    #[must_use]
    pub fn writes_some(&self, filter: &Filter) -> bool {
        allows_some(self.writing(), filter)
    }

    fn reading(&self) -> impl Iterator<Item = &CompiledRule> {
        self.0.iter().filter(|rule| rule.access != Access::Write)
    }

    fn writing(&self) -> impl Iterator<Item = &CompiledRule> {
        self.0.iter().filter(|rule| rule.access != Access::Read)
    }
}

/// The filter of a rule for one client; `None` where the client has no value for a placeholder of it: the rule does not
/// apply to it.
fn fill_in(
    pattern: &str,
    user: Option<&str>,
    client_id: &str,
) -> Result<Option<Filter>, UnfitName> {
    let mut filled = pattern.to_owned();
    if pattern.contains("%c") {
        if client_id.contains(['/', '+', '#', '%'])
            || client_id.starts_with('$')
            || is_reserved_id(client_id)
        {
            return Err(UnfitName::ClientId);
        }
        filled = filled.replace("%c", client_id);
    }
    if pattern.contains("%n") {
        let Some(node) = node_of(client_id) else { return Ok(None) };
        if is_reserved_id(node.as_str()) {
            return Err(UnfitName::Node);
        }
        filled = filled.replace("%n", node.as_str());
    }
    if pattern.contains("%u") {
        let Some(user) = user else { return Ok(None) };
        if is_reserved_id(user) {
            return Err(UnfitName::User);
        }
        filled = filled.replace("%u", user);
    }
    if is_ours(&filled) && !is_ours(pattern) {
        let begin = pattern.split('/').next().unwrap_or_default();
        return Err(if begin.contains("%c") {
            UnfitName::ClientId
        } else if begin.contains("%n") {
            UnfitName::Node
        } else {
            UnfitName::User
        });
    }
    match filled.parse::<Filter>() {
        Ok(filter) if !filter.is_shared() => Ok(Some(filter)),
        _ => Err(UnfitName::Rule),
    }
}

/// The node whose client id this is.
fn node_of(client_id: &str) -> Option<Id> {
    client_id.strip_prefix(CLIENT_ID_PREFIX)?.parse().ok()
}

fn allows_some<'a>(rules: impl Iterator<Item = &'a CompiledRule>, filter: &Filter) -> bool {
    for rule in rules {
        if rule.allow && meet(&rule.filter, filter) {
            return true;
        }
        if !rule.allow && contains(&rule.filter, filter) {
            return false;
        }
    }
    false
}

/// Whether every topic that `part` matches, `whole` matches too.
fn contains(whole: &Filter, part: &Filter) -> bool {
    let (whole, part) = (whole.parts().1, part.parts().1);
    if part.starts_with('$') && whole.starts_with(['+', '#']) {
        return false;
    }
    let mut levels = part.split('/');
    for wanted in whole.split('/') {
        match (wanted, levels.next()) {
            ("#", _) => return true,
            (_, None) | ("+", Some("#")) => return false,
            ("+", Some(_)) => {}
            (wanted, Some(level)) if wanted == level => {}
            _ => return false,
        }
    }
    levels.next().is_none()
}

/// Whether there is a topic that both match.
fn meet(one: &Filter, other: &Filter) -> bool {
    let (one, other) = (one.parts().1, other.parts().1);
    if one.starts_with('$') != other.starts_with('$') {
        return false;
    }
    let (mut one, mut other) = (one.split('/'), other.split('/'));
    loop {
        match (one.next(), other.next()) {
            (Some("#"), _) | (_, Some("#")) | (None, None) => return true,
            (Some(a), Some(b)) if a == b || a == "+" || b == "+" => {}
            _ => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn acl(rules: &[&str], role: Role, user: &str, client_id: &str) -> CompiledAcl {
        let rules: Vec<Rule> = rules.iter().map(|rule| rule.parse().unwrap()).collect();
        CompiledAcl::new(&[&rules], role, Some(user), client_id).unwrap()
    }

    fn filter(text: &str) -> Filter {
        text.parse().unwrap()
    }

    #[test]
    fn a_node_writes_only_its_own_and_reads_its_commands() {
        for node in [
            acl(&[], Role::Node, "press", "anything"),
            acl(&[], Role::Fleet, "boards", "humidor-press"),
        ] {
            assert!(node.may_write("humidor/press/sensor/hall"));
            assert!(!node.may_write("humidor/oven/sensor/hall"));
            assert!(!node.may_write("humidor/press2/sensor/hall"));
            assert!(!node.may_write("plant/press"));
            assert!(node.may_subscribe(&filter("humidor/press/output/+/set")));
            assert!(node.may_subscribe(&filter("humidor/press/output/fan/set")));
            assert!(node.may_write("homeassistant/device/humidor_press/config"));
            assert!(!node.may_write("homeassistant/device/humidor_oven/config"));
            assert!(!node.may_write("homeassistant/status"));
            for other in ["#", "humidor/#", "humidor/+/output/+/set", "humidor/oven/output/+/set"] {
                assert!(!node.may_subscribe(&filter(other)), "{other}");
            }
        }
        let stranger = acl(&[], Role::Fleet, "boards", "mosquitto-77");
        assert!(!stranger.may_write("humidor/mosquitto-77/sensor/hall"));
    }

    #[test]
    fn the_first_rule_that_matches_decides() {
        let user = acl(
            &["deny all plant/secret/#", "allow read plant/#", "allow write plant/%u/%c"],
            Role::None,
            "plc",
            "gate-1",
        );
        assert!(user.may_write("plant/plc/gate-1") && !user.may_write("plant/plc/gate-2"));
        assert!(user.may_read("plant/press") && !user.may_read("plant/secret/recipe"));
        assert!(!user.may_read("office"));
        assert!(user.may_subscribe(&filter("plant/#")), "each message is checked");
        assert!(
            !user.may_subscribe(&filter("$share/g/plant/#")),
            "messages cannot be checked for one member"
        );
        assert!(!user.may_subscribe(&filter("plant/secret/x")));
        assert!(!user.may_subscribe(&filter("#")));
    }

    #[test]
    fn one_topic_can_be_denied_to_an_admin() {
        let user = acl(&["deny read test/nosubscribe"], Role::Admin, "paho", "c");
        assert!(!user.may_subscribe(&filter("test/nosubscribe")));
        assert!(user.may_subscribe(&filter("#")) && user.may_subscribe(&filter("test/+")));
        assert!(user.may_write("test/nosubscribe"));
        assert!(!user.may_read("test/nosubscribe"));
    }

    #[test]
    fn a_client_id_cannot_bring_a_wildcard_into_a_rule() {
        let rules: [Rule; 1] = ["allow all own/%c/#".parse().unwrap()];
        for id in ["+", "#", "a/b", "+/#", "%u", "$share", "$SYS", "$x", "broker", "alarm"] {
            let refused = CompiledAcl::new(&[&rules], Role::None, Some("u"), id);
            assert_eq!(refused.map(|_| ()), Err(UnfitName::ClientId), "{id}");
        }
        let nobody = CompiledAcl::new(&[&rules], Role::Node, None, "a").unwrap();
        assert!(nobody.may_write("own/a/x") && !nobody.may_write("humidor//x"));
        // No name makes a rule about topics of ours of one that is not.
        for (pattern, user, id, why) in [
            ("allow all %c/#", "u", "humidor", UnfitName::ClientId),
            ("allow all %c/up/#", "u", "humidor", UnfitName::ClientId),
            ("allow all hum%c/#", "u", "idor", UnfitName::ClientId),
            ("allow all %n/#", "u", "humidor-humidor", UnfitName::Node),
            ("allow all %u/#", "humidor", "c", UnfitName::User),
        ] {
            let rules: [Rule; 1] = [pattern.parse().unwrap()];
            let refused = CompiledAcl::new(&[&rules], Role::None, Some(user), id);
            assert_eq!(refused.map(|_| ()), Err(why), "{pattern}");
        }
        let below: [Rule; 1] = ["allow all humidor/%c/#".parse().unwrap()];
        assert!(CompiledAcl::new(&[&below], Role::None, Some("u"), "humidor").is_ok());
        // The rest of the pattern can make a shared filter of it, too.
        let shared: [Rule; 1] = ["allow all $%c/up/#".parse().unwrap()];
        let refused = CompiledAcl::new(&[&shared], Role::None, Some("u"), "share");
        assert_eq!(refused.map(|_| ()), Err(UnfitName::Rule));
    }

    #[test]
    fn a_rule_that_no_filter_becomes_of_denies_the_login() {
        let rules: [Rule; 2] =
            ["deny all %c/%c/%c/%c/%c".parse().unwrap(), "allow all #".parse().unwrap()];
        let long = "c".repeat(256);
        let refused = CompiledAcl::new(&[&rules], Role::Admin, Some("u"), &long);
        assert_eq!(refused.map(|_| ()), Err(UnfitName::Rule));
    }

    #[test]
    fn the_broker_alone_speaks_as_the_broker() {
        let admin = acl(&["allow all #"], Role::Admin, "root", "c");
        for topic in [
            "humidor/broker/status",
            "humidor/broker",
            "humidor/alarm/hot",
            "homeassistant/device/humidor_broker/config",
            "plant/ha/device/humidor_broker/config",
            "$SYS/broker/uptime",
        ] {
            assert!(!admin.may_write(topic), "{topic}");
            assert!(admin.may_read(topic) || topic.starts_with('$'), "{topic}");
        }
        for topic in ["humidor/brokers/status", "humidor", "plant/humidor/broker/status"] {
            assert!(admin.may_write(topic), "{topic}");
        }
        for (role, user, client_id, why) in [
            (Role::Node, "broker", "c", UnfitName::User),
            (Role::Node, "alarm", "c", UnfitName::User),
            (Role::Fleet, "boards", "humidor-broker", UnfitName::Node),
            (Role::Fleet, "boards", "humidor-alarm", UnfitName::Node),
        ] {
            let refused = CompiledAcl::new(&[], role, Some(user), client_id).map(|_| ());
            assert_eq!(refused, Err(why), "{user} {client_id}");
        }
        assert!(CompiledAcl::new(&[], Role::Reader, Some("broker"), "humidor-broker").is_ok());
    }

    #[test]
    fn all_and_some_of_a_filter_are_told_apart() {
        let user =
            acl(&["deny read humidor/secret/#", "allow read humidor/#"], Role::None, "u", "c");
        assert!(!user.reads_all(&filter("humidor/#")) && user.reads_some(&filter("humidor/#")));
        assert!(user.reads_all(&filter("humidor/press/#")));
        assert!(!user.reads_some(&filter("humidor/secret/#")));
        assert!(!user.reads_some(&filter("plant/#")) && !user.writes_some(&filter("humidor/#")));
        let node = acl(&[], Role::Node, "press", "c");
        assert!(node.writes_some(&filter("humidor/+/output/+/set")));
    }

    #[test]
    fn a_text_that_is_no_rule_is_refused_by_cause() {
        for wrong in ["", "allow", "allow write", "permit read #", "allow read a/#/b", "deny own x"]
        {
            assert!(wrong.parse::<Rule>().is_err(), "{wrong}");
        }
        let placeholder = "allow read %d/#".parse::<Rule>();
        assert!(matches!(placeholder, Err(RuleError::Placeholder(_))));
    }
}
