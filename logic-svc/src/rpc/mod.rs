//! Translates calls of gateways into operations and back. Nothing is decided here.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use proto::error::ErrorCode;
use proto::v1::call::Request;
use proto::v1::call_reply::Reply;
use proto::v1::{Call, CallReply, ConversationReply, Failure, Pull, Read, ReadReply};

use crate::domain::delivery::ConnectionId;
use crate::ops::{ConnectionChange, LoginRequest, Operations, PullRequest, ReadMark};
use crate::ports::{CallSource, DeliverySink, Received, command};

/// How long a look at the source waits; bounds how late its closing is seen.
const WAIT: Duration = Duration::from_millis(100);
/// Most logins and ends in one tick: bounds how long others wait for it (some milliseconds, also if every one of
/// them brings a token that was never seen).
const TICK_MAX: usize = 1024;
/// Ticks of logins and ends begin this far apart at least. One that comes alone is not kept waiting; of many
/// that come one by one each would otherwise cost a wake of this thread, a commit and a wake of its shard.
const TICK_APART: Duration = Duration::from_millis(1);
/// A tick of this many is part of a herd: the next ones gather while this thread sleeps, and whoever sends them
/// has nobody to wake.
const HERD: usize = 4;
/// Logins and ends taken in before the source is left to hold them, and to refuse more.
const WAITING_MAX: usize = 16 * TICK_MAX;

/// Answers calls until the source is closed. Logins and ends of connections wait for each other a moment and let
/// the requests of those who are in already go first.
pub(crate) fn run(operations: &Operations, sink: &dyn DeliverySink, source: &mut impl CallSource) {
    let mut calls = Vec::new();
    let mut waiting = VecDeque::new();
    let mut last_tick: Option<Instant> = None;
    loop {
        let received = receive(source, &mut calls, waiting.len());
        answer_all(operations, sink, set_apart(&mut calls, &mut waiting));
        let closed = received == Received::Closed;
        let early = last_tick.and_then(|at| TICK_APART.checked_sub(at.elapsed()));
        if let Some(early) = early.filter(|_| !closed && (1..TICK_MAX).contains(&waiting.len())) {
            std::thread::sleep(early);
            continue;
        }
        if !waiting.is_empty() {
            let begun = Instant::now();
            last_tick = Some(begun);
            let tick: Vec<_> = waiting.drain(..waiting.len().min(TICK_MAX)).collect();
            let herd = tick.len() >= HERD;
            operations.change_connections(tick, &mut |replies| sink.replies(replies));
            if herd && waiting.is_empty() && !closed {
                std::thread::sleep(TICK_APART.saturating_sub(begun.elapsed()));
            }
        }
        if closed && waiting.is_empty() {
            return;
        }
    }
}

fn receive(source: &mut impl CallSource, into: &mut Vec<Call>, waiting: usize) -> Received {
    match waiting {
        0 => source.recv(into, WAIT),
        WAITING_MAX.. => Received::Timeout,
        _ => source.recv(into, Duration::ZERO),
    }
}

/// Moves logins and ends of connections to those that wait; gives the others.
fn set_apart(
    calls: &mut Vec<Call>,
    waiting: &mut VecDeque<ConnectionChange>,
) -> impl Iterator<Item = (Peer, Request)> {
    calls.drain(..).filter_map(|call| {
        let peer = Peer { connection: connection(&call), user: call.user_id };
        let change = match call.request? {
            Request::Login(hello) => {
                ConnectionChange::Login(LoginRequest { connection: peer.connection, hello })
            }
            Request::Closed(_) => {
                ConnectionChange::Closed { connection: peer.connection, user: peer.user }
            }
            request => return Some((peer, request)),
        };
        waiting.push_back(change);
        None
    })
}

/// Answers requests in their order; neighbouring read marks share their work.
fn answer_all(
    operations: &Operations,
    sink: &dyn DeliverySink,
    requests: impl Iterator<Item = (Peer, Request)>,
) {
    let mut reads = Vec::new();
    for (peer, request) in requests {
        if let Request::Read(read) = request {
            reads.push((peer, read));
            continue;
        }
        flush_reads(operations, sink, &mut reads);
        answer(operations, sink, peer, request);
    }
    flush_reads(operations, sink, &mut reads);
}

/// Who asks.
#[derive(Clone, Copy)]
struct Peer {
    connection: ConnectionId,
    user: u64,
}

impl Peer {
    fn reply(self, command: u32, request_id: u32, reply: Reply) -> CallReply {
        let ConnectionId { shard, slot, generation, .. } = self.connection;
        CallReply { shard, slot, generation, request_id, command, reply: Some(reply) }
    }
}

fn connection(call: &Call) -> ConnectionId {
    ConnectionId { gateway: 0, shard: call.shard, slot: call.slot, generation: call.generation }
}

fn flush_reads(operations: &Operations, sink: &dyn DeliverySink, reads: &mut Vec<(Peer, Read)>) {
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
    sink.replies(reads.drain(..).zip(answers).map(reply).collect());
}

fn answer(operations: &Operations, sink: &dyn DeliverySink, peer: Peer, request: Request) {
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
    sink.reply(peer.reply(command, id, either(reply)));
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
