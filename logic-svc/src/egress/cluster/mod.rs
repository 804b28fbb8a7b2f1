//! The way out in the cluster form: what a tick has for each gateway, in records of a bounded size.

mod crowds;
mod orders;
mod outbox;
mod records;

use std::sync::Arc;
use std::time::{Duration, Instant};

use hashbrown::HashMap;
use proto::v1::{Message, PushRecord, SendReply};
use smallvec::SmallVec;

use crate::domain::delivery::{ConnectionId, GatewayNo};
use crate::domain::{ConversationNo, UserId};
use crate::gateways::Gateways;
use crate::ports::{
    ConversationRecord, Fanout, PublishTick, Publisher, RouteCache, RouteRequest, Routes, Spoken,
};
use records::Records;

pub use crowds::{CrowdWatch, Threshold};
pub use orders::Orders;
pub use outbox::{Ledger, Outbox, OutboxError, Topics};
pub use records::RECORD_BYTES;

/// A cache that is away is spoken of this often.
const WARN_EVERY: Duration = Duration::from_secs(5);

/// Routes by the shared cache.
pub struct ToGateways<R> {
    routes: R,
    gateways: Arc<Gateways>,
    warned: Option<Instant>,
}

impl<R: RouteCache> ToGateways<R> {
    /// Routes to where `routes` says members are; to every gateway that lives while it does not know.
    pub fn new(routes: R, gateways: Arc<Gateways>) -> Self {
        Self { routes, gateways, warned: None }
    }
}

impl<R: RouteCache> Publisher for ToGateways<R> {
    type Out = Vec<(GatewayNo, PushRecord)>;
    type Tick<'a>
        = Collecting<'a, R>
    where
        R: 'a;

    fn begin(&mut self) -> Self::Tick<'_> {
        let records = Records::new(Arc::clone(&self.gateways));
        Collecting {
            to: self,
            records,
            talks: Vec::new(),
            by_no: HashMap::new(),
            deliveries: Vec::new(),
        }
    }
}

/// A conversation that speaks in this tick.
struct Talk {
    no: ConversationNo,
    id: String,
    fanout: Fanout,
    members: Vec<UserId>,
}

/// A message on its way out.
struct Delivery {
    origin: ConnectionId,
    /// Index of its talk.
    talk: usize,
    message: Message,
}

/// A tick under way: answers lie in their records, deliveries wait for one look at the routes.
pub struct Collecting<'a, R> {
    to: &'a mut ToGateways<R>,
    records: Records,
    talks: Vec<Talk>,
    by_no: HashMap<ConversationNo, usize>,
    deliveries: Vec<Delivery>,
}

impl<R: RouteCache> PublishTick for Collecting<'_, R> {
    type Out = Vec<(GatewayNo, PushRecord)>;

    fn reply(&mut self, origin: ConnectionId, reply: SendReply) {
        self.records.reply(origin.shard_id(), reply);
    }

    fn deliver(
        &mut self,
        origin: ConnectionId,
        conversation: &ConversationRecord,
        build: impl FnOnce() -> Message,
    ) {
        let message = build();
        let Self { talks, by_no, deliveries, .. } = self;
        let talk = *by_no.entry(conversation.no).or_insert_with(|| {
            let members = match conversation.fanout {
                Fanout::Write => conversation.members.as_slice().to_vec(),
                Fanout::Read => Vec::new(),
            };
            let id = message.conversation_id.clone();
            talks.push(Talk { no: conversation.no, id, fanout: conversation.fanout, members });
            talks.len() - 1
        });
        deliveries.push(Delivery { origin, talk, message });
    }

    fn finish(self) -> Self::Out {
        let Self { to, mut records, talks, deliveries, .. } = self;
        if !deliveries.is_empty() {
            let ask = Ask::new(&talks);
            let began = Instant::now();
            let routes = to.routes.tick(&RouteRequest {
                spoken: &spoken(&talks, &deliveries),
                users: &ask.users,
                groups: &ask.groups,
            });
            metrics::histogram!("corelane_logic_step_seconds", "step" => "routes")
                .record(began.elapsed().as_secs_f64());
            match routes {
                Ok(routes) => route(&mut records, &ask, &routes, deliveries, &talks),
                Err(error) => {
                    if to.warned.is_none_or(|at| at.elapsed() >= WARN_EVERY) {
                        to.warned = Some(Instant::now());
                        tracing::warn!(%error, "routes are unknown: every gateway is asked");
                    }
                    #[cfg(feature = "fault-injection")]
                    if crate::config::Fault::NoBroadcast.is_asked_for() {
                        return records.finish();
                    }
                    broadcast(&mut records, &to.gateways.reachable(), deliveries, &talks);
                }
            }
        }
        records.finish()
    }
}

/// What the cache is asked, and where in its answer each talk finds its part.
struct Ask {
    users: Vec<UserId>,
    groups: Vec<ConversationNo>,
    /// For each talk: indices of its members in `users`, or its index in `groups`.
    parts: Vec<Part>,
}

enum Part {
    Users(Vec<u32>),
    Group(usize),
}

impl Ask {
    fn new(talks: &[Talk]) -> Self {
        let (mut users, mut groups) = (Vec::new(), Vec::new());
        let mut known: HashMap<UserId, u32> = HashMap::new();
        let part = |talk: &Talk| match talk.fanout {
            Fanout::Read => {
                groups.push(talk.no);
                Part::Group(groups.len() - 1)
            }
            Fanout::Write => {
                let index = |&user: &UserId| {
                    *known.entry(user).or_insert_with(|| {
                        users.push(user);
                        (users.len() - 1) as u32
                    })
                };
                Part::Users(talk.members.iter().map(index).collect())
            }
        };
        let parts = talks.iter().map(part).collect();
        Self { users, groups, parts }
    }
}

fn spoken<'a>(talks: &'a [Talk], deliveries: &'a [Delivery]) -> Vec<Spoken<'a>> {
    let about = |talk: &'a Talk| Spoken {
        conversation: talk.no,
        conversation_id: &talk.id,
        inboxes: &talk.members,
        messages: Vec::new(),
    };
    let mut spoken: Vec<Spoken<'a>> = talks.iter().map(about).collect();
    for delivery in deliveries {
        spoken[delivery.talk].messages.push(&delivery.message);
    }
    // A message that was found in the log stands among newer ones.
    for talk in &mut spoken {
        talk.messages.sort_by_key(|message| message.seq);
    }
    spoken
}

/// Addresses each message to the connections, or the gateways, that the routes name.
fn route(
    records: &mut Records,
    ask: &Ask,
    routes: &Routes,
    deliveries: Vec<Delivery>,
    talks: &[Talk],
) {
    let receivers = |part: &Part| match part {
        Part::Users(at) => {
            let of = |&at: &u32| routes.connections.get(at as usize).into_iter().flatten();
            at.iter().flat_map(of).copied().collect()
        }
        Part::Group(_) => Vec::new(),
    };
    let receivers: Vec<Vec<ConnectionId>> = ask.parts.iter().map(receivers).collect();
    for Delivery { origin, talk, message } in deliveries {
        match &ask.parts[talk] {
            Part::Users(_) => address(records, origin, &receivers[talk], &message),
            Part::Group(at) => {
                let gateways = routes.gateways.get(*at).map_or(&[][..], Vec::as_slice);
                for &gateway in gateways {
                    records.group(gateway, &talks[talk].id, &message, origin);
                }
            }
        }
    }
}

fn address(
    records: &mut Records,
    origin: ConnectionId,
    receivers: &[ConnectionId],
    message: &Message,
) {
    let mut placed: SmallVec<[(GatewayNo, u32); 4]> = SmallVec::new();
    for &to in receivers.iter().filter(|to| to.receives_from(origin)) {
        let known = placed.iter().find(|(gateway, _)| *gateway == to.gateway);
        let index = match known {
            Some(&(_, index)) => index,
            None => {
                let Some(index) = records.message(to.gateway, message) else { continue };
                placed.push((to.gateway, index));
                index
            }
        };
        if records.target(to, index) {
            // Further targets need the message in another record.
            placed.retain(|(gateway, _)| *gateway != to.gateway);
        }
    }
}

/// Nobody knows where anybody is: each gateway that lives looks for itself.
fn broadcast(
    records: &mut Records,
    gateways: &[GatewayNo],
    deliveries: Vec<Delivery>,
    talks: &[Talk],
) {
    for Delivery { origin, talk, message } in deliveries {
        let talk = &talks[talk];
        for &gateway in gateways {
            match talk.fanout {
                Fanout::Write => records.users(gateway, &talk.members, &message, origin),
                Fanout::Read => records.group(gateway, &talk.id, &message, origin),
            }
        }
    }
}

#[cfg(test)]
mod tests;
