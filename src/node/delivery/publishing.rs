//! What publishing needs over any number of connections, and what the broker's messages mean to it.

use std::sync::Arc;
use std::time::Duration;

use rumqttc::{Publish, QoS, SubAck, SubscribeReasonCode};
use tokio::time::Instant;
use tracing::{debug, info, warn};

use super::outbox::Outbox;
use super::subscriptions::{Answer, Purpose, Subscriptions};
use super::vitals::Vitals;
use crate::node::config::DeliveryTimes;
use crate::node::discovery::DiscoveryMessage;
use crate::node::io::switches::Switches;
use crate::throttled_log::ThrottledLog;
use crate::wire::{Command, NodeTopics, ONLINE};

/// Time between two lines on messages that are no commands.
const COMPLAINT_INTERVAL: Duration = Duration::from_mins(1);

/// What publishing needs, over any number of connections.
#[derive(Debug)]
pub struct Publishing {
    /// Topics of this node.
    pub topics: NodeTopics,
    /// The readings to deliver.
    pub outbox: Arc<Outbox>,
    /// The states to publish, and the receiver of commands.
    pub switches: Arc<Switches>,
    /// The message for Home Assistant.
    pub discovery: Option<DiscoveryMessage>,
    /// How the connection is, for health.
    pub vitals: Arc<Vitals>,
    /// What is subscribed to.
    pub subscriptions: Subscriptions,
    /// Whether the next connection subscribes before readings are acknowledged: the subscriptions of the one before did no harm,
    /// and commands are to arrive again soon.
    pub subscribe_first: bool,
    /// Its times.
    pub times: DeliveryTimes,
    complaint: ThrottledLog,
    retained_line: ThrottledLog,
}

impl Publishing {
    /// Before the first connection. A node with outputs subscribes to commands.
    pub fn new(
        topics: NodeTopics,
        outbox: Arc<Outbox>,
        switches: Arc<Switches>,
        discovery: Option<DiscoveryMessage>,
        vitals: Arc<Vitals>,
        commanded: bool,
        times: DeliveryTimes,
    ) -> Self {
        let commands = commanded.then(|| (topics.commands(), QoS::AtLeastOnce, Purpose::Commands));
        let birth =
            discovery.as_ref().map(|it| (it.birth.clone(), QoS::AtMostOnce, Purpose::Birth));
        let filters = commands.into_iter().chain(birth);
        let subscriptions = Subscriptions::new(filters, times.subscribe_again);
        let complaint = ThrottledLog::new(COMPLAINT_INTERVAL);
        let retained_line = ThrottledLog::new(COMPLAINT_INTERVAL);
        Self {
            topics,
            outbox,
            switches,
            discovery,
            vitals,
            subscriptions,
            subscribe_first: false,
            times,
            complaint,
            retained_line,
        }
    }

    /// A packet has come from the broker. It counts as heard only while it would deliver commands.
    pub fn packet_received(&self) {
        if self.subscriptions.is_granted(&self.topics.commands()) {
            self.switches.broker_heard();
        }
    }

    /// Handles the answer to a subscription.
    pub fn subscription_answered(&mut self, ack: &SubAck) {
        let granted = matches!(ack.return_codes[..], [SubscribeReasonCode::Success(_), ..]);
        let now = Instant::now();
        match self.subscriptions.answered(ack.pkid, granted, now) {
            Answer::Refused(filter) => warn!(
                filter,
                "the broker refuses the subscription: allow this user to read the topic; until then its messages do not arrive, and outputs without commands stay safe"
            ),
            Answer::GrantedNow(filter) => info!(filter, "the broker grants the subscription now"),
            Answer::AsBefore => {}
        }
        self.packet_received();
        self.vitals.refused(self.subscriptions.missing(now));
    }

    /// Notes which subscriptions are missing now, and says which are not answered.
    pub fn note_missing(&mut self, now: Instant) {
        if let Some(filter) = self.subscriptions.take_unanswered(now) {
            warn!(
                filter,
                "the broker does not answer the subscription: its messages do not arrive, and outputs without commands stay safe"
            );
        }
        self.vitals.refused(self.subscriptions.missing(now));
    }

    /// Whether this is Home Assistant's birth message. A retained one is from before this connection, which publishes
    /// the discovery message anyway.
    pub fn is_birth(&self, publish: &Publish) -> bool {
        self.discovery.as_ref().is_some_and(|discovery| discovery.birth == publish.topic)
            && publish.payload == ONLINE.as_bytes()
            && !publish.retain
    }

    /// Passes a command on to its output. A retained command may be old, so it is not carried out. The output's
    /// state is retained too, and is the present one.
    pub fn handle_command(&self, publish: &Publish) {
        let Some(name) = self.topics.commanded(&publish.topic) else {
            debug!(topic = %publish.topic, "message on a topic without a use here");
            return;
        };
        // Where the broker refused the subscription, nobody could switch the output off again.
        if !self.subscriptions.is_expected(&self.topics.commands()) {
            debug!(topic = %publish.topic, "command without a subscription");
            return;
        }
        if publish.retain {
            if let Some(left_out) = self.retained_line.due(std::time::Instant::now()) {
                info!(output = %name, left_out, "a retained command is not carried out; send commands without `retain`");
            }
            return;
        }
        match Command::parse(&publish.payload) {
            Ok(command) => {
                self.switches.broker_heard();
                self.switches.send_command(&name, command);
            }
            Err(error) => {
                if let Some(left_out) = self.complaint.due(std::time::Instant::now()) {
                    warn!(output = %name, %error, left_out, "payload is not a command");
                }
            }
        }
    }
}
