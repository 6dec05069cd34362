//! SUBSCRIBE and UNSUBSCRIBE: a granted subscription enters the index at once. It is committed where the session
//! outlives its connection, then acknowledged, and the retained messages follow.

use std::sync::Arc;

use tracing::debug;

use super::{Batch, Client};
use crate::broker::access::permissions::NotGranted;
use crate::broker::delivery::retained_replay::ReplayRequest;
use crate::mqtt::codec::{self, Reason, RetainHandling, Subscribe, Unsubscribe};
use crate::mqtt::{Filter, QoS};
use crate::store::{Change, Options};

impl Client<'_> {
    pub(super) fn subscribe(&mut self, subscribe: Subscribe, batch: &mut Batch) {
        let mut granted = Vec::new();
        for wanted in subscribe.filters {
            let filter = match self.grant(&wanted.filter) {
                Ok(filter) => filter,
                Err(refusal) => {
                    debug!(filter = wanted.filter, reason = %refusal, "subscription not granted");
                    granted.push(Err(refusal.reason()));
                    continue;
                }
            };
            granted.push(Ok(wanted.qos));
            let options = Options {
                qos: wanted.qos,
                no_local: wanted.no_local,
                retain_as_published: wanted.retain_as_published,
                identifier: subscribe.identifier,
            };
            let (known, request) = self.hold(filter, options, batch);
            let replayed = match wanted.retain_handling {
                RetainHandling::Always => true,
                RetainHandling::New => !known,
                RetainHandling::Never => false,
            };
            // MQTT 5.0 §4.8.2: none for a shared subscription.
            if !replayed || request.filter.is_shared() {
                continue;
            }
            if request.session.persistent.is_some() && options.qos > QoS::AtMostOnce {
                batch.commit.replays.push(request.clone());
            }
            batch.replays.push(request);
        }
        batch.subscribing = true;
        let acknowledgements = &mut batch.acknowledgements;
        codec::write_suback(self.version, subscribe.packet_id, &granted, acknowledgements);
    }

    fn grant(&self, filter: &str) -> Result<Filter, NotGranted> {
        let state = self.session.state();
        let held = state.subscriptions.len();
        self.permissions
            .subscription(filter, held, |filter| state.subscriptions.contains_key(filter))
    }

    /// Adds a subscription to the session; returns whether there was one to this filter.
    fn hold(&self, filter: Filter, options: Options, batch: &mut Batch) -> (bool, ReplayRequest) {
        let session = Arc::clone(&self.session);
        let known = session.state().subscriptions.insert(filter.clone(), options).is_some();
        let entered = self.services.fan_out.subscriptions.add(&filter, &session, options);
        if let Some(session) = session.persistent {
            let filter = filter.as_str().to_owned();
            batch.commit.changes.push(Change::Subscribe { session, filter, options });
        }
        (known, ReplayRequest { session, filter, options, entered })
    }

    pub(super) fn unsubscribe(&self, unsubscribe: &Unsubscribe, batch: &mut Batch) {
        let mut reasons = Vec::new();
        for named in &unsubscribe.filters {
            let filter = named.parse::<Filter>();
            let held = filter
                .ok()
                .filter(|filter| self.session.state().subscriptions.remove(filter).is_some());
            reasons.push(match held {
                Some(_) => Reason::Success,
                None => Reason::NoSubscriptionExisted,
            });
            let Some(filter) = held else { continue };
            self.services.fan_out.subscriptions.remove(&filter, &self.session);
            if let Some(session) = self.session.persistent {
                let filter = filter.as_str().to_owned();
                batch.commit.changes.push(Change::Unsubscribe { session, filter });
            }
        }
        let acknowledgements = &mut batch.acknowledgements;
        codec::write_unsuback(self.version, unsubscribe.packet_id, &reasons, acknowledgements);
    }
}
