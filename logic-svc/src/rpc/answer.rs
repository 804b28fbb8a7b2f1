//! Requests of connections as operations, and what they say as answers.

use proto::error::ErrorCode;
use proto::v1::call::Request;
use proto::v1::call_reply::Reply;
use proto::v1::{Call, CallReply, ConversationReply, Failure, Pull, Read, ReadReply};

use crate::domain::delivery::{ConnectionId, GatewayNo};
use crate::ops::{ConnectionChange, LoginRequest, Operations, PullRequest, ReadMark};
use crate::ports::command;

/// Where answers go.
pub(super) trait Answers {
    /// Takes one.
    fn one(&mut self, reply: CallReply);
    /// Takes several, those of one connection in their order.
    fn several(&mut self, replies: Vec<CallReply>);
}

/// They are collected.
impl Answers for Vec<CallReply> {
    fn one(&mut self, reply: CallReply) {
        self.push(reply);
    }

    fn several(&mut self, replies: Vec<CallReply>) {
        self.extend(replies);
    }
}

/// A call by what it is about.
pub(super) enum Sorted {
    /// A connection logs in, or ended.
    Change(ConnectionChange),
    /// Anything else.
    Request(Peer, Request),
}

/// Sorts a call of a gateway; `None`: it asks for nothing.
pub(super) fn sort(gateway: GatewayNo, call: Call) -> Option<Sorted> {
    let Call { shard, slot, generation, user_id: user, request } = call;
    let connection = ConnectionId { gateway, shard, slot, generation };
    Some(match request? {
        Request::Login(hello) => {
            Sorted::Change(ConnectionChange::Login(LoginRequest { connection, hello }))
        }
        Request::Closed(_) => Sorted::Change(ConnectionChange::Closed { connection, user }),
        request => Sorted::Request(Peer { connection, user }, request),
    })
}

/// Answers requests in their order; neighbouring read marks share their work.
pub(super) fn answer_all(
    operations: &Operations,
    out: &mut impl Answers,
    requests: impl Iterator<Item = (Peer, Request)>,
) {
    let mut reads = Vec::new();
    for (peer, request) in requests {
        if let Request::Read(read) = request {
            reads.push((peer, read));
            continue;
        }
        flush_reads(operations, out, &mut reads);
        answer(operations, out, peer, request);
    }
    flush_reads(operations, out, &mut reads);
}

/// Who asks.
#[derive(Clone, Copy)]
pub(super) struct Peer {
    connection: ConnectionId,
    user: u64,
}

impl Peer {
    fn reply(self, command: u32, request_id: u32, reply: Reply) -> CallReply {
        let ConnectionId { shard, slot, generation, .. } = self.connection;
        CallReply { shard, slot, generation, request_id, command, reply: Some(reply) }
    }
}

fn flush_reads(operations: &Operations, out: &mut impl Answers, reads: &mut Vec<(Peer, Read)>) {
    if reads.is_empty() {
        return;
    }
    let mark =
        |(peer, read): &(Peer, Read)| (peer.user, read.conversation_id.clone(), read.read_seq);
    let marks: Vec<_> = reads.iter().map(mark).collect();
    let marks: Vec<ReadMark<'_>> = marks
        .iter()
        .map(|(user, id, seq)| ReadMark { user: *user, conversation_id: id, read_seq: *seq })
        .collect();
    let answers = operations.mark_read(&marks);
    let reply = |((peer, read), answer): ((Peer, Read), Result<u64, Failure>)| {
        let Read { request_id, conversation_id, .. } = read;
        let reply =
            answer.map(|read_seq| Reply::Read(ReadReply { request_id, conversation_id, read_seq }));
        peer.reply(command::READ, request_id, either(reply))
    };
    out.several(reads.drain(..).zip(answers).map(reply).collect());
}

fn answer(operations: &Operations, out: &mut impl Answers, peer: Peer, request: Request) {
    let origin = Some(peer.connection);
    let (command, id, reply) = match request {
        Request::Pull(pull) => {
            (command::PULL, pull.request_id, self::pull(operations, peer, &pull))
        }
        Request::Sync(sync) => {
            let page = operations.sync(peer.user, &sync.cursor, sync.limit);
            (
                command::SYNC,
                sync.request_id,
                page.map(|page| Reply::Conversations(with_id(page, sync.request_id))),
            )
        }
        Request::Create(create) => {
            let made = operations.create(peer.user, &create, origin);
            (command::CREATE, create.request_id, conversation(create.request_id, made))
        }
        Request::Join(join) => {
            let joined = operations.join(peer.user, &join.conversation_id, origin);
            (command::JOIN, join.request_id, conversation(join.request_id, joined))
        }
        Request::Leave(leave) => {
            let left = operations.leave(peer.user, &leave.conversation_id, origin);
            (command::LEAVE, leave.request_id, conversation(leave.request_id, left))
        }
        Request::Members(list) => {
            let page =
                operations.members(peer.user, &list.conversation_id, list.cursor, list.limit);
            (
                command::MEMBERS,
                list.request_id,
                page.map(|page| Reply::Members(with_id(page, list.request_id))),
            )
        }
        Request::Presence(query) => {
            let there = operations.presence(peer.user, peer.connection, &query);
            (command::PRESENCE, query.request_id, there.map(Reply::Presence))
        }
        // Set apart by the callers; never passed on.
        Request::Closed(_) => return,
        Request::Login(_) => {
            (command::LOGIN, 0, Err(ErrorCode::Internal.failure("a login went astray")))
        }
        Request::Read(read) => (
            command::READ,
            read.request_id,
            Err(ErrorCode::Internal.failure("a read mark went astray")),
        ),
    };
    out.one(peer.reply(command, id, either(reply)));
}

fn pull(operations: &Operations, peer: Peer, pull: &Pull) -> Result<Reply, Failure> {
    let Pull { request_id, ref conversation_id, cursor_seq, limit, backward } = *pull;
    let page =
        operations.pull(peer.user, PullRequest { conversation_id, cursor_seq, limit, backward });
    page.map(|page| Reply::Page(with_id(page, request_id)))
}

fn conversation(
    request_id: u32,
    answer: Result<proto::v1::Conversation, Failure>,
) -> Result<Reply, Failure> {
    let reply = |conversation| ConversationReply { request_id, conversation: Some(conversation) };
    answer.map(|conversation| Reply::Conversation(reply(conversation)))
}

fn either(answer: Result<Reply, Failure>) -> Reply {
    answer.unwrap_or_else(Reply::Failure)
}

/// Pages that carry the id of the request they answer.
trait Answer {
    fn set_request_id(&mut self, request_id: u32);
}

macro_rules! answers {
    ($($page:ty),*) => {
        $(impl Answer for $page {
            fn set_request_id(&mut self, request_id: u32) {
                self.request_id = request_id;
            }
        })*
    };
}

answers!(proto::v1::Page, proto::v1::Conversations, proto::v1::Members);

fn with_id<A: Answer>(mut page: A, request_id: u32) -> A {
    page.set_request_id(request_id);
    page
}
