//! Records for gateways, each of a bounded size.

use std::sync::Arc;

use hashbrown::HashMap;
use proto::v1::{
    Connection, EventDelivery, GroupPush, InterestChange, Kick, Message, PushRecord, SendReply,
    Sent, ShardEvent, ShardPush, Target, UserPush,
};

use crate::domain::UserId;
use crate::domain::delivery::{ConnectionId, GatewayNo, ShardId};
use crate::gateways::Gateways;

/// A record that holds this many bytes (as estimated) is full; the last message in it may go beyond.
pub const RECORD_BYTES: usize = 512 * 1024;

/// What a target, a user id, a reply and a message cost beside their texts and contents, about.
const TARGET_BYTES: usize = 14;
const USER_BYTES: usize = 6;
const REPLY_BYTES: usize = 48;
const MESSAGE_BYTES: usize = 64;

/// Records under way, for any number of gateways.
pub(super) struct Records {
    gateways: Arc<Gateways>,
    all: Vec<Outgoing>,
    /// Where a gateway is in `all`; `None`: nobody knows such a gateway.
    by_gateway: HashMap<GatewayNo, Option<usize>>,
    limit: usize,
}

/// The records of one gateway.
struct Outgoing {
    gateway: GatewayNo,
    epoch: u64,
    full: Vec<PushRecord>,
    open: PushRecord,
    bytes: usize,
    /// Places in `open` of shards and groups.
    shards: HashMap<u32, usize>,
    groups: HashMap<String, usize>,
}

impl Records {
    pub(super) fn new(gateways: Arc<Gateways>) -> Self {
        Self::with_limit(gateways, RECORD_BYTES)
    }

    pub(super) fn with_limit(gateways: Arc<Gateways>, limit: usize) -> Self {
        Self { gateways, all: Vec::new(), by_gateway: HashMap::new(), limit }
    }

    pub(super) fn reply(&mut self, to: ShardId, reply: SendReply) {
        let Some(out) = self.of(to.gateway) else { return };
        let text = |ack: &proto::v1::Ack| ack.client_msg_id.len();
        out.bytes += REPLY_BYTES + reply.ack.as_ref().map_or(0, text);
        out.shard(to.shard).replies.push(reply);
    }

    /// Puts a message into the gateway's record; gives its index there, good until the next message.
    pub(super) fn message(&mut self, gateway: GatewayNo, message: &Message) -> Option<u32> {
        let out = self.of(gateway)?;
        let texts =
            message.conversation_id.len() + message.sender.len() + message.client_msg_id.len();
        out.bytes += MESSAGE_BYTES + texts + message.content.len();
        out.open.messages.push(message.clone());
        Some((out.open.messages.len() - 1) as u32)
    }

    /// Addresses the gateway's newest message. True: the record is full, and whoever else gets the message needs it
    /// in another one.
    pub(super) fn target(&mut self, to: ConnectionId, message: u32) -> bool {
        let limit = self.limit;
        let Some(out) = self.current(to.gateway) else { return false };
        out.bytes += TARGET_BYTES;
        let target = Target { message, slot: to.slot, generation: to.generation };
        out.shard(to.shard).targets.push(target);
        out.bytes >= limit
    }

    pub(super) fn group(
        &mut self,
        gateway: GatewayNo,
        conversation_id: &str,
        message: &Message,
        origin: ConnectionId,
    ) {
        let Some(index) = self.message(gateway, message) else { return };
        let Some(out) = self.current(gateway) else { return };
        let sent = sent(index, gateway, origin);
        out.bytes += TARGET_BYTES;
        if let Some(&at) = out.groups.get(conversation_id) {
            out.open.groups[at].messages.push(sent);
            return;
        }
        out.bytes += conversation_id.len();
        out.groups.insert(conversation_id.to_owned(), out.open.groups.len());
        let conversation_id = conversation_id.to_owned();
        out.open.groups.push(GroupPush { conversation_id, messages: vec![sent] });
    }

    pub(super) fn users(
        &mut self,
        gateway: GatewayNo,
        users: &[UserId],
        message: &Message,
        origin: ConnectionId,
    ) {
        for users in users.chunks((self.limit / USER_BYTES).max(1)) {
            let Some(index) = self.message(gateway, message) else { return };
            let Some(out) = self.current(gateway) else { return };
            out.bytes += TARGET_BYTES + users.len() * USER_BYTES;
            let message = Some(sent(index, gateway, origin));
            out.open.users.push(UserPush { message, user_ids: users.to_vec() });
        }
    }

    pub(super) fn event(&mut self, to: ShardId, event: EventDelivery) {
        let Some(out) = self.of(to.gateway) else { return };
        out.bytes += MESSAGE_BYTES + event.peers.len() * TARGET_BYTES;
        out.open.events.push(ShardEvent { shard: to.shard, event: Some(event) });
    }

    pub(super) fn kick(&mut self, gateway: GatewayNo, kick: Kick) {
        let Some(out) = self.of(gateway) else { return };
        out.bytes += TARGET_BYTES + kick.reason.len();
        out.open.kicks.push(kick);
    }

    pub(super) fn interest(&mut self, gateway: GatewayNo, change: InterestChange) {
        let Some(out) = self.of(gateway) else { return };
        out.bytes += MESSAGE_BYTES + (change.joined.len() + change.left.len()) * USER_BYTES;
        out.open.interests.push(change);
    }

    /// All records, those of one gateway in their order.
    pub(super) fn finish(self) -> Vec<(GatewayNo, PushRecord)> {
        let mut all = Vec::with_capacity(self.all.len());
        for mut out in self.all {
            out.close();
            all.extend(out.full.into_iter().map(|record| (out.gateway, record)));
        }
        all
    }

    /// The gateway's records, with room in the open one.
    fn of(&mut self, gateway: GatewayNo) -> Option<&mut Outgoing> {
        let Self { gateways, all, by_gateway, limit } = self;
        let at = *by_gateway.entry(gateway).or_insert_with(|| {
            let life = gateways.life(gateway)?;
            all.push(Outgoing::new(gateway, life.epoch));
            Some(all.len() - 1)
        });
        let out = &mut all[at?];
        if out.bytes >= *limit {
            out.close();
        }
        Some(out)
    }

    /// The gateway's records as they are.
    fn current(&mut self, gateway: GatewayNo) -> Option<&mut Outgoing> {
        let at = (*self.by_gateway.get(&gateway)?)?;
        self.all.get_mut(at)
    }
}

impl Outgoing {
    fn new(gateway: GatewayNo, epoch: u64) -> Self {
        Self {
            gateway,
            epoch,
            full: Vec::new(),
            open: PushRecord { epoch, ..PushRecord::default() },
            bytes: 0,
            shards: HashMap::new(),
            groups: HashMap::new(),
        }
    }

    fn shard(&mut self, shard: u32) -> &mut ShardPush {
        let shards = &mut self.open.shards;
        let at = *self.shards.entry(shard).or_insert_with(|| {
            shards.push(ShardPush { shard, ..ShardPush::default() });
            shards.len() - 1
        });
        &mut shards[at]
    }

    fn close(&mut self) {
        let empty = PushRecord { epoch: self.epoch, ..PushRecord::default() };
        let full = std::mem::replace(&mut self.open, empty);
        if self.bytes > 0 {
            self.full.push(full);
        }
        self.bytes = 0;
        self.shards.clear();
        self.groups.clear();
    }
}

fn sent(message: u32, gateway: GatewayNo, origin: ConnectionId) -> Sent {
    let ConnectionId { shard, slot, generation, .. } = origin;
    let here = (origin.gateway == gateway).then_some(Connection { shard, slot, generation });
    Sent { message, origin: here }
}
