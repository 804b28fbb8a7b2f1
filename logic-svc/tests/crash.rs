//! Killing a process that acknowledges messages, and everything at once in one process.
#![allow(missing_docs)]

mod common;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use common::{Harness, batch, call, frame, seq};
use logic_svc::config::Config;
use logic_svc::ports::{Received, UpstreamSource};
use proto::v1::call::Request;
use proto::v1::call_reply::Reply;
use proto::v1::{Pull, UpstreamBatch};

/// Says to the test below that it is the process to be killed, and where to write.
const CHILD: &str = "LOGIC_SVC_CRASH_CHILD";
const CONVERSATIONS: usize = 7;
const TICK: usize = 10;

/// Small limits, so that merging and copying back are under way all the time.
fn config(data_dir: PathBuf) -> Config {
    Config {
        data_dir,
        dev_login: true,
        merge_backlog_rows: 20,
        merge_backlog_hard_rows: 40,
        wal_checkpoint_bytes: 256 * 1024,
        ..Config::default()
    }
}

fn harness(data_dir: PathBuf) -> Harness {
    Harness::with(|settings| *settings = config(data_dir))
}

/// The `n`th tick of a run: ids and contents follow from the numbers.
fn tick(run: usize, n: usize, user: u64) -> UpstreamBatch {
    let frames = (0..TICK).map(|at| {
        let conversation = format!("g{}", (n + at) % CONVERSATIONS);
        let id = format!("{run}-{n}-{at}");
        frame(0, user, &conversation, &id, &format!("content of {id}"))
    });
    batch(0, frames.collect())
}

#[test]
fn child() {
    let Ok(args) = std::env::var(CHILD) else { return };
    let (dir, run) = args.rsplit_once(':').unwrap();
    let run: usize = run.parse().unwrap();
    let h = harness(dir.into());
    let user = h.login("alice", "", 0, 1).user_id;
    let mut out = std::io::stdout();
    for n in 0.. {
        for reply in h.tick(vec![tick(run, n, user)]) {
            let ack = reply.ack.as_ref().unwrap();
            writeln!(out, "ack {} {} {}", ack.client_msg_id, seq(&reply), ack.message_id).unwrap();
        }
        out.flush().unwrap();
    }
}

/// Lets a child run for a while, kills it, and gives what it acknowledged.
fn run_and_kill(dir: &std::path::Path, run: usize, acks: usize) -> Vec<(String, u64, u64)> {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["child", "--exact", "--nocapture"])
        .env(CHILD, format!("{}:{run}", dir.display()))
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut acked = Vec::new();
    let mut killed = false;
    // What is in the pipe when the process dies was acknowledged too.
    while let Some(Ok(line)) = lines.next() {
        let words: Vec<&str> = line.split(' ').collect();
        if let ["ack", id, seq, message_id] = words[..] {
            acked.push((id.to_owned(), seq.parse().unwrap(), message_id.parse().unwrap()));
        }
        if !killed && acked.len() >= acks {
            child.kill().unwrap();
            killed = true;
        }
    }
    child.wait().unwrap();
    assert!(killed, "the child ended by itself");
    acked
}

#[test]
fn nothing_acknowledged_is_lost_when_the_process_is_killed() {
    let dir = tempfile::tempdir().unwrap();
    let mut acked: BTreeMap<String, (u64, u64)> = BTreeMap::new();
    for (run, acks) in [5, 300, 1, 900, 2000, 50].into_iter().enumerate() {
        for (id, seq, message_id) in run_and_kill(dir.path(), run, acks) {
            assert_eq!(acked.insert(id, (seq, message_id)), None);
        }
    }
    let h = harness(dir.path().to_owned());
    let user = h.login("alice", "", 0, 1).user_id;
    let mut stored: BTreeMap<String, (u64, u64)> = BTreeMap::new();
    for conversation in 0..CONVERSATIONS {
        for (at, item) in
            all_messages(&h, user, &format!("g{conversation}")).into_iter().enumerate()
        {
            assert_eq!(item.seq, at as u64 + 1, "dense");
            assert_eq!(item.content, format!("content of {}", item.client_msg_id).as_bytes());
            let known = stored.insert(item.client_msg_id, (item.seq, item.message_id));
            assert_eq!(known, None, "stored twice");
        }
    }
    for (id, place) in &acked {
        assert_eq!(stored.get(id), Some(place), "{id}");
    }
    // A retry of everything, acknowledged or not, finds the same places.
    let runs: Vec<(usize, usize)> = ticks_of(stored.keys());
    for (run, n) in runs {
        for reply in h.tick(vec![tick(run, n, user)]) {
            let ack = reply.ack.unwrap();
            assert_eq!(stored.get(&ack.client_msg_id), Some(&(ack.seq, ack.message_id)));
        }
    }
}

/// The ticks whose messages these are. A tick is stored whole or not at all.
fn ticks_of<'a>(ids: impl Iterator<Item = &'a String>) -> Vec<(usize, usize)> {
    let mut counts: BTreeMap<(usize, usize), usize> = BTreeMap::new();
    for id in ids {
        let mut parts = id.split('-').map(|part| part.parse().unwrap());
        *counts.entry((parts.next().unwrap(), parts.next().unwrap())).or_default() += 1;
    }
    assert!(counts.values().all(|&count| count == TICK), "half a tick is stored");
    counts.into_keys().collect()
}

fn all_messages(h: &Harness, user: u64, conversation: &str) -> Vec<proto::v1::Message> {
    let (mut all, mut cursor) = (Vec::new(), 0);
    loop {
        let pull = Pull {
            conversation_id: conversation.into(),
            cursor_seq: cursor,
            limit: 500,
            ..Default::default()
        };
        let Reply::Page(page) = h.call(user, Request::Pull(pull)) else { panic!("no page") };
        cursor = page.next_cursor_seq;
        all.extend(page.items);
        if !page.has_more {
            return all;
        }
    }
}

/// Whether history was merged.
fn is_merged(h: &Harness) -> bool {
    h.count("SELECT count(*) FROM history") > 0
}

/// Ticks as fast as they are taken: so many, and then until history was merged while they went on.
struct Endless<'a> {
    h: &'a Harness,
    least: usize,
    until: Instant,
    user: u64,
    sent: &'a AtomicUsize,
    done: &'a AtomicBool,
}

impl Endless<'_> {
    fn is_enough(&self, sent: usize) -> bool {
        // Looking costs a connection: now and then.
        sent >= self.least
            && sent.is_multiple_of(50)
            && (is_merged(self.h) || Instant::now() > self.until)
    }
}

impl UpstreamSource for Endless<'_> {
    fn recv(&mut self, into: &mut Vec<UpstreamBatch>, _: Duration) -> Received {
        let sent = self.sent.load(Ordering::Relaxed);
        if self.is_enough(sent) {
            self.done.store(true, Ordering::Relaxed);
            return Received::Closed;
        }
        into.push(tick(0, sent, self.user));
        self.sent.store(sent + 1, Ordering::Relaxed);
        Received::Some
    }
}

#[test]
fn reading_goes_on_while_writing_and_merging_do() {
    let dir = tempfile::tempdir().unwrap();
    let h = harness(dir.path().to_owned());
    let user = h.login("alice", "", 0, 1).user_id;
    h.tick(vec![tick(1, 0, user)]);
    let (sent, done) = (AtomicUsize::new(0), AtomicBool::new(false));
    let mut rounds = 0;
    std::thread::scope(|scope| {
        let until = Instant::now() + Duration::from_secs(60);
        let source = Endless { h: &h, least: 600, until, user, sent: &sent, done: &done };
        scope.spawn(|| h.service().run_ingest(source));
        while !done.load(Ordering::Relaxed) {
            rounds += 1;
            let conversation_id = format!("g{}", rounds % CONVERSATIONS);
            let backward = rounds % 3 == 0;
            let cursor_seq = (rounds * 37 % 400) as u64;
            let pull =
                Pull { conversation_id, cursor_seq, limit: 40, backward, ..Default::default() };
            let replies = h.calls(vec![call(0, 1, user, Request::Pull(pull))]);
            let Some(Reply::Page(page)) = &replies[0].reply else { panic!("{replies:?}") };
            assert!(page.items.windows(2).all(|two| two[1].seq == two[0].seq + 1));
            if let (false, Some(first)) = (backward, page.items.first()) {
                assert_eq!(first.seq, cursor_seq + 1);
            }
            for item in &page.items {
                assert_eq!(item.content, format!("content of {}", item.client_msg_id).as_bytes());
            }
        }
    });
    let total: usize =
        (0..CONVERSATIONS).map(|at| all_messages(&h, user, &format!("g{at}")).len()).sum();
    assert_eq!(total, (1 + sent.into_inner()) * TICK);
    assert!(is_merged(&h), "merging took part");
}
