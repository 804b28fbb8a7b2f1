//! Translates calls of gateways into operations and back. Nothing is decided here.

use std::time::Duration;

use proto::error::ErrorCode;
use proto::v1::call::Request;
use proto::v1::call_reply::Reply;
use proto::v1::{Call, CallReply, ConversationReply, Failure, Pull, Read, ReadReply};

use crate::domain::delivery::ConnectionId;
use crate::ops::{LoginRequest, Operations, PullRequest, ReadMark};
use crate::ports::{CallSource, DeliverySink, Received, command};

/// How long a look at the source waits; bounds how late its closing is seen.
const WAIT: Duration = Duration::from_millis(100);

/// Answers calls until the source is closed.
pub(crate) fn run(operations: &Operations, sink: &dyn DeliverySink, source: &mut impl CallSource) {
    let mut calls = Vec::new();
    loop {
        let received = source.recv(&mut calls, WAIT);
        answer_all(operations, sink, &mut calls);
        if received == Received::Closed {
            return;
        }
    }
}

/// Answers calls in their order; neighbouring logins share their work, and so do neighbouring read marks.
fn answer_all(operations: &Operations, sink: &dyn DeliverySink, calls: &mut Vec<Call>) {
    let mut logins = Vec::new();
    let mut reads = Vec::new();
    for call in calls.drain(..) {
        let peer = Peer { connection: connection(&call), user: call.user_id };
        let request = match call.request {
            Some(Request::Login(hello)) => {
                flush_reads(operations, sink, &mut reads);
                logins.push(LoginRequest { connection: peer.connection, hello });
                continue;
            }
            Some(Request::Read(read)) => {
                flush_logins(operations, &mut logins);
                reads.push((peer, read));
                continue;
            }
            Some(request) => request,
            None => continue,
        };
        flush_logins(operations, &mut logins);
        flush_reads(operations, sink, &mut reads);
        answer(operations, sink, peer, request);
    }
    flush_logins(operations, &mut logins);
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
        let ConnectionId { shard, slot, generation } = self.connection;
        CallReply { shard, slot, generation, request_id, command, reply: Some(reply) }
    }
}

fn connection(call: &Call) -> ConnectionId {
    ConnectionId { shard: call.shard, slot: call.slot, generation: call.generation }
}

fn flush_logins(operations: &Operations, logins: &mut Vec<LoginRequest>) {
    if !logins.is_empty() {
        operations.login(std::mem::take(logins));
    }
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
    for ((peer, read), answer) in reads.drain(..).zip(answers) {
        let Read { request_id, conversation_id, .. } = read;
        let reply = either(
            answer.map(|read_seq| Reply::Read(ReadReply { request_id, conversation_id, read_seq })),
        );
        sink.reply(peer.reply(command::READ, request_id, reply));
    }
}

fn answer(operations: &Operations, sink: &dyn DeliverySink, peer: Peer, request: Request) {
    let origin = Some(peer.connection);
    let (command, id, reply) = match request {
        Request::Closed(_) => return operations.closed(peer.connection),
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
        // Collected by the caller; never passed on.
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
