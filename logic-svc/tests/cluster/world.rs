//! A gateway played by the test, and real logic services on real servers.

use std::io::{BufRead, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use cluster::etcd::{Etcd, Registration};
use cluster::kafka::{
    Consumer, From, Headers, Polled, Producer, Record, Settings, TopicSpec, Topics, partition_of,
};
use mysql::prelude::Queryable;
use prost::Message as _;
use proto::v1::call::Request;
use proto::v1::call_reply::Reply;
use proto::v1::requests_client::RequestsClient;
use proto::v1::sessions_client::SessionsClient;
use proto::v1::*;
use tokio::runtime::Runtime;
use tonic::transport::Channel;

/// Longest wait for anything.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);
pub(crate) const GATEWAY: &str = "gw";
const PARTITIONS: u32 = 4;

fn server(name: &str) -> String {
    std::env::var(name)
        .unwrap_or_else(|_| panic!("{name} is not set; see `cargo xtask servers up`"))
}

/// One installation, apart from all others on the same servers.
pub(crate) struct World {
    pub(crate) prefix: String,
    pub(crate) runtime: Runtime,
    pub(crate) etcd: Etcd,
    registration: Option<Registration>,
    pub(crate) kafka: Settings,
    producer: Producer,
    inbox: Consumer,
    /// All that came for the gateway.
    pub(crate) mail: Vec<PushRecord>,
    services: Vec<Service>,
    /// Instead of the server itself.
    pub(crate) mysql: String,
    pub(crate) redis: String,
    next: u64,
}

/// A logic service.
pub(crate) struct Service {
    pub(crate) name: String,
    child: Child,
    grpc: String,
    pub(crate) http: String,
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl World {
    pub(crate) fn new() -> Self {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let at = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis();
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let prefix = format!("lt{at}x{}x{count}", std::process::id());
        let runtime = Runtime::new().unwrap();
        let settings = cluster::etcd::Settings {
            endpoints: vec![server("CORELANE_TEST_ETCD")],
            root: format!("/{prefix}"),
            ..cluster::etcd::Settings::default()
        };
        let etcd = runtime.block_on(Etcd::connect(&settings)).unwrap();
        let kafka = Settings {
            brokers: server("CORELANE_TEST_KAFKA"),
            topic_prefix: format!("{prefix}."),
            ..Settings::default()
        };
        let push = kafka.push(GATEWAY);
        let spec =
            |name, partitions| TopicSpec { name, partitions, replication: 1, retention_ms: None };
        let topics = Topics::new(&kafka).unwrap();
        topics.ensure(&[spec(push.clone(), 1), spec(kafka.upstream(), PARTITIONS)], LIMIT).unwrap();
        let registration =
            runtime.block_on(etcd.register("gateways", GATEWAY, "{}", true)).unwrap();
        let producer = Producer::new(&kafka, |_, _| {}).unwrap();
        let inbox = Consumer::assigned(&kafka, &push, 0, From::Beginning).unwrap();
        Self {
            runtime,
            etcd,
            registration: Some(registration),
            kafka,
            producer,
            inbox,
            mail: Vec::new(),
            services: Vec::new(),
            mysql: server("CORELANE_TEST_MYSQL"),
            redis: server("CORELANE_TEST_REDIS"),
            next: 1,
            prefix,
        }
    }

    pub(crate) fn epoch(&self) -> u64 {
        self.registration.as_ref().unwrap().epoch()
    }

    fn gateway(&self) -> Option<GatewayRef> {
        Some(GatewayRef { id: GATEWAY.to_owned(), epoch: self.epoch() })
    }

    /// Starts a service and waits until it is ready. Of an argument given again the last counts.
    pub(crate) fn start(&mut self, name: &str, more: &[&str], env: &[(&str, &str)]) -> usize {
        let mut command = Command::new(env!("CARGO_BIN_EXE_logic-svc"));
        let prefix = &self.prefix;
        command
            .args(["--instance", name, "--kafka", &self.kafka.brokers, "--mysql", &self.mysql])
            .args(["--redis", &self.redis, "--etcd", &server("CORELANE_TEST_ETCD")])
            .args(["--topic-prefix", &self.kafka.topic_prefix, "--database", prefix])
            .args(["--redis-prefix", &format!("{prefix}:"), "--etcd-root", &format!("/{prefix}")])
            .args(["--grpc-listen", "127.0.0.1:0", "--http-listen", "127.0.0.1:0", "--dev-login"])
            .args(["--kafka-session-timeout", "6s", "--hash-memory-kib", "64"])
            // However long a tick waits on a busy machine, messages go to connections by their numbers.
            .args(["--lease-ttl-s", "2", "--redis-tick-timeout", "10s"])
            .args(more)
            .envs(env.iter().copied())
            .stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let first = lines.next().and_then(Result::ok);
        assert_eq!(first.as_deref(), Some("logic-svc ready"));
        let members = self.runtime.block_on(self.etcd.discover("logic")).unwrap().current();
        let said =
            members.iter().find(|member| member.id == name).expect("it registered").value.clone();
        let said: serde_json::Value = serde_json::from_str(&said).unwrap();
        let text = |key: &str| said[key].as_str().unwrap().to_owned();
        let service =
            Service { name: name.to_owned(), child, grpc: text("grpc"), http: text("http") };
        self.services.push(service);
        self.services.len() - 1
    }

    /// Ends a service at once.
    pub(crate) fn kill(&mut self, at: usize) {
        self.services[at].child.kill().unwrap();
        self.services[at].child.wait().unwrap();
    }

    /// Ends a service in good order.
    pub(crate) fn stop(&mut self, at: usize) -> ExitStatus {
        self.signal(at, rustix::process::Signal::TERM);
        self.ended(at)
    }

    /// The gateway is gone.
    pub(crate) fn leave(&mut self) {
        let registration = self.registration.take().unwrap();
        self.runtime.block_on(registration.revoke()).unwrap();
    }

    /// How many connections of a user are in Redis.
    pub(crate) fn connections(&self, user: u64) -> u64 {
        let client = redis::Client::open(server("CORELANE_TEST_REDIS")).unwrap();
        let key = format!("{}:user_session:{user}", self.prefix);
        redis::cmd("HLEN").arg(key).query(&mut client.get_connection().unwrap()).unwrap()
    }

    pub(crate) fn signal(&self, at: usize, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.services[at].child);
        rustix::process::kill_process(pid, signal).unwrap();
    }

    /// Waits until a service has ended.
    pub(crate) fn ended(&mut self, at: usize) -> ExitStatus {
        let until = Instant::now() + LIMIT;
        loop {
            if let Some(status) = self.services[at].child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < until, "{} runs on", self.services[at].name);
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub(crate) fn http(&self, at: usize) -> SocketAddr {
        self.services[at].http.trim_start_matches("http://").parse().unwrap()
    }

    pub(crate) fn channel(&self, at: usize) -> Channel {
        let endpoint = Channel::from_shared(self.services[at].grpc.clone()).unwrap();
        self.runtime.block_on(endpoint.connect()).unwrap()
    }

    /// Logs users in or out, each on its slot.
    pub(crate) fn change(&self, at: usize, calls: Vec<Call>) -> SessionReplies {
        let mut client = SessionsClient::new(self.channel(at));
        let changes = SessionChanges { gateway: self.gateway(), calls };
        self.runtime.block_on(client.change(changes)).unwrap().into_inner()
    }

    /// Logs a user in by name; gives its id and the answer.
    pub(crate) fn login(&self, at: usize, name: &str, slot: u32) -> (u64, SessionReplies) {
        let hello =
            Hello { dev_user: name.to_owned(), device_id: format!("d{slot}"), ..Hello::default() };
        let replies = self.change(at, vec![call(0, slot, Request::Login(hello))]);
        match &replies.replies[0].reply {
            Some(Reply::Welcome(welcome)) => (welcome.user_id, replies.clone()),
            other => panic!("{other:?}"),
        }
    }

    /// Tells the service of these sessions, until it knows all of them.
    pub(crate) fn report(&self, at: usize, sessions: &[(u64, u32)]) {
        let mut client = SessionsClient::new(self.channel(at));
        let session = |&(user_id, slot): &(u64, u32)| Session {
            user_id,
            device_id: format!("d{slot}"),
            device_class: String::new(),
            connection: Some(Connection { shard: 1, slot, generation: 1 }),
        };
        let all: Vec<Session> = sessions.iter().map(session).collect();
        let report = |sessions: Vec<Session>| GatewayReport {
            gateway: self.gateway(),
            connections: u32::try_from(all.len()).unwrap(),
            sessions,
        };
        let until = Instant::now() + LIMIT;
        self.runtime.block_on(async {
            while client.report(report(Vec::new())).await.unwrap().into_inner().report_all {
                assert!(Instant::now() < until, "reported again and again");
                let reply = client.report(report(all.clone())).await.unwrap().into_inner();
                assert_eq!(reply, GatewayReportReply::default());
                // Parts count as all of them once none comes any more.
                tokio::time::sleep(Duration::from_millis(1200)).await;
            }
        });
    }

    pub(crate) fn ask(&self, at: usize, user: u64, slot: u32, request: Request) -> Reply {
        let mut client = RequestsClient::new(self.channel(at));
        let calls = vec![call(user, slot, request)];
        let batch = CallBatch { gateway: self.gateway(), calls };
        let replies = self.runtime.block_on(client.ask(batch)).unwrap().into_inner().replies;
        replies.into_iter().next().and_then(|reply| reply.reply).expect("an answer")
    }

    /// Makes all messages older.
    pub(crate) fn age_messages(&self, by: Duration) {
        let url = format!("{}/{}", self.mysql, self.prefix);
        let mut connection = mysql::Conn::new(mysql::Opts::from_url(&url).unwrap()).unwrap();
        let ids = u64::try_from(by.as_millis()).unwrap() << 22;
        connection
            .query_drop(format!("UPDATE messages SET message_id = message_id - {ids}"))
            .unwrap();
    }

    /// The seqs and contents of a conversation.
    pub(crate) fn history(&self, at: usize, user: u64, id: &str) -> Vec<(u64, String)> {
        let pull = Pull { conversation_id: id.to_owned(), limit: 100, ..Pull::default() };
        match self.ask(at, user, 0, Request::Pull(pull)) {
            Reply::Page(page) => {
                let text = |m: Message| (m.seq, String::from_utf8(m.content.to_vec()).unwrap());
                page.items.into_iter().map(text).collect()
            }
            other => panic!("{other:?}"),
        }
    }

    /// A record with one message; gives it for sending (again).
    pub(crate) fn message(
        &mut self,
        from: (u64, u32),
        to: &str,
        content: &str,
    ) -> (String, Vec<u8>) {
        let client_msg_id = format!("m{}", self.next);
        self.next += 1;
        let send = Send {
            request_id: 7,
            client_msg_id: client_msg_id.clone(),
            conversation_id: to.to_owned(),
            msg_type: 1,
            content: content.to_owned().into(),
        };
        let (user_id, slot) = from;
        let frame = UpstreamFrame { slot, generation: 1, user_id, send: Some(send) };
        let batches = vec![UpstreamBatch { shard: 1, frames: vec![frame] }];
        let record = UpstreamRecord { gateway: self.gateway(), batches, changed: Vec::new() };
        (client_msg_id, record.encode_to_vec())
    }

    /// Sends a record to the partition of a conversation.
    pub(crate) fn produce(&self, to: &str, payload: &[u8]) -> u32 {
        let partition = partition_of(to, PARTITIONS);
        let upstream = self.kafka.upstream();
        self.producer.send(&upstream, partition, None, payload, &Headers::default(), 0).unwrap();
        assert!(self.producer.flush(LIMIT));
        partition
    }

    pub(crate) fn send(&mut self, from: (u64, u32), to: &str, content: &str) -> String {
        let (id, payload) = self.message(from, to, content);
        self.produce(to, &payload);
        id
    }

    /// Sends and waits for the answer.
    pub(crate) fn sent(&mut self, from: (u64, u32), to: &str, content: &str) -> Ack {
        let id = self.send(from, to, content);
        self.acked(&id)
    }

    /// Takes what came for the gateway.
    pub(crate) fn receive(&mut self, wait: Duration) {
        let mut records = Vec::new();
        match self.inbox.poll(&mut records, wait, 100) {
            Ok(Polled::Records(_) | Polled::Nothing) => {}
            Err(error) => eprintln!("{error}"),
        }
        let epoch = self.epoch();
        for record in records {
            let record = PushRecord::decode(record.payload).unwrap();
            assert_eq!(record.epoch, epoch);
            self.mail.push(record);
        }
    }

    /// Waits until `found` finds something in the mail.
    pub(crate) fn wait_for<T>(
        &mut self,
        what: &str,
        found: impl Fn(&[PushRecord]) -> Option<T>,
    ) -> T {
        let until = Instant::now() + LIMIT;
        loop {
            if let Some(found) = found(&self.mail) {
                return found;
            }
            assert!(Instant::now() < until, "{what} did not come; the mail: {:?}", self.mail);
            self.receive(Duration::from_millis(100));
        }
    }

    /// Waits for the answer to a message.
    pub(crate) fn answered(&mut self, id: &str) -> SendReply {
        self.wait_for(&format!("the answer to {id}"), |mail| {
            replies_to(mail, id).into_iter().next()
        })
    }

    pub(crate) fn acked(&mut self, id: &str) -> Ack {
        let reply = self.answered(id);
        assert_eq!(reply.failure, None);
        reply.ack.unwrap()
    }

    /// The slots that a message was addressed to by number, and how often.
    pub(crate) fn targets(&self, id: &str) -> Vec<u32> {
        let mut slots = Vec::new();
        for record in &self.mail {
            for target in record.shards.iter().flat_map(|shard| &shard.targets) {
                if record.messages[target.message as usize].client_msg_id == id {
                    slots.push(target.slot);
                }
            }
        }
        slots.sort_unstable();
        slots
    }

    /// Records at the end of a topic with one partition.
    pub(crate) fn read(&self, topic: &str, count: usize) -> Vec<Record> {
        let mut consumer = Consumer::assigned(&self.kafka, topic, 0, From::Beginning).unwrap();
        let (mut records, until) = (Vec::new(), Instant::now() + LIMIT);
        while records.len() < count {
            assert!(Instant::now() < until, "{topic} has {} records only", records.len());
            let _ = consumer.poll(&mut records, Duration::from_millis(100), 100);
        }
        records
    }
}

/// The value of a counter; 0 if it was never counted.
pub(crate) fn counter(metrics: SocketAddr, name: &str) -> u64 {
    let mut socket = TcpStream::connect(metrics).unwrap();
    write!(socket, "GET /metrics HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let value = answer.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    value.map_or(0, |value| value.trim().parse().unwrap())
}

/// An address for one service to listen on. Nobody else gets the port while it is kept; whoever is told it can listen
/// there beside it.
pub(crate) fn kept_address() -> (tokio::net::TcpSocket, SocketAddr) {
    let keeper = tokio::net::TcpSocket::new_v4().unwrap();
    keeper.set_reuseaddr(true).unwrap();
    keeper.bind(([127, 0, 0, 1], 0).into()).unwrap();
    let address = keeper.local_addr().unwrap();
    (keeper, address)
}

pub(crate) fn call(user_id: u64, slot: u32, request: Request) -> Call {
    Call { shard: 1, slot, generation: 1, user_id, request: Some(request) }
}

pub(crate) fn replies_to(mail: &[PushRecord], id: &str) -> Vec<SendReply> {
    let replies = mail.iter().flat_map(|record| &record.shards).flat_map(|shard| &shard.replies);
    let ours = |reply: &&SendReply| reply.ack.as_ref().is_some_and(|ack| ack.client_msg_id == id);
    replies.filter(ours).cloned().collect()
}

impl Drop for World {
    fn drop(&mut self) {
        self.services.clear();
        let topics = Topics::new(&self.kafka).unwrap();
        if let Ok(all) = topics.list() {
            let ours =
                all.into_iter().map(|(name, _)| name).filter(|name| name.starts_with(&self.prefix));
            let _ = topics.delete(&ours.collect::<Vec<_>>());
        }
        let group = |name: &str| format!("{}.corelane-{name}", self.prefix);
        let _ = topics.delete_groups(&[group("ingest"), group("tasks")]);
        if let Some(registration) = self.registration.take() {
            let _ = self.runtime.block_on(registration.revoke());
        }
        let _ = self.runtime.block_on(self.etcd.remove_root());
        let url = server("CORELANE_TEST_MYSQL");
        if let Ok(mut connection) = mysql::Conn::new(url.as_str()) {
            let _ = connection.query_drop(format!("DROP DATABASE IF EXISTS {}", self.prefix));
        }
        let redis = redis::Client::open(server("CORELANE_TEST_REDIS"));
        if let Ok(mut connection) = redis.and_then(|client| client.get_connection()) {
            let mut cursor = 0_u64;
            for _ in 0..1000 {
                let scanned: redis::RedisResult<(u64, Vec<String>)> = redis::cmd("SCAN")
                    .arg(cursor)
                    .arg("MATCH")
                    .arg(format!("{}:*", self.prefix))
                    .arg("COUNT")
                    .arg(1000)
                    .query(&mut connection);
                let Ok((next, keys)) = scanned else { break };
                if !keys.is_empty() {
                    let _: redis::RedisResult<()> =
                        redis::cmd("DEL").arg(keys).query(&mut connection);
                }
                cursor = next;
                if cursor == 0 {
                    break;
                }
            }
        }
    }
}
