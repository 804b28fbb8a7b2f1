use super::*;
use crate::domain::conversation::Kind;
use crate::domain::delivery::ShardId;
use crate::domain::member::MemberSet;
use crate::ports::StoreError;
use proto::v1::{Ack, Target};

/// Answers from a table, and notes what it was asked.
#[derive(Default)]
struct Table {
    connections: Vec<(UserId, ConnectionId)>,
    groups: Vec<(ConversationNo, Vec<GatewayNo>)>,
    away: bool,
    asked: usize,
    inboxes: Vec<(ConversationNo, Vec<UserId>, Vec<u64>)>,
}

impl RouteCache for &mut Table {
    fn tick(&mut self, request: &RouteRequest<'_>) -> Result<Routes, StoreError> {
        self.asked += 1;
        let note = |spoken: &Spoken<'_>| {
            let seqs = spoken.messages.iter().map(|message| message.seq).collect();
            (spoken.conversation, spoken.inboxes.to_vec(), seqs)
        };
        self.inboxes = request.spoken.iter().map(note).collect();
        if self.away {
            return Err(StoreError::Unavailable("away".to_owned()));
        }
        let of = |user: &UserId| {
            self.connections.iter().filter(|(u, _)| u == user).map(|&(_, c)| c).collect()
        };
        let group = |no: &ConversationNo| {
            let found = self.groups.iter().find(|(g, _)| g == no);
            found.map(|(_, gateways)| gateways.clone()).unwrap_or_default()
        };
        Ok(Routes {
            connections: request.users.iter().map(of).collect(),
            gateways: request.groups.iter().map(group).collect(),
        })
    }
}

fn gateways() -> Arc<Gateways> {
    let gateways = Gateways::default();
    gateways.set_live([("a".to_owned(), 10), ("b".to_owned(), 20)]);
    Arc::new(gateways)
}

fn on(gateway: GatewayNo, shard: u32, slot: u32) -> ConnectionId {
    ConnectionId { gateway, shard, slot, generation: 1 }
}

fn talk(no: ConversationNo, fanout: Fanout, members: &[UserId]) -> ConversationRecord {
    let members = MemberSet::new(members.iter().copied());
    ConversationRecord { no, kind: Kind::Group, dev_made: false, members, version: 1, fanout }
}

fn message(seq: u64) -> Message {
    Message { conversation_id: "c".to_owned(), seq, ..Message::default() }
}

fn run(
    table: &mut Table,
    gateways: &Arc<Gateways>,
    record: &ConversationRecord,
    sends: &[(ConnectionId, u64)],
) -> Vec<(GatewayNo, PushRecord)> {
    let mut out = ToGateways::new(table, Arc::clone(gateways));
    let mut tick = out.begin();
    for &(origin, seq) in sends {
        tick.deliver(origin, record, || message(seq));
        let ack = Some(Ack { seq, ..Ack::default() });
        tick.reply(origin, SendReply { slot: origin.slot, ack, ..SendReply::default() });
    }
    tick.finish()
}

#[test]
fn a_tick_is_one_record_a_gateway_and_one_look_at_the_routes() {
    let gateways = gateways();
    let (a, b) = (gateways.number_of("a", 10), gateways.number_of("b", 20));
    let mut table = Table {
        connections: vec![(1, on(a, 0, 1)), (1, on(b, 0, 7)), (2, on(a, 1, 2)), (3, on(b, 3, 3))],
        ..Table::default()
    };
    let record = talk(5, Fanout::Write, &[1, 2, 9]);
    let out = run(&mut table, &gateways, &record, &[(on(a, 0, 1), 1), (on(a, 0, 1), 2)]);
    assert_eq!(table.asked, 1);
    assert_eq!(table.inboxes, [(5, vec![1, 2, 9], vec![1, 2])]);
    assert_eq!(out.iter().map(|(no, r)| (*no, r.epoch)).collect::<Vec<_>>(), [(a, 10), (b, 20)]);
    let (to_a, to_b) = (&out[0].1, &out[1].1);
    assert_eq!(to_a.messages.len(), 2, "each message once");
    let shard = |record: &PushRecord, shard| {
        let found = record.shards.iter().find(|push| push.shard == shard).cloned();
        let found = found.unwrap_or_default();
        let target = |t: &Target| (t.message, t.slot);
        (found.replies.len(), found.targets.iter().map(target).collect::<Vec<_>>())
    };
    assert_eq!(shard(to_a, 0), (2, vec![]), "the sending connection has its answers");
    assert_eq!(shard(to_a, 1), (0, vec![(0, 2), (1, 2)]));
    assert_eq!(shard(to_b, 0), (0, vec![(0, 7), (1, 7)]));
    assert_eq!(shard(to_b, 3), (0, vec![]), "no member");
}

#[test]
fn a_large_conversation_goes_once_to_each_gateway_that_has_members() {
    let gateways = gateways();
    let (a, b) = (gateways.number_of("a", 10), gateways.number_of("b", 20));
    let mut table = Table { groups: vec![(5, vec![a, b])], ..Table::default() };
    let record = talk(5, Fanout::Read, &[1, 2, 3]);
    let out = run(&mut table, &gateways, &record, &[(on(a, 2, 4), 1), (on(b, 0, 0), 2)]);
    assert_eq!(table.inboxes, [(5, vec![], vec![1, 2])], "no inboxes");
    for (no, record) in &out {
        assert_eq!((record.groups.len(), record.messages.len()), (1, 2));
        let origins: Vec<Option<u32>> =
            record.groups[0].messages.iter().map(|sent| sent.origin.map(|o| o.shard)).collect();
        let want = if *no == a { [Some(2), None] } else { [None, Some(0)] };
        assert_eq!(origins, want, "a connection is named to its own gateway only");
    }
}

#[test]
fn without_routes_every_gateway_that_lives_is_asked() {
    let gateways = gateways();
    let a = gateways.number_of("a", 10);
    let dead = gateways.number_of("a", 9);
    let mut table = Table { away: true, ..Table::default() };
    let record = talk(5, Fanout::Write, &[1, 2]);
    let out = run(&mut table, &gateways, &record, &[(on(dead, 0, 1), 1)]);
    let live: Vec<_> = out.iter().filter(|(no, _)| *no != dead).collect();
    assert_eq!(live.len(), 2);
    for (_, record) in live {
        assert_eq!(record.users.len(), 1);
        assert_eq!(record.users[0].user_ids, [1, 2]);
    }
    let (_, answer) = out.iter().find(|(no, _)| *no == dead).expect("answers go to the origin");
    assert_eq!((answer.epoch, answer.shards[0].replies.len()), (9, 1));
    assert!(answer.users.is_empty());
    let mut table = Table { away: true, ..Table::default() };
    let record = talk(6, Fanout::Read, &[]);
    let out = run(&mut table, &gateways, &record, &[(on(a, 0, 1), 1)]);
    assert!(out.len() == 2 && out.iter().all(|(_, record)| record.groups.len() == 1));
}

#[test]
fn records_stay_near_their_bound_and_keep_their_order() {
    let gateways = gateways();
    let a = gateways.number_of("a", 10);
    let mut records = Records::with_limit(Arc::clone(&gateways), 1000);
    for slot in 0..50 {
        records.reply(ShardId { gateway: a, shard: 0 }, SendReply { slot, ..SendReply::default() });
    }
    for seq in 0..50_u64 {
        let index = records.message(a, &message(seq)).unwrap();
        records.target(on(a, 0, 1), index);
        records.target(on(a, 1, 2), index);
    }
    let out = records.finish();
    assert!(out.len() > 5, "{} records", out.len());
    let shards = |record: &PushRecord| record.shards.clone();
    let replies: Vec<u32> = out
        .iter()
        .flat_map(|(_, record)| shards(record))
        .flat_map(|push| push.replies)
        .map(|reply| reply.slot)
        .collect();
    assert_eq!(replies, (0..50).collect::<Vec<_>>());
    for shard in [0, 1] {
        let mut seqs = Vec::new();
        for (_, record) in &out {
            assert!(prost::Message::encoded_len(record) < 1500);
            for push in record.shards.iter().filter(|push| push.shard == shard) {
                let seq = |t: &Target| record.messages[t.message as usize].seq;
                seqs.extend(push.targets.iter().map(seq));
            }
        }
        assert_eq!(seqs, (0..50).collect::<Vec<_>>());
    }
}

#[test]
fn one_message_for_very_many_goes_in_several_records() {
    let gateways = gateways();
    let a = gateways.number_of("a", 10);
    let mut records = Records::with_limit(Arc::clone(&gateways), 1000);
    let receivers: Vec<ConnectionId> = (0..500).map(|slot| on(a, slot % 3, slot)).collect();
    address(&mut records, on(a, 9, 9), &receivers, &message(1));
    records.users(a, &(1..=500).collect::<Vec<_>>(), &message(2), on(a, 9, 9));
    let out = records.finish();
    assert!(out.iter().all(|(_, record)| prost::Message::encoded_len(record) < 2500));
    let mut slots = Vec::new();
    let mut users = Vec::new();
    for (_, record) in &out {
        let seq = |index: u32| record.messages[index as usize].seq;
        for target in record.shards.iter().flat_map(|push| &push.targets) {
            assert_eq!(seq(target.message), 1);
            slots.push(target.slot);
        }
        for push in &record.users {
            assert_eq!(push.message.map(|sent| seq(sent.message)), Some(2));
            users.extend(push.user_ids.iter().copied());
        }
    }
    slots.sort_unstable();
    assert_eq!(slots, (0..500).collect::<Vec<_>>());
    assert_eq!(users, (1..=500).collect::<Vec<_>>());
}

#[test]
fn a_gateway_nobody_knows_gets_nothing() {
    let gateways = gateways();
    let mut records = Records::new(Arc::clone(&gateways));
    records.reply(ShardId { gateway: 0, shard: 0 }, SendReply::default());
    assert!(records.message(99, &message(1)).is_none());
    assert!(records.finish().is_empty());
}

#[test]
fn the_lower_threshold_lies_a_fifth_below() {
    let threshold = Threshold::new(500);
    assert_eq!((threshold.up(), threshold.down()), (500, 400));
    threshold.set(3);
    assert_eq!((threshold.up(), threshold.down()), (3, 3));
}
