//! A service in a temporary folder and a sink that remembers everything.
#![allow(dead_code, missing_docs, unreachable_pub)]

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use logic_svc::Service;
use logic_svc::config::Config;
use logic_svc::ports::{CallSource, DeliverySink, Received, UpstreamSource};
use proto::v1::call::Request;
use proto::v1::call_reply::Reply;
use proto::v1::{
    Call, CallReply, DeliveryBatch, EventDelivery, Failure, Hello, Kick, Message, Send, SendReply,
    UpstreamBatch, UpstreamFrame, Welcome,
};

#[derive(Default)]
pub struct Recorder {
    pub batches: Mutex<Vec<DeliveryBatch>>,
    pub replies: Mutex<Vec<CallReply>>,
    pub events: Mutex<Vec<(u32, EventDelivery)>>,
    pub kicks: Mutex<Vec<Kick>>,
    /// How many answers were handed over together each time.
    pub handovers: Mutex<Vec<usize>>,
    /// Take a while to take answers in.
    pub slow: AtomicBool,
}

impl DeliverySink for Recorder {
    fn deliver(&self, batch: DeliveryBatch) {
        self.batches.lock().unwrap().push(batch);
    }
    fn reply(&self, reply: CallReply) {
        self.replies.lock().unwrap().push(reply);
    }
    fn replies(&self, mut replies: Vec<CallReply>) {
        if self.slow.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(20));
        }
        self.handovers.lock().unwrap().push(replies.len());
        self.replies.lock().unwrap().append(&mut replies);
    }
    fn event(&self, shard: u32, event: EventDelivery) {
        self.events.lock().unwrap().push((shard, event));
    }
    fn kick(&self, kick: Kick) {
        self.kicks.lock().unwrap().push(kick);
    }
}

/// A source that has these items once and is closed then.
pub struct Once<T>(pub Vec<T>);

impl UpstreamSource for Once<UpstreamBatch> {
    fn recv(&mut self, into: &mut Vec<UpstreamBatch>, _: Duration) -> Received {
        into.append(&mut self.0);
        Received::Closed
    }
}

impl CallSource for Once<Call> {
    fn recv(&mut self, into: &mut Vec<Call>, _: Duration) -> Received {
        into.append(&mut self.0);
        Received::Closed
    }
}

/// A message delivered to (shard, slot).
pub type Delivered = ((u32, u32), Message);

pub struct Harness {
    pub dir: tempfile::TempDir,
    pub config: Config,
    pub sink: Arc<Recorder>,
    service: Option<Service>,
}

impl Harness {
    pub fn new() -> Self {
        Self::with(|_| {})
    }

    pub fn dev() -> Self {
        Self::with(|config| config.dev_login = true)
    }

    pub fn with(change: impl FnOnce(&mut Config)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut config =
            Config { data_dir: dir.path().join("data"), hash_memory_kib: 64, ..Config::default() };
        change(&mut config);
        let sink = Arc::new(Recorder::default());
        let service = Some(Service::open(config.clone(), sink.clone()).unwrap());
        Self { dir, config, sink, service }
    }

    pub fn service(&self) -> &Service {
        self.service.as_ref().unwrap()
    }

    /// Ends the service without closing it, as a crash would, and starts it anew.
    pub fn restart(&mut self) {
        drop(self.service.take());
        self.service = Some(Service::open(self.config.clone(), self.sink.clone()).unwrap());
    }

    pub fn database(&self) -> rusqlite::Connection {
        rusqlite::Connection::open(self.config.data_dir.join("corelane.db")).unwrap()
    }

    pub fn count(&self, sql: &str) -> i64 {
        self.database().query_row(sql, [], |row| row.get(0)).unwrap()
    }

    /// Makes users without a password, or finds them.
    pub fn users(&self, names: &[&str]) -> Vec<u64> {
        let database = self.database();
        let id = |name: &&str| {
            database
                .execute(
                    "INSERT OR IGNORE INTO users(username, nickname, created_at_ms) VALUES(?1, ?1, 1)",
                    [name],
                )
                .unwrap();
            let sql = "SELECT id FROM users WHERE username = ?";
            database.query_row(sql, [name], |row| row.get::<_, i64>(0)).unwrap() as u64
        };
        names.iter().map(id).collect()
    }

    /// Runs one tick; gives the answers in the order of the frames (one shard a frame is kept apart by slot).
    pub fn tick(&self, batches: Vec<UpstreamBatch>) -> Vec<SendReply> {
        self.sink.batches.lock().unwrap().clear();
        self.service().run_ingest(Once(batches));
        let batches = self.sink.batches.lock().unwrap();
        batches.iter().flat_map(|batch| batch.replies.clone()).collect()
    }

    /// What the last tick delivered.
    pub fn delivered(&self) -> Vec<Delivered> {
        let batches = self.sink.batches.lock().unwrap();
        let of = |batch: &DeliveryBatch| -> Vec<Delivered> {
            let message =
                |target: &proto::v1::Target| batch.messages[target.message as usize].clone();
            batch
                .targets
                .iter()
                .map(|target| ((batch.shard, target.slot), message(target)))
                .collect()
        };
        batches.iter().flat_map(of).collect()
    }

    /// One message on shard 0, slot 0.
    pub fn send(&self, user: u64, conversation: &str, id: &str, content: &str) -> SendReply {
        let mut replies =
            self.tick(vec![batch(0, vec![frame(0, user, conversation, id, content)])]);
        assert_eq!(replies.len(), 1);
        replies.remove(0)
    }

    /// Runs calls; gives the answers.
    pub fn calls(&self, calls: Vec<Call>) -> Vec<CallReply> {
        self.sink.replies.lock().unwrap().clear();
        self.service().run_calls(Once(calls));
        std::mem::take(&mut *self.sink.replies.lock().unwrap())
    }

    /// One call of a user on shard 9, slot 9.
    pub fn call(&self, user: u64, request: Request) -> Reply {
        let mut replies = self.calls(vec![call(9, 9, user, request)]);
        assert_eq!(replies.len(), 1);
        replies.remove(0).reply.unwrap()
    }

    /// Logs a connection in by name (needs dev login).
    pub fn login(&self, name: &str, device: &str, shard: u32, slot: u32) -> Welcome {
        let hello = Hello { dev_user: name.into(), device_id: device.into(), ..Default::default() };
        match self.calls(vec![call(shard, slot, 0, Request::Login(hello))]).remove(0).reply.unwrap()
        {
            Reply::Welcome(welcome) => welcome,
            other => panic!("{other:?}"),
        }
    }
}

pub fn batch(shard: u32, frames: Vec<UpstreamFrame>) -> UpstreamBatch {
    UpstreamBatch { shard, frames }
}

pub fn frame(
    slot: u32,
    user_id: u64,
    conversation: &str,
    id: &str,
    content: &str,
) -> UpstreamFrame {
    let send = Send {
        request_id: slot + 100,
        conversation_id: conversation.into(),
        client_msg_id: id.into(),
        msg_type: 1,
        content: content.as_bytes().to_vec().into(),
    };
    UpstreamFrame { slot, generation: 1, user_id, send: Some(send) }
}

pub fn call(shard: u32, slot: u32, user_id: u64, request: Request) -> Call {
    Call { shard, slot, generation: 1, user_id, request: Some(request) }
}

pub fn failure(reply: &SendReply) -> &Failure {
    reply.failure.as_ref().expect("a failure")
}

pub fn seq(reply: &SendReply) -> u64 {
    assert_eq!(reply.failure, None);
    reply.ack.as_ref().unwrap().seq
}

impl Harness {
    /// Registers a connection of an existing user through a real token.
    pub fn login_as(&self, user: u64, shard: u32, slot: u32) {
        let token = self.token(user);
        let hello = Hello { token, ..Default::default() };
        let replies = self.calls(vec![call(shard, slot, 0, Request::Login(hello))]);
        assert!(
            matches!(&replies[0].reply, Some(Reply::Welcome(welcome)) if welcome.user_id == user),
            "{replies:?}"
        );
    }

    /// An access token of an existing user, signed with the service's own key.
    pub fn token(&self, user: u64) -> String {
        let now =
            std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
        self.sign(&serde_json::json!({
            "iss": "corelane", "aud": "corelane", "sub": user.to_string(),
            "iat": now, "nbf": now, "exp": now + 900, "epoch": 0
        }))
    }

    /// Any claims, signed with the service's own key.
    pub fn sign(&self, claims: &serde_json::Value) -> String {
        use base64::Engine;
        use base64::engine::general_purpose::URL_SAFE_NO_PAD as B64;
        use ed25519_dalek::Signer;
        use sha2::Digest;
        let file = std::fs::read(self.config.data_dir.join("signing-keys.json")).unwrap();
        let file: serde_json::Value = serde_json::from_slice(&file).unwrap();
        let (d, x) =
            (file["keys"][0]["d"].as_str().unwrap(), file["keys"][0]["x"].as_str().unwrap());
        let key =
            ed25519_dalek::SigningKey::from_bytes(&B64.decode(d).unwrap().try_into().unwrap());
        let kid = B64
            .encode(sha2::Sha256::digest(format!(r#"{{"crv":"Ed25519","kty":"OKP","x":"{x}"}}"#)));
        let header = serde_json::json!({"alg": "EdDSA", "typ": "JWT", "kid": kid});
        let message =
            format!("{}.{}", B64.encode(header.to_string()), B64.encode(claims.to_string()));
        let signature = key.sign(message.as_bytes());
        format!("{message}.{}", B64.encode(signature.to_bytes()))
    }
}
