//! SUBSCRIBE and UNSUBSCRIBE: what is granted enters the index at once, is committed for a session that outlives its
//! connection, is acknowledged, and is followed by the retained messages.

use std::sync::Arc;

use rumqttc::v5::mqttbytes::v5::{RetainForwardRule, Subscribe, Unsubscribe};
use tracing::debug;

use super::{Batch, Client};
use crate::broker::access::permissions::NotGranted;
use crate::broker::connection::close::End;
use crate::broker::connection::{packet, reply};
use crate::broker::delivery::replay::ReplayRequest;
use crate::mqtt::{Filter, QoS};
use crate::store::{Change, Options};

impl Client<'_> {
    pub(super) fn subscribe(&mut self, subscribe: Subscribe, batch: &mut Batch) -> Result<(), End> {
        let identifier = subscribe.properties.as_ref().and_then(|properties| properties.id);
        let identifier = identifier.and_then(|id| u32::try_from(id).ok()).unwrap_or(0);
        let mut reasons = Vec::new();
        for wanted in subscribe.filters {
            let filter = match self.grant(&wanted.path) {
                Ok(filter) if filter.is_shared() && wanted.nolocal => {
                    // [MQTT-3.8.3-4]
                    return Err(End::Protocol("No Local on a shared subscription"));
                }
                Ok(filter) => filter,
                Err(refusal) => {
                    debug!(filter = wanted.path, reason = %refusal, "subscription not granted");
                    reasons.push(refusal.reason());
                    continue;
                }
            };
            let qos = packet::from_codec(wanted.qos);
            reasons.push(qos as u8);
            let options = Options {
                qos,
                no_local: wanted.nolocal,
                retain_as_published: wanted.preserve_retain,
                identifier,
            };
            let (known, request) = self.hold(filter, options, batch);
            let replayed = match wanted.retain_forward_rule {
                RetainForwardRule::OnEverySubscribe => true,
                RetainForwardRule::OnNewSubscribe => !known,
                RetainForwardRule::Never => false,
            };
            // MQTT 5.0 §4.8.2: none for a shared subscription.
            if !replayed || request.filter.is_shared() {
                continue;
            }
            if request.session.persistent.is_some() && qos > QoS::AtMostOnce {
                batch.commit.replays.push(request.clone());
            }
            batch.replays.push(request);
        }
        batch.subscribing = true;
        reply::suback(self.version, subscribe.pkid, &reasons, &mut batch.acknowledgements);
        Ok(())
    }

    fn grant(&self, filter: &str) -> Result<Filter, NotGranted> {
        let state = self.session.state();
        let held = state.subscriptions.len();
        self.grants.subscription(filter, held, |filter| state.subscriptions.contains_key(filter))
    }

    /// Adds a subscription to the session; whether there was one to this filter.
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
            // 0x11: no subscription existed.
            reasons.push(if held.is_some() { 0 } else { 0x11 });
            let Some(filter) = held else { continue };
            self.services.fan_out.subscriptions.remove(&filter, &self.session);
            if let Some(session) = self.session.persistent {
                let filter = filter.as_str().to_owned();
                batch.commit.changes.push(Change::Unsubscribe { session, filter });
            }
        }
        let acknowledgements = &mut batch.acknowledgements;
        reply::unsuback(self.version, unsubscribe.pkid, &reasons, acknowledgements);
    }
}
