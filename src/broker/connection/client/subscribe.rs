//! SUBSCRIBE and UNSUBSCRIBE: what is granted is committed, made known to the router, confirmed, and followed by
//! the retained messages.

use std::sync::Arc;

use crate::mqtt::QoS;
use bytes::BytesMut;
use rumqttc::v5::mqttbytes::v5::{RetainForwardRule, Subscribe, Unsubscribe};
use tracing::debug;

use crate::broker::access::permissions::NotGranted;
use crate::broker::connection::client::{Batch, Client};
use crate::broker::connection::reply;
use crate::broker::connection::run::End;
use crate::broker::delivery::inbox::Inbox;
use crate::broker::delivery::outbound::Parcel;
use crate::broker::delivery::replay::{self, Asked};
use crate::broker::delivery::router::RouterDied;
use crate::mqtt::Filter;
use crate::store::{Change, Options};

/// What the router is told after the commit.
pub(in crate::broker) enum Subscribing {
    Subscribe { filters: Vec<Filter>, unconfirmed: Unconfirmed },
    Unsubscribe(Vec<Filter>),
}

/// What follows when the router knows a SUBSCRIBE.
#[derive(Default)]
pub(in crate::broker) struct Unconfirmed {
    suback: BytesMut,
    /// Whose retained messages follow.
    retained: Vec<(Filter, Options)>,
}

impl Client<'_> {
    /// Takes a persistent session's subscriptions up again.
    pub async fn resume(&mut self) -> Result<(), End> {
        let held: Vec<Filter> = self.session.state().subscriptions.keys().cloned().collect();
        if held.iter().any(Filter::is_shared) {
            self.open_inbox();
        }
        let filters: Vec<Filter> = held.into_iter().filter(|filter| !filter.is_shared()).collect();
        if !filters.is_empty() {
            let unconfirmed = Unconfirmed::default();
            self.subscribe_at_router(Subscribing::Subscribe { filters, unconfirmed }).await?;
        }
        Ok(())
    }

    fn open_inbox(&mut self) {
        if self.inbox.is_none() {
            let inbox = Arc::<Inbox>::default();
            self.session.state().inbox = Some(Arc::clone(&inbox));
            self.inbox = Some(inbox);
        }
    }

    pub(in crate::broker) fn subscribe(
        &mut self,
        subscribe: Subscribe,
        batch: &mut Batch,
    ) -> Result<(), End> {
        let identifier = subscribe.properties.as_ref().and_then(|properties| properties.id);
        let identifier = identifier.and_then(|id| u32::try_from(id).ok()).unwrap_or(0);
        let (mut filters, mut retained, mut reasons) = (Vec::new(), Vec::new(), Vec::new());
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
            reasons.push(wanted.qos as u8);
            let options = Options {
                qos: crate::broker::connection::packet::from_codec(wanted.qos),
                no_local: wanted.nolocal,
                retain_as_published: wanted.preserve_retain,
                identifier,
            };
            let known = self.hold(&filter, options, batch);
            let follow = match wanted.retain_forward_rule {
                RetainForwardRule::OnEverySubscribe => true,
                RetainForwardRule::OnNewSubscribe => !known,
                RetainForwardRule::Never => false,
            };
            if filter.is_shared() {
                self.open_inbox();
                continue;
            }
            // A filter that one packet names twice is one subscription.
            if follow && !retained.iter().any(|(other, _)| *other == filter) {
                self.keep_retained(&filter, options, batch);
                retained.push((filter.clone(), options));
            }
            filters.push(filter);
        }
        let mut suback = BytesMut::new();
        reply::suback(self.version, subscribe.pkid, &reasons, &mut suback);
        if filters.is_empty() {
            batch.acknowledgements.extend_from_slice(&suback);
        } else {
            let unconfirmed = Unconfirmed { suback, retained };
            batch.subscribing.push(Subscribing::Subscribe { filters, unconfirmed });
        }
        Ok(())
    }

    fn grant(&self, filter: &str) -> Result<Filter, NotGranted> {
        let state = self.session.state();
        let held = state.subscriptions.len();
        self.grants.subscription(filter, held, |filter| state.subscriptions.contains_key(filter))
    }

    /// Adds a subscription to the session; whether there was one to this filter.
    fn hold(&self, filter: &Filter, options: Options, batch: &mut Batch) -> bool {
        let known = self.session.state().subscriptions.insert(filter.clone(), options).is_some();
        self.services.sessions.routes.add(filter, &self.session);
        if let Some(session) = self.session.persistent {
            let filter = filter.as_str().to_owned();
            batch.publication.batch.changes.push(Change::Subscribe { session, filter, options });
        }
        known
    }

    /// Retained messages that a persistent session is owed are committed with its subscription.
    fn keep_retained(&self, filter: &Filter, options: Options, batch: &mut Batch) {
        if self.session.persistent.is_some() && options.qos > QoS::AtMostOnce {
            let (session, filter) = (Arc::clone(&self.session), filter.clone());
            batch.publication.batch.asked.push(Asked { session, filter, options });
        }
    }

    pub(in crate::broker) async fn subscribe_at_router(
        &mut self,
        change: Subscribing,
    ) -> Result<(), RouterDied> {
        match change {
            Subscribing::Subscribe { filters, unconfirmed } => {
                let link = match &mut self.link {
                    Some(link) => link,
                    None => self.link.insert(self.services.router.link().await?),
                };
                link.subscribe(&filters).await?;
                self.unconfirmed.push_back(unconfirmed);
            }
            Subscribing::Unsubscribe(filters) => {
                if let Some(link) = &mut self.link {
                    link.unsubscribe(&filters).await?;
                }
            }
        }
        Ok(())
    }

    /// The router knows the oldest SUBSCRIBE that is not confirmed: from here on no message is missed
    /// ([MQTT-3.8.4-1]).
    pub(in crate::broker) fn confirm(&mut self) {
        let Some(Unconfirmed { suback, retained }) = self.unconfirmed.pop_front() else { return };
        self.out.extend_from_slice(&suback);
        for (filter, options) in retained {
            // Asked for again before they came, they come once: what is owed is bounded by the subscriptions.
            self.owed.retain(|(other, _)| *other != filter);
            self.owed.push_back((filter, options));
        }
    }

    /// Queues the retained messages of a subscription.
    pub(in crate::broker) fn owe(&mut self, filter: &Filter, options: Options) {
        // Unsubscribed from meanwhile ([MQTT-3.10.4-2]).
        if !self.session.state().subscriptions.contains_key(filter) {
            return;
        }
        // The others wait in the log.
        let persistent = self.session.persistent.is_some();
        let own = |parcel: &Parcel| !persistent || parcel.qos == QoS::AtMostOnce;
        let retained = &self.services.retained;
        let parcels = replay::parcels(retained, &self.session, filter, options).filter(own);
        self.outflow.queue_retained(parcels);
    }

    pub(in crate::broker) fn unsubscribe(&self, unsubscribe: &Unsubscribe, batch: &mut Batch) {
        let (mut gone, mut reasons) = (Vec::new(), Vec::new());
        for named in &unsubscribe.filters {
            let filter = named.parse::<Filter>();
            let held = filter
                .ok()
                .filter(|filter| self.session.state().subscriptions.remove(filter).is_some());
            // 0x11: no subscription existed.
            reasons.push(if held.is_some() { 0 } else { 0x11 });
            let Some(filter) = held else { continue };
            self.services.sessions.routes.remove(&filter, &self.session);
            if let Some(session) = self.session.persistent {
                let filter = filter.as_str().to_owned();
                batch.publication.batch.changes.push(Change::Unsubscribe { session, filter });
            }
            gone.push(filter);
        }
        let acknowledgements = &mut batch.acknowledgements;
        reply::unsuback(self.version, unsubscribe.pkid, &reasons, acknowledgements);
        batch.subscribing.push(Subscribing::Unsubscribe(gone));
    }
}
