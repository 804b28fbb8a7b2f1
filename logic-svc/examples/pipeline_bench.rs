//! Messages a second and CPU a message through the pipeline, with the real store and without one.
//!
//! `cargo run --release -p logic-svc --example pipeline_bench [-- MESSAGES [BATCH...]]`
//! 10,000 direct conversations, 128-byte messages, UUIDv7 client ids, every receiver online, a sink that drops.

use std::io::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};

use logic_svc::Service;
use logic_svc::config::Config;
use logic_svc::domain::conversation::Kind;
use logic_svc::domain::delivery::ConnectionId;
use logic_svc::domain::member::MemberSet;
use logic_svc::egress::router::Egress;
use logic_svc::pipeline::{Pipeline, Settings};
use logic_svc::ports::{
    Append, AppendError, CallSource, Change, ConversationRecord, DeliverySink, Ensure, Fanout,
    Found, IdSource, Known, Members, MessageLog, Received, Run, SendKey, StoreError,
    UpstreamSource,
};
use logic_svc::store::presence::LocalPresence;
use proto::ids::{direct_conversation_id, direct_conversation_users};
use proto::v1::call::Request;
use proto::v1::{
    Call, CallReply, DeliveryBatch, EventDelivery, Hello, Kick, Send, UpstreamBatch, UpstreamFrame,
};
use rustix::time::{ClockId, clock_gettime};

/// 150 users make 11,175 pairs; the first 10,000 are used.
const USERS: u64 = 150;
const CONVERSATIONS: usize = 10_000;
const CONTENT_BYTES: usize = 128;
const BATCHES: [usize; 4] = [16, 64, 256, 1024];

struct Null;

impl DeliverySink for Null {
    fn deliver(&self, _: DeliveryBatch) {}
    fn reply(&self, _: CallReply) {}
    fn event(&self, _: u32, _: EventDelivery) {}
    fn kick(&self, _: Kick) {}
}

struct Calls(Vec<Call>);

impl CallSource for Calls {
    fn recv(&mut self, into: &mut Vec<Call>, _: Duration) -> Received {
        into.append(&mut self.0);
        Received::Closed
    }
}

/// Hands out one prepared batch a tick and takes the time between the first and the last.
struct Prepared {
    batches: std::vec::IntoIter<UpstreamBatch>,
    begun: Option<Spent>,
    report: Arc<std::sync::Mutex<Option<Spent>>>,
}

#[derive(Clone, Copy)]
struct Spent {
    wall: Instant,
    thread: Duration,
    process: Duration,
}

impl Spent {
    fn now() -> Self {
        let cpu = |clock| {
            let time = clock_gettime(clock);
            Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
        };
        Self {
            wall: Instant::now(),
            thread: cpu(ClockId::ThreadCPUTime),
            process: cpu(ClockId::ProcessCPUTime),
        }
    }
}

impl UpstreamSource for Prepared {
    fn recv(&mut self, into: &mut Vec<UpstreamBatch>, _: Duration) -> Received {
        self.begun.get_or_insert_with(Spent::now);
        match self.batches.next() {
            Some(batch) => {
                into.push(batch);
                Received::Some
            }
            None => {
                if let (Ok(mut report), Some(begun)) = (self.report.lock(), self.begun) {
                    *report = Some(begun);
                }
                Received::Closed
            }
        }
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let numbers: Vec<usize> =
        std::env::args().skip(1).map(|arg| arg.parse()).collect::<Result<_, _>>()?;
    let messages = numbers.first().copied().unwrap_or(300_000);
    let batches = if numbers.len() > 1 { &numbers[1..] } else { &BATCHES };
    let mut out = std::io::stdout();
    // First, while the process has no freed memory that would hide what this takes.
    logins(&mut out)?;
    for &batch in batches {
        let count = messages.min(batch * 4000);
        alone(&mut out, batch, count)?;
    }
    fan_out(&mut out, messages / 10)?;
    for &batch in batches {
        let count = messages.min(batch * 4000);
        with_store(&mut out, batch, count)?;
    }
    Ok(())
}

fn conversations() -> Vec<(u64, u64, String)> {
    let pairs = (1..=USERS).flat_map(|low| (low + 1..=USERS).map(move |high| (low, high)));
    pairs
        .take(CONVERSATIONS)
        .map(|(low, high)| (low, high, direct_conversation_id(low, high)))
        .collect()
}

/// Batches of random conversations. The ids rise with time as UUIDv7 does, spread over many clients.
fn prepare(batch: usize, count: usize, salt: u64) -> Vec<UpstreamBatch> {
    let conversations = conversations();
    let mut random = 0x9e37_79b9_7f4a_7c15_u64 ^ salt;
    let mut next = move || {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random
    };
    let content = bytes::Bytes::from(vec![b'x'; CONTENT_BYTES]);
    let frame = |n: usize| {
        let (low, high, id) = &conversations[next() as usize % conversations.len()];
        let user_id = if next() % 2 == 0 { *low } else { *high };
        // About a million messages a minute, each client a little off.
        let ms = 1_900_000_000_000 + salt * 10_000_000 + (n / 16) as u64 + next() % 20;
        let uuid = uuid::Builder::from_unix_timestamp_millis(ms, &random_bytes(next(), next()))
            .into_uuid();
        let send = Send {
            request_id: n as u32,
            conversation_id: id.clone(),
            client_msg_id: uuid.to_string(),
            msg_type: 1,
            content: content.clone(),
        };
        UpstreamFrame { slot: user_id as u32, generation: 1, user_id, send: Some(send) }
    };
    let mut frames = (0..count).map(frame);
    let mut batches = Vec::with_capacity(count / batch + 1);
    loop {
        let frames: Vec<UpstreamFrame> = frames.by_ref().take(batch).collect();
        if frames.is_empty() {
            return batches;
        }
        batches.push(UpstreamBatch { shard: batches.len() as u32 % 2, frames });
    }
}

fn random_bytes(a: u64, b: u64) -> [u8; 10] {
    let mut bytes = [0; 10];
    bytes[..8].copy_from_slice(&a.to_le_bytes());
    bytes[8..].copy_from_slice(&b.to_le_bytes()[..2]);
    bytes
}

fn report(
    out: &mut impl Write,
    what: &str,
    batch: usize,
    count: usize,
    begun: Spent,
) -> std::io::Result<()> {
    let end = Spent::now();
    let wall = end.wall - begun.wall;
    let each = |time: Duration| time.as_secs_f64() * 1e6 / count as f64;
    writeln!(
        out,
        "{what:8} {batch:5} a tick: {:8.0} messages/s, CPU a message: pipeline thread {:5.2} us, process {:5.2} us",
        count as f64 / wall.as_secs_f64(),
        each(end.thread - begun.thread),
        each(end.process - begun.process),
    )
}

/// Memory and time of users who log in for the first time, and again.
fn logins(out: &mut impl Write) -> Result<(), Box<dyn std::error::Error>> {
    const LOGINS: u64 = 15_000;
    let dir = tempfile::tempdir_in(".")?;
    let config = Config { data_dir: dir.path().to_owned(), dev_login: true, ..Config::default() };
    let service = Service::open(config, Arc::new(Null))?;
    let before = anonymous_bytes()?;
    for what in ["made", "known"] {
        let begun = Spent::now();
        // As many at a time as a busy gateway has queued.
        for first in (1..=LOGINS).step_by(100) {
            service.run_calls(Calls((first..first + 100).map(login).collect()));
        }
        let cpu = (Spent::now().thread - begun.thread).as_secs_f64() * 1e6 / LOGINS as f64;
        let bytes = (anonymous_bytes()? - before) / LOGINS as i64;
        writeln!(
            out,
            "{LOGINS} logins by name, users {what}: CPU {cpu:.2} us each; process memory {bytes} bytes each"
        )?;
    }
    service.close();
    Ok(())
}

fn login(user: u64) -> Call {
    let hello = Hello { dev_user: format!("user{user}"), ..Default::default() };
    let request = Some(Request::Login(hello));
    Call { shard: user as u32 % 2, slot: user as u32, generation: 1, user_id: 0, request }
}

/// Memory of this process that is backed by no file.
fn anonymous_bytes() -> Result<i64, Box<dyn std::error::Error>> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).ok_or("no RssAnon")?;
    let kib: i64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kib * 1024)
}

/// The whole service.
fn with_store(
    out: &mut impl Write,
    batch: usize,
    count: usize,
) -> Result<(), Box<dyn std::error::Error>> {
    let dir = tempfile::tempdir_in(".")?;
    let config = Config { data_dir: dir.path().to_owned(), dev_login: true, ..Config::default() };
    let service = Service::open(config.clone(), Arc::new(Null))?;
    service.run_calls(Calls((1..=USERS).map(login).collect()));
    let run = |batches: Vec<UpstreamBatch>| {
        let report = Arc::default();
        let source =
            Prepared { batches: batches.into_iter(), begun: None, report: Arc::clone(&report) };
        service.run_ingest(source);
        report.lock().ok().and_then(|begun| *begun)
    };
    // Makes all conversations and fills the caches.
    run(prepare(1024, 40_960, 1));
    let begun = run(prepare(batch, count, 2)).ok_or("the source was not read to its end")?;
    report(out, "sqlite", batch, count, begun)?;
    let wal = std::fs::metadata(dir.path().join("corelane.db-wal"))?.len() >> 20;
    let database = std::fs::metadata(dir.path().join("corelane.db"))?.len() >> 20;
    writeln!(out, "         database {database} MiB, write-ahead log {wal} MiB")?;
    // As after a crash: nothing merged, nothing copied back.
    drop(service);
    let begun = Instant::now();
    let service = Service::open(config, Arc::new(Null))?;
    writeln!(out, "         opened again in {} ms", begun.elapsed().as_millis())?;
    merging(out, &dir.path().join("corelane.db"))?;
    service.close();
    Ok(())
}

/// Waits for the background to merge what the run left, and says what that cost.
fn merging(
    out: &mut impl Write,
    database: &std::path::Path,
) -> Result<(), Box<dyn std::error::Error>> {
    let connection = rusqlite::Connection::open(database)?;
    let waiting = || {
        connection.query_row(
            "SELECT (SELECT max(id) FROM chunks) - (SELECT min(id) FROM chunks) + 1",
            [],
            |row| row.get::<_, Option<u32>>(0),
        )
    };
    let (first, begun) = (waiting()?.unwrap_or(0), Spent::now());
    let mut last = first;
    // Below this backlog the service takes its time.
    while last >= 65_536 && begun.wall.elapsed() < Duration::from_secs(60) {
        std::thread::sleep(Duration::from_millis(100));
        last = waiting()?.unwrap_or(0);
    }
    let end = Spent::now();
    let (merged, cpu) = (first - last, (end.process - begun.process).as_secs_f64());
    if merged > 0 {
        let (each, wall) = (cpu * 1e6 / f64::from(merged), (end.wall - begun.wall).as_secs_f64());
        writeln!(out, "         {merged} chunks merged in {wall:.1} s, CPU a chunk {each:.2} us")?;
    }
    Ok(())
}

/// The pipeline with a log that only counts: what is left is the pipeline's own work.
fn alone(out: &mut impl Write, batch: usize, count: usize) -> std::io::Result<()> {
    let mut pipeline = without_store(Pairs);
    run(&mut pipeline, prepare(1024, 40_960, 1));
    let batches = prepare(batch, count, 2);
    let begun = Spent::now();
    run(&mut pipeline, batches);
    report(out, "no store", batch, count, begun)
}

/// The same with conversations of 100 members, all online.
fn fan_out(out: &mut impl Write, count: usize) -> std::io::Result<()> {
    let mut pipeline = without_store(Hundreds);
    let batches = prepare(64, count, 2);
    let begun = Spent::now();
    run(&mut pipeline, batches);
    let spent = (Spent::now().thread - begun.thread).as_secs_f64();
    let each = spent * 1e6 / count as f64 / 99.0;
    writeln!(out, "100 members online: pipeline alone {each:.3} us a delivery")
}

fn run<M: Members>(
    pipeline: &mut Pipeline<Counting, M, Egress<LocalPresence>>,
    batches: Vec<UpstreamBatch>,
) {
    for batch in batches {
        std::hint::black_box(pipeline.tick(vec![(0, batch)]));
    }
}

fn without_store<M: Members>(members: M) -> Pipeline<Counting, M, Egress<LocalPresence>> {
    let presence = Arc::new(LocalPresence::default());
    for user in 1..=USERS {
        let connection =
            ConnectionId { gateway: 0, shard: user as u32 % 2, slot: user as u32, generation: 1 };
        presence.write().login(user, "", "", connection, usize::MAX);
    }
    let settings = Settings {
        content_max_bytes: 4096,
        dev_login: false,
        cached_conversations: 100_000,
        cached_members: 1_000_000,
        recent_sends: 65_536,
        versions_hold: Duration::from_secs(10),
        #[cfg(feature = "fault-injection")]
        ack_before_commit: false,
        #[cfg(feature = "fault-injection")]
        forget_sends: false,
    };
    Pipeline::new(Counting, members, Egress::new(presence), Arc::new(Counter::default()), settings)
}

struct Counting;

impl MessageLog for Counting {
    fn place(&mut self, runs: &mut [Run]) -> Result<(), StoreError> {
        runs.iter_mut().for_each(|run| run.first_seq = 1);
        Ok(())
    }
    fn append(&mut self, append: Append<'_>) -> Result<(), AppendError> {
        std::hint::black_box(append);
        Ok(())
    }
    fn find(&mut self, keys: &[SendKey<'_>]) -> Result<Vec<Option<Found>>, StoreError> {
        Ok(vec![None; keys.len()])
    }
}

/// Every canonical direct id is a conversation.
struct Pairs;

impl Members for Pairs {
    fn conversation(&mut self, id: &str) -> Result<Option<ConversationRecord>, StoreError> {
        Ok(direct_conversation_users(id).map(|(low, high)| ConversationRecord {
            no: low * 1000 + high,
            kind: Kind::Direct,
            dev_made: false,
            members: MemberSet::new([low, high]),
            version: 0,
            fanout: Fanout::Write,
        }))
    }
    fn username(&mut self, user: u64) -> Result<Option<String>, StoreError> {
        Ok(Some(format!("user{user}")))
    }
    fn fetch(&mut self, _: &[&str], _: &[u64]) -> Result<(), StoreError> {
        Ok(())
    }
    fn ensure(
        &mut self,
        wanted: &[Ensure],
        _: u64,
    ) -> Result<Vec<Option<ConversationRecord>>, StoreError> {
        Ok(vec![None; wanted.len()])
    }
    fn changes(&mut self, _: &[Known<'_>], _: &mut Vec<Change>) -> Result<(), StoreError> {
        Ok(())
    }
}

/// Every canonical direct id stands for a group of these two users and 98 more.
struct Hundreds;

impl Members for Hundreds {
    fn conversation(&mut self, id: &str) -> Result<Option<ConversationRecord>, StoreError> {
        let record = Pairs.conversation(id)?;
        Ok(record.map(|mut record| {
            let others = (1..=USERS).filter(|user| !record.members.contains(*user)).take(98);
            let pair = record.members.as_slice().iter().copied();
            record.members = MemberSet::new(pair.chain(others).collect::<Vec<_>>());
            record
        }))
    }
    fn username(&mut self, user: u64) -> Result<Option<String>, StoreError> {
        Pairs.username(user)
    }
    fn fetch(&mut self, _: &[&str], _: &[u64]) -> Result<(), StoreError> {
        Ok(())
    }
    fn ensure(
        &mut self,
        wanted: &[Ensure],
        made_id: u64,
    ) -> Result<Vec<Option<ConversationRecord>>, StoreError> {
        Pairs.ensure(wanted, made_id)
    }
    fn changes(&mut self, _: &[Known<'_>], _: &mut Vec<Change>) -> Result<(), StoreError> {
        Ok(())
    }
}

#[derive(Default)]
struct Counter(std::sync::atomic::AtomicU64);

impl IdSource for Counter {
    fn take(&self, count: usize, into: &mut Vec<u64>) -> Result<(), StoreError> {
        let first = self.0.fetch_add(count as u64, std::sync::atomic::Ordering::Relaxed);
        into.extend(first..first + count as u64);
        Ok(())
    }
}
