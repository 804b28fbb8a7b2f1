//! kill -9 at random moments under load. Whatever was acknowledged is there afterwards, once, at the seq
//! that was told; seqs are dense; everyone agrees. With a safety switched off the same check must fail,
//! or it proves nothing.

mod common;

use std::collections::{BTreeMap, HashMap};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use common::{DEV, Server, data_dir};
use serde_json::{Value, json};
use tungstenite::{Message, WebSocket};

const CONVERSATIONS: u64 = 3;
const USERS: u64 = 6;
/// Messages a client has under way at a time.
const WINDOW: usize = 16;

/// A small generator is enough: the seed is printed, the load itself is as random as the machine.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        // xorshift64*
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % bound
    }
}

/// What all clients have seen, and what was wrong with it.
#[derive(Default)]
struct Seen {
    /// (conversation, message id) -> seq told in an answer.
    acked: HashMap<(String, String), u64>,
    /// (conversation, seq) -> message id told in a push.
    pushed: HashMap<(String, u64), String>,
    wrong: Vec<String>,
}

struct Sender {
    addr: String,
    user: u64,
    unacked: Vec<(String, String)>,
    next: u64,
    seen: Arc<Mutex<Seen>>,
    stop: Arc<AtomicBool>,
}

impl Sender {
    fn run(mut self) {
        while !(self.stop.load(Ordering::Relaxed) && self.unacked.is_empty()) {
            if let Some(mut socket) = self.connect() {
                // An error is a server that was killed: come back and send again what was not answered.
                let _ = self.talk(&mut socket);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn connect(&self) -> Option<WebSocket<TcpStream>> {
        let stream = TcpStream::connect(&self.addr).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
        stream.set_nodelay(true).ok()?;
        let url = format!("ws://{}/ws?user_id=user{}", self.addr, self.user);
        Some(tungstenite::client(url, stream).ok()?.0)
    }

    fn talk(&mut self, socket: &mut WebSocket<TcpStream>) -> tungstenite::Result<()> {
        for (conversation, id) in self.unacked.clone() {
            send(socket, &conversation, &id)?;
        }
        let mut last_seq = HashMap::new();
        loop {
            let stopping = self.stop.load(Ordering::Relaxed);
            while !stopping && self.unacked.len() < WINDOW {
                let message = (
                    format!("group_{}", self.next % CONVERSATIONS),
                    format!("u{}-{}", self.user, self.next),
                );
                self.next += 1;
                send(socket, &message.0, &message.1)?;
                self.unacked.push(message);
            }
            if stopping && self.unacked.is_empty() {
                return Ok(());
            }
            if let Message::Text(text) = socket.read()? {
                let frame: Value = serde_json::from_str(&text).expect("the server writes JSON");
                self.take(&frame, &mut last_seq);
            }
        }
    }

    fn take(&mut self, frame: &Value, last_seq: &mut HashMap<String, u64>) {
        let mut seen = self.seen.lock().unwrap();
        match frame["cmd"].as_u64() {
            Some(2) if frame["code"] == 0 => {
                let (id, seq) = (frame["msg_id"].as_str().unwrap(), frame["seq"].as_u64().unwrap());
                let Some(at) = self.unacked.iter().position(|(_, unacked)| unacked == id) else {
                    return;
                };
                let key = self.unacked.remove(at);
                if let Some(before) = seen.acked.insert(key, seq).filter(|before| *before != seq) {
                    seen.wrong.push(format!("{id} was acknowledged at {before} and at {seq}"));
                }
            }
            // Not acknowledged: tried again after the next connect.
            Some(2) => {}
            Some(4) => {
                let conversation = frame["conversation_id"].as_str().unwrap().to_owned();
                let (id, seq) = (
                    frame["payload"]["msg_id"].as_str().unwrap(),
                    frame["payload"]["seq"].as_u64().unwrap(),
                );
                let last = last_seq.insert(conversation.clone(), seq).unwrap_or(0);
                if seq <= last {
                    seen.wrong.push(format!("{conversation}: seq {seq} was pushed after {last}"));
                }
                if let Some(other) = seen
                    .pushed
                    .insert((conversation, seq), id.to_owned())
                    .filter(|other| other != id)
                {
                    seen.wrong.push(format!("seq {seq} was pushed as {other} and as {id}"));
                }
            }
            _ => {}
        }
    }
}

fn send(
    socket: &mut WebSocket<TcpStream>,
    conversation: &str,
    id: &str,
) -> tungstenite::Result<()> {
    let frame =
        json!({"cmd":2,"msg_id":id,"conversation_id":conversation,"payload":{"content":id}});
    socket.send(Message::text(frame.to_string()))
}

/// Runs the load through `rounds` kills and says what was wrong afterwards.
fn trial(seed: u64, rounds: u32, options: &[&str]) -> (Vec<String>, Duration, usize) {
    eprintln!("seed {seed}");
    let mut random = Random(seed | 1);
    let data = data_dir();
    let mut server = Server::start(data.path(), options);
    let addr = server.addr.clone();
    let (seen, stop) = (Arc::new(Mutex::new(Seen::default())), Arc::new(AtomicBool::new(false)));
    let senders: Vec<_> = (0..USERS)
        .map(|user| {
            let (seen, stop) = (Arc::clone(&seen), Arc::clone(&stop));
            let sender =
                Sender { addr: addr.clone(), user, unacked: Vec::new(), next: 0, seen, stop };
            std::thread::spawn(move || sender.run())
        })
        .collect();
    let mut slowest_start = Duration::ZERO;
    for _ in 0..rounds {
        std::thread::sleep(Duration::from_millis(30 + random.below(400)));
        server.kill();
        server = Server::start_on(&addr, data.path(), options);
        slowest_start = slowest_start.max(server.ready_after);
    }
    stop.store(true, Ordering::Relaxed);
    let deadline = Instant::now() + Duration::from_secs(60);
    for sender in senders {
        assert!(Instant::now() < deadline, "senders do not come to an end");
        sender.join().unwrap();
    }
    let mut seen = std::mem::take(&mut *seen.lock().unwrap());
    audit(&server, &mut seen);
    (seen.wrong, slowest_start, seen.acked.len())
}

/// Holds what was told against what is stored.
fn audit(server: &Server, seen: &mut Seen) {
    let mut reader = server.dev_user("user0");
    for number in 0..CONVERSATIONS {
        let conversation = format!("group_{number}");
        let mut stored = BTreeMap::new();
        let mut ids = HashMap::new();
        let mut cursor = 0;
        loop {
            let page = reader.pull(&conversation, cursor, 500);
            for item in page["payload"].as_array().unwrap() {
                let (seq, id) =
                    (item["seq"].as_u64().unwrap(), item["msg_id"].as_str().unwrap().to_owned());
                if let Some(other) = ids.insert(id.clone(), seq) {
                    seen.wrong.push(format!("{id} is stored at {other} and at {seq}"));
                }
                stored.insert(seq, id);
            }
            cursor = page["next_cursor_seq"].as_u64().unwrap();
            if page["has_more"] != true {
                break;
            }
        }
        if stored.len() as u64 != cursor {
            seen.wrong
                .push(format!("{conversation}: {} messages up to seq {cursor}", stored.len()));
        }
        for ((_, id), seq) in seen.acked.iter().filter(|((of, _), _)| *of == conversation) {
            if stored.get(seq) != Some(id) {
                seen.wrong.push(format!(
                    "{id} was acknowledged at {seq}, where {:?} is stored",
                    stored.get(seq)
                ));
            }
        }
        for ((_, seq), id) in seen.pushed.iter().filter(|((of, _), _)| *of == conversation) {
            if stored.get(seq) != Some(id) {
                seen.wrong.push(format!(
                    "{id} was pushed at {seq}, where {:?} is stored",
                    stored.get(seq)
                ));
            }
        }
    }
}

fn seed() -> u64 {
    let given = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok());
    given.unwrap_or_else(|| {
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos()
            as u64
    })
}

#[test]
fn nothing_acknowledged_is_lost_or_doubled_over_fifty_kills() {
    let (wrong, slowest_start, acked) = trial(seed(), 50, DEV);
    eprintln!("{acked} messages acknowledged, slowest start {slowest_start:?}");
    assert_eq!(wrong, Vec::<String>::new());
    assert!(acked > 1_000, "only {acked} messages: no load");
    assert!(slowest_start < Duration::from_secs(1), "a start took {slowest_start:?}");
}

/// The control runs: each takes one safety away and must be found out.
#[cfg(feature = "fault-injection")]
mod control {
    use super::*;

    fn must_be_found_out(fault: &str, trace: &str) {
        let options: Vec<_> = DEV.iter().copied().chain(["--fault", fault]).collect();
        for attempt in 0..5 {
            let (wrong, _, _) = trial(seed(), 20, &options);
            eprintln!("attempt {attempt}: {} anomalies, such as {:?}", wrong.len(), wrong.first());
            if wrong.iter().any(|anomaly| anomaly.contains(trace)) {
                return;
            }
        }
        panic!("with {fault} the check found nothing: it proves nothing");
    }

    #[test]
    fn without_the_unique_key_retries_are_doubled() {
        must_be_found_out("no_unique_key", "is stored at");
    }

    #[test]
    fn an_answer_before_the_commit_loses_messages() {
        must_be_found_out("ack_before_commit", "was acknowledged at");
    }
}
