//! SUBSCRIBE and UNSUBSCRIBE: a granted subscription enters the index at once. It is committed where the session
//! outlives its connection, then acknowledged, and the retained messages follow.

use std::sync::Arc;

use tracing::debug;

use super::{Batch, Client};
use crate::broker::access::permissions::NotGranted;
use crate::broker::delivery::retained_replay::ReplayRequest;
use crate::broker::session::state::row_bytes;
use crate::broker::session::subscriptions::NoRoom;
use crate::mqtt::codec::{self, Reason, RetainHandling, Subscribe, Unsubscribe};
use crate::mqtt::{Filter, QoS};
use crate::store::{Change, Options};

/// Why a subscription is refused.
#[derive(Debug, thiserror::Error)]
enum Refused {
    #[error(transparent)]
    NotGranted(#[from] NotGranted),
    #[error("a filter of {levels} levels, more than {most} (HUMIDOR_FILTER_LEVELS)")]
    Levels { levels: usize, most: usize },
    #[error(transparent)]
    NoRoom(#[from] NoRoom),
}

impl Refused {
    const fn reason(&self) -> Reason {
        match self {
            Self::NotGranted(refusal) => refusal.reason(),
            Self::Levels { .. } | Self::NoRoom(_) => Reason::QuotaExceeded,
        }
    }
}

impl Client<'_> {
    pub(super) fn subscribe(&mut self, subscribe: Subscribe, batch: &mut Batch) {
        batch.packets += subscribe.filters.len();
        let mut granted = Vec::new();
        for wanted in subscribe.filters {
            let options = Options {
                qos: wanted.qos,
                no_local: wanted.no_local,
                retain_as_published: wanted.retain_as_published,
                identifier: subscribe.identifier,
            };
            let held =
                self.grant(&wanted.filter).and_then(|filter| self.hold(filter, options, batch));
            let (known, request) = match held {
                Ok(held) => held,
                Err(refusal) => {
                    debug!(filter = wanted.filter, reason = %refusal, "subscription not granted");
                    granted.push(Err(refusal.reason()));
                    continue;
                }
            };
            granted.push(Ok(wanted.qos));
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

    fn grant(&self, filter: &str) -> Result<Filter, Refused> {
        let state = self.session.state();
        let held = state.subscriptions.len();
        let filter = self
            .permissions
            .subscription(filter, held, |filter| state.subscriptions.contains_key(filter))?;
        let most = self.services.admission.limits().filter_levels;
        if filter.levels() > most {
            return Err(Refused::Levels { levels: filter.levels(), most });
        }
        Ok(filter)
    }

    /// Adds a subscription to the session; returns whether there was one to this filter.
    fn hold(
        &self,
        filter: Filter,
        options: Options,
        batch: &mut Batch,
    ) -> Result<(bool, ReplayRequest), Refused> {
        let session = Arc::clone(&self.session);
        let bytes = row_bytes(filter.as_str());
        let known = session.state().subscriptions.contains_key(&filter);
        if !known && !session.state().add_rows(bytes) {
            return Err(NoRoom.into());
        }
        let added = self.services.fan_out.subscriptions.try_add(&filter, &session, options);
        let mut state = session.state();
        if added.is_err() && !known {
            state.remove_rows(bytes);
        }
        let entered = added?;
        state.subscriptions.insert(filter.clone(), options);
        drop(state);
        if let Some(session) = session.persistent {
            let filter = filter.as_str().to_owned();
            batch.commit.changes.push(Change::Subscribe { session, filter, options });
        }
        Ok((known, ReplayRequest { session, filter, options, entered, after: None }))
    }

    pub(super) fn unsubscribe(&self, unsubscribe: &Unsubscribe, batch: &mut Batch) {
        batch.packets += unsubscribe.filters.len();
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
            self.session.state().remove_rows(row_bytes(filter.as_str()));
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
