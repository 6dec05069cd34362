//! The brokers that a node may deliver to, and each node's order of them.

use std::cmp::Reverse;
use std::fmt;
use std::str::FromStr;

use ring::digest::{SHA256, digest};

use super::address::{AddressError, BrokerAddress, shown};
use crate::reading::Id;

/// Most brokers of one node.
pub const BROKERS_MAX: usize = 8;
/// Most mistakes in one list of them that are told.
const MISTAKES_MAX: usize = 20;

/// One to [`BROKERS_MAX`] brokers, separated by commas. Where they stand in the list means nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Brokers(Vec<BrokerAddress>);

/// The text is not a list of brokers.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BrokersError {
    /// One of them is no address.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// None.
    #[error("no broker's address: write mqtt://[user@]host[:1883] or mqtts://…")]
    Empty,
    /// Too many.
    #[error("more than {BROKERS_MAX} brokers")]
    TooMany,
    /// Several of these.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
    Several(Vec<Self>),
    /// One host and port stands there twice.
    #[error("`{0}` stands there twice")]
    Twice(String),
}

impl Brokers {
    /// All of them, as they are written.
    pub fn iter(&self) -> std::slice::Iter<'_, BrokerAddress> {
        self.0.iter()
    }

    /// Whether any connection uses TLS.
    #[must_use]
    pub fn use_tls(&self) -> bool {
        self.iter().any(BrokerAddress::is_tls)
    }

    /// The node's order of them, its preferred one first: by rendezvous hashing (Thaler and Ravishankar, 1998). Nodes
    /// spread evenly over the brokers and nobody coordinates them; a broker that goes or comes moves no other node.
    #[must_use]
    pub fn in_order_for(&self, node: &Id) -> Vec<BrokerAddress> {
        let mut order = self.0.clone();
        order.sort_by_cached_key(|broker| {
            let place = format!("{node} {}:{}", broker.host.to_ascii_lowercase(), broker.port);
            Reverse(digest(&SHA256, place.as_bytes()).as_ref().to_vec())
        });
        order
    }
}

impl From<BrokerAddress> for Brokers {
    fn from(broker: BrokerAddress) -> Self {
        Self(vec![broker])
    }
}

impl<'a> IntoIterator for &'a Brokers {
    type Item = &'a BrokerAddress;
    type IntoIter = std::slice::Iter<'a, BrokerAddress>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl FromStr for Brokers {
    type Err = BrokersError;

    fn from_str(text: &str) -> Result<Self, BrokersError> {
        let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
        let mut brokers: Vec<BrokerAddress> = Vec::new();
        let mut mistakes: Vec<BrokersError> = Vec::new();
        let mut note = |mistake: BrokersError| {
            // A password with a comma is one mistake, in several parts.
            if mistakes.len() < MISTAKES_MAX && !mistakes.contains(&mistake) {
                mistakes.push(mistake);
            }
        };
        for broker in items.map(BrokerAddress::from_str) {
            match broker {
                // A password may have a comma: its begin is not shown either.
                Err(AddressError::Malformed { .. }) if text.contains('@') => {
                    note(
                        AddressError::Malformed { shown: shown(text), near: String::new() }.into(),
                    );
                }
                Err(error) => note(error.into()),
                Ok(broker) if brokers.iter().any(|it| it.is_at(&broker)) => {
                    note(BrokersError::Twice(format!("{}:{}", broker.host, broker.port)));
                }
                Ok(broker) => brokers.push(broker),
            }
        }
        match (mistakes.len(), brokers.len()) {
            (0, 0) => Err(BrokersError::Empty),
            (0, 1..=BROKERS_MAX) => Ok(Self(brokers)),
            (0, _) => Err(BrokersError::TooMany),
            (1, _) => Err(mistakes.remove(0)),
            _ => Err(BrokersError::Several(mistakes)),
        }
    }
}

impl fmt::Display for Brokers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, broker) in self.iter().enumerate() {
            write!(f, "{}{broker}", if n == 0 { "" } else { "," })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn brokers(text: &str) -> Brokers {
        text.parse().unwrap()
    }

    fn preferred(brokers: &Brokers, node: usize) -> BrokerAddress {
        brokers.in_order_for(&format!("board-{node}").parse().unwrap()).remove(0)
    }

    #[test]
    fn a_list_is_read_and_a_wrong_one_is_said() {
        let two = brokers(" mqtt://a , mqtts://kim@b:9000,");
        assert_eq!(two.to_string(), "mqtt://a:1883,mqtts://kim@b:9000");
        assert!(two.use_tls() && !brokers("mqtt://a").use_tls());
        assert_eq!(" , ".parse::<Brokers>(), Err(BrokersError::Empty));
        for twice in ["mqtt://a,mqtt://A:1883", "mqtt://a:1,mqtts://kim@a:1"] {
            assert!(matches!(twice.parse::<Brokers>(), Err(BrokersError::Twice(_))), "{twice}");
        }
        let many = (0..=BROKERS_MAX).map(|n| format!("mqtt://h{n}")).collect::<Vec<_>>().join(",");
        assert_eq!(many.parse::<Brokers>(), Err(BrokersError::TooMany));
        let error = "mqtt://a,mqtt://kim:S3cret@b".parse::<Brokers>().unwrap_err().to_string();
        assert!(error.contains("HUMIDOR_PASSWORD_FILE") && !error.contains("S3cret"), "{error}");
        let error = "mqtt://kim:S3,cret@b".parse::<Brokers>().unwrap_err().to_string();
        assert!(error.contains("`mqtt://…@b`") && !error.contains("S3"), "{error}");
    }

    #[test]
    fn nodes_spread_over_the_brokers_and_one_that_goes_moves_only_its_own() {
        let three = brokers("mqtt://a,mqtt://b,mqtt://c");
        let two = brokers("mqtt://c,mqtt://a");
        let mut counts = [0; 3];
        for node in 0..900 {
            let first = preferred(&three, node);
            counts[three.iter().position(|it| *it == first).unwrap()] += 1;
            if first.host != "b" {
                assert_eq!(preferred(&two, node), first, "{node}");
            }
        }
        // Five standard deviations of a fair choice.
        assert!(counts.iter().all(|count| (230..=370).contains(count)), "{counts:?}");
    }

    #[test]
    fn the_order_is_the_same_in_every_version() {
        let order = |node: &str| {
            let order = brokers("mqtt://hall-a,mqtts://kim@hall-b,mqtt://hall-c")
                .in_order_for(&node.parse().unwrap());
            order.iter().map(|it| it.host.chars().last().unwrap()).collect::<String>()
        };
        // By `printf '%s' 'pi4 hall-a:1883' | sha256sum` and so on.
        assert_eq!((order("pi4").as_str(), order("zero").as_str()), ("bca", "cba"));
    }
}
