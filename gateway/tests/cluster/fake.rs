//! A logic service for the gateway's own tests: it lets everybody in, gives every message the next number,
//! and sends it back through the gateway's push topic. Real ones are tested together with gateways elsewhere.

use std::collections::{BTreeMap, HashMap};
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cluster::etcd::{Etcd, Registration};
use cluster::kafka::{Consumer, Headers, Producer, Record, Settings, TopicSpec, Topics};
use prost::Message as _;
use proto::v1::call::Request as Asked;
use proto::v1::call_reply::Reply;
use proto::v1::requests_server::{Requests, RequestsServer};
use proto::v1::sessions_server::{Sessions, SessionsServer};
use proto::v1::{
    Ack, Call, CallBatch, CallReplies, CallReply, Connection, GatewayReport, GatewayReportReply,
    GroupPush, Interests, Message, Page, PushRecord, SendReply, Sent, Session, SessionChanges,
    SessionReplies, ShardPush, Target, UpstreamRecord, Welcome,
};
use tonic::{Request, Response, Status};

/// The conversation whose members are found by the gateway itself.
pub(crate) const LARGE: &str = "large";

/// What it has seen.
#[derive(Default)]
pub(crate) struct Seen {
    /// Who is logged in, by connection.
    pub(crate) sessions: Mutex<BTreeMap<(u32, u32, u32), String>>,
    /// Sessions of reports, with the epoch they were reported under.
    pub(crate) reported: Mutex<Vec<(u64, Session)>>,
    /// Epochs of records of the upstream.
    pub(crate) epochs: Mutex<Vec<u64>>,
    pub(crate) records: AtomicU64,
    pub(crate) messages: AtomicU64,
}

#[derive(Clone)]
struct Service(Arc<Seen>);

pub(crate) struct Fake {
    pub(crate) seen: Arc<Seen>,
    registration: Option<Registration>,
    server: tokio::task::JoinHandle<()>,
    stop: Arc<AtomicBool>,
    threads: Vec<std::thread::JoinHandle<()>>,
}

impl Fake {
    pub(crate) async fn start(etcd: &Etcd, kafka: &Settings) -> Self {
        let seen = Arc::new(Seen::default());
        let (grpc, server) = serve_grpc(&seen).await;
        let http = serve_http();
        let stop = Arc::new(AtomicBool::new(false));
        let topics = Topics::new(kafka).unwrap();
        let upstream =
            TopicSpec { name: kafka.upstream(), partitions: 4, replication: 1, retention_ms: None };
        topics.ensure(&[upstream], Duration::from_secs(30)).unwrap();
        let thread = std::thread::spawn({
            let (seen, stop, kafka) = (Arc::clone(&seen), Arc::clone(&stop), kafka.clone());
            move || pipeline(&seen, &stop, &kafka)
        });
        let value = serde_json::json!({
            "grpc": format!("http://{grpc}"), "http": format!("http://{http}"), "roles": ["rpc"],
        });
        let registration = etcd.register("logic", "fake", value.to_string(), false).await.unwrap();
        Self { seen, registration: Some(registration), server, stop, threads: vec![thread] }
    }

    /// No longer there, as far as requests are concerned.
    pub(crate) async fn stop_answering(&mut self) {
        self.server.abort();
        if let Some(registration) = self.registration.take() {
            registration.revoke().await.unwrap();
        }
    }

    pub(crate) async fn end(mut self) {
        self.stop_answering().await;
        self.stop.store(true, Ordering::SeqCst);
        self.threads.drain(..).for_each(|thread| thread.join().unwrap());
    }
}

async fn serve_grpc(seen: &Arc<Seen>) -> (SocketAddr, tokio::task::JoinHandle<()>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let service = Service(Arc::clone(seen));
    let router = tonic::service::Routes::new(SessionsServer::new(service.clone()))
        .add_service(RequestsServer::new(service));
    let server = tokio::spawn(async move {
        let incoming = tonic::transport::server::TcpIncoming::from(listener);
        let served = tonic::transport::Server::builder().add_routes(router);
        served.serve_with_incoming(incoming).await.unwrap();
    });
    (addr, server)
}

/// Answers every request with its own first line.
fn serve_http() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let mut buffer = [0; 8192];
                while let Ok(count) = stream.read(&mut buffer) {
                    if count == 0 {
                        return;
                    }
                    let text = String::from_utf8_lossy(&buffer[..count]).into_owned();
                    let line = text.lines().next().unwrap_or_default();
                    let answer = format!(
                        "HTTP/1.1 201 Created\r\nContent-Length: {}\r\nX-From: fake\r\n\r\n{line}",
                        line.len()
                    );
                    if stream.write_all(answer.as_bytes()).is_err() {
                        return;
                    }
                }
            });
        }
    });
    addr
}

fn user_id(name: &str) -> u64 {
    name.bytes().fold(7, |id, byte| id * 31 + u64::from(byte)) % 1_000_000 + 1
}

#[tonic::async_trait]
impl Sessions for Service {
    async fn change(
        &self,
        request: Request<SessionChanges>,
    ) -> Result<Response<SessionReplies>, Status> {
        let mut answer = SessionReplies::default();
        for call in request.into_inner().calls {
            let key = (call.shard, call.slot, call.generation);
            match &call.request {
                Some(Asked::Login(hello)) => {
                    let name = hello.dev_user.clone();
                    let user_id = user_id(&name);
                    self.0.sessions.lock().unwrap().insert(key, name.clone());
                    let welcome = Welcome {
                        user_id,
                        username: name,
                        heartbeat_ms: 1000,
                        ..Welcome::default()
                    };
                    answer.replies.push(reply(&call, 5, 0, Reply::Welcome(welcome)));
                    let (shard, slot, generation) = key;
                    let conversation_ids = vec![LARGE.to_owned()];
                    answer.interests.push(Interests {
                        shard,
                        slot,
                        generation,
                        user_id,
                        conversation_ids,
                    });
                }
                _ => {
                    self.0.sessions.lock().unwrap().remove(&key);
                }
            }
        }
        Ok(Response::new(answer))
    }

    async fn report(
        &self,
        request: Request<GatewayReport>,
    ) -> Result<Response<GatewayReportReply>, Status> {
        let report = request.into_inner();
        let epoch = report.gateway.unwrap_or_default().epoch;
        let sessions = report.sessions.into_iter().map(|session| (epoch, session));
        self.0.reported.lock().unwrap().extend(sessions);
        Ok(Response::new(GatewayReportReply::default()))
    }
}

#[tonic::async_trait]
impl Requests for Service {
    async fn ask(&self, request: Request<CallBatch>) -> Result<Response<CallReplies>, Status> {
        let answers = request.into_inner().calls.into_iter().map(|call| {
            let request_id = match &call.request {
                Some(Asked::Pull(pull)) => pull.request_id,
                _ => 0,
            };
            reply(&call, 6, request_id, Reply::Page(Page { request_id, ..Page::default() }))
        });
        Ok(Response::new(CallReplies { replies: answers.collect() }))
    }
}

fn reply(call: &Call, command: u32, request_id: u32, reply: Reply) -> CallReply {
    let Call { shard, slot, generation, .. } = *call;
    CallReply { shard, slot, generation, request_id, command, reply: Some(reply) }
}

/// Numbers what comes up and sends it down again.
fn pipeline(seen: &Seen, stop: &AtomicBool, kafka: &Settings) {
    let group = format!("{}fake", kafka.topic_prefix);
    let mut consumer = Consumer::group(kafka, &group, &[kafka.upstream()], None, ()).unwrap();
    let producer = Producer::new(kafka, |_, outcome| outcome.unwrap()).unwrap();
    let mut heads: HashMap<String, u64> = HashMap::new();
    let mut records: Vec<Record> = Vec::new();
    while !stop.load(Ordering::SeqCst) {
        let _ = consumer.poll(&mut records, Duration::from_millis(50), 100);
        for record in records.drain(..) {
            let record = UpstreamRecord::decode(record.payload).unwrap();
            seen.records.fetch_add(1, Ordering::SeqCst);
            let gateway = record.gateway.clone().unwrap();
            seen.epochs.lock().unwrap().push(gateway.epoch);
            let push = answers(seen, &mut heads, record);
            let topic = kafka.push(&gateway.id);
            let payload = push.encode_to_vec();
            producer.send(&topic, 0, None, &payload, &Headers::default(), 1).unwrap();
        }
    }
}

fn answers(seen: &Seen, heads: &mut HashMap<String, u64>, record: UpstreamRecord) -> PushRecord {
    let epoch = record.gateway.unwrap_or_default().epoch;
    let mut push = PushRecord { epoch, ..PushRecord::default() };
    for batch in record.batches {
        for frame in batch.frames {
            seen.messages.fetch_add(1, Ordering::SeqCst);
            let send = frame.send.unwrap();
            let head = heads.entry(send.conversation_id.clone()).or_default();
            *head += 1;
            let (shard, slot, generation) = (batch.shard, frame.slot, frame.generation);
            let ack = Ack {
                request_id: send.request_id,
                client_msg_id: send.client_msg_id.clone(),
                seq: *head,
                ..Ack::default()
            };
            let replies = vec![SendReply { slot, generation, ack: Some(ack), failure: None }];
            push.shards.push(ShardPush { shard, replies, targets: vec![] });
            let message = u32::try_from(push.messages.len()).unwrap();
            push.messages.push(Message {
                conversation_id: send.conversation_id.clone(),
                seq: *head,
                content: send.content,
                client_msg_id: send.client_msg_id,
                ..Message::default()
            });
            if send.conversation_id == LARGE {
                let origin = Some(Connection { shard, slot, generation });
                push.groups.push(GroupPush {
                    conversation_id: LARGE.to_owned(),
                    messages: vec![Sent { message, origin }],
                });
                continue;
            }
            let sessions = seen.sessions.lock().unwrap();
            let others = sessions.keys().filter(|key| **key != (shard, slot, generation));
            push.shards.extend(others.map(|&(shard, slot, generation)| ShardPush {
                shard,
                replies: vec![],
                targets: vec![Target { message, slot, generation }],
            }));
        }
    }
    push
}
