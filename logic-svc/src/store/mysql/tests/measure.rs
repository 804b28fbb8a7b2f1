//! What a message costs: microseconds of CPU of this process and of the server. Prints; fails on nothing but errors.
//! Run one by one, in a release build: `cargo test --release -p logic-svc --features cluster measure -- --include-ignored
//! --nocapture --test-threads 1`.

use std::time::Instant;

use super::*;
use crate::ports::{HistoryStore, Known, Members};

/// Conversations that the ticks are spread over.
const CONVERSATIONS: usize = 10_000;
/// Messages of each measurement.
const MESSAGES: usize = 20_000;
const CONTENT: &[u8] = &[b'x'; 128];

/// User and system time of a process in microseconds, from `/proc/PID/stat`: in hundredths of a second.
fn cpu_us(pid: u64) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let (user, system): (u64, u64) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    Some((user + system) * 10_000)
}

/// The server, if it runs on this machine: whoever listens on its port is asked for its process file.
fn server_pid(database: &Database) -> Option<u64> {
    let path: String = database.ask("SELECT @@pid_file");
    let data: String = database.ask("SELECT @@datadir");
    let read = |path: String| std::fs::read_to_string(path).ok()?.trim().parse().ok();
    read(path.clone()).or_else(|| read(format!("{data}{path}")))
}

struct Meter {
    server: Option<u64>,
    begun: Instant,
    ours_us: u64,
    theirs_us: u64,
}

impl Meter {
    fn start(server: Option<u64>) -> Self {
        let own = u64::from(std::process::id());
        let (ours_us, theirs_us) = (cpu_us(own).unwrap_or(0), server.and_then(cpu_us).unwrap_or(0));
        Self { server, begun: Instant::now(), ours_us, theirs_us }
    }

    fn print(self, what: &str, count: usize) {
        let ours = cpu_us(u64::from(std::process::id())).unwrap_or(0) - self.ours_us;
        let theirs = self.server.and_then(cpu_us).unwrap_or(0) - self.theirs_us;
        let per = |us: u64| us as f64 / count as f64;
        println!(
            "{what}: {:.1} us client, {:.1} us server each, {:.0}/s",
            per(ours),
            per(theirs),
            count as f64 / self.begun.elapsed().as_secs_f64()
        );
    }
}

/// Conversation numbers, and a log.
fn prepare(database: &Database) -> (Fixture, Vec<u64>) {
    let fixture = Fixture::new(database);
    let mut raw = database.raw();
    for chunk in (0..CONVERSATIONS).collect::<Vec<_>>().chunks(2000) {
        let rows: Vec<String> = chunk.iter().map(|n| format!("('m{n}', 1, '', 2, 1, 1)")).collect();
        let sql = "INSERT INTO conversations(conversation_id, type, name, member_count, made_id, created_at_ms) VALUES";
        raw.query_drop(format!("{sql}{}", rows.join(","))).unwrap();
    }
    let numbers =
        raw.query("SELECT id FROM conversations WHERE conversation_id LIKE 'm%'").unwrap();
    (fixture, numbers)
}

/// Conversations as if drawn at random, the same ones in every run.
fn scattered(n: usize) -> usize {
    (n as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) as usize >> 20
}

fn tick(numbers: &[u64], user: u64, first: usize, size: usize) -> Vec<(u64, u64, Vec<u8>)> {
    (first..first + size)
        .map(|n| (numbers[scattered(n) % numbers.len()], user, CONTENT.to_vec()))
        .collect()
}

fn uuids(count: usize) -> Vec<String> {
    (0..count).map(|_| uuid::Uuid::now_v7().hyphenated().to_string()).collect()
}

#[test]
#[ignore = "prints figures; needs the servers of `cargo xtask servers up`"]
fn appending() {
    let database = Database::new();
    let (mut fixture, numbers) = prepare(&database);
    let server = server_pid(&database);
    let user = fixture.users[0];
    let mut done = 0;
    for size in [16usize, 48, 100, 256, 512] {
        let ticks = MESSAGES / size;
        let keys: Vec<Vec<String>> = (0..ticks).map(|_| uuids(size)).collect();
        let meter = Meter::start(server);
        for keys in &keys {
            let ids = fixture.ids(size);
            append_as(&mut fixture.log, &tick(&numbers, user, done, size), &ids, keys).unwrap();
            done += size;
        }
        meter.print(&format!("append, {size} messages a tick"), ticks * size);
    }
    let meter = Meter::start(server);
    for _ in 0..20 {
        fixture.log.forget();
        let mut runs: Vec<Run> = numbers[..500]
            .iter()
            .map(|no| Run { conversation: *no, first_seq: 0, count: 1, start: 0 })
            .collect();
        fixture.log.place(&mut runs).unwrap();
    }
    meter.print("a head that is not known, 500 a tick", 20 * 500);
    let mut directory = Directory::new(Arc::clone(&fixture.store));
    let known: Vec<Known<'_>> =
        numbers[..256].iter().map(|no| Known { no: *no, id: "", version: 0 }).collect();
    let meter = Meter::start(server);
    for _ in 0..100 {
        let mut changes = Vec::new();
        directory.changes(&known, &mut changes).unwrap();
        assert!(changes.is_empty());
    }
    meter.print("a version asked for, 256 a tick", 100 * 256);
}

#[test]
#[ignore = "prints figures; needs the servers of `cargo xtask servers up`"]
fn last_activity_derived_or_written() {
    let database = Database::new();
    let (mut fixture, numbers) = prepare(&database);
    let server = server_pid(&database);
    let user = fixture.users[0];
    let mut raw = database.raw();
    for chunk in numbers.chunks(2000) {
        let rows: Vec<String> =
            chunk.iter().map(|no| format!("({no}, {user}, 3, 0, 1, 0, 0)")).collect();
        let sql = "INSERT INTO conversation_members(conversation, user_id, role, joined_seq, joined_at_ms, read_seq, version) VALUES";
        raw.query_drop(format!("{sql}{}", rows.join(","))).unwrap();
    }
    for n in 0..100 {
        let rows = tick(&numbers, user, n * 256, 256);
        let (ids, keys) = (fixture.ids(256), uuids(256));
        append_as(&mut fixture.log, &rows, &ids, &keys).unwrap();
    }
    let meter = Meter::start(server);
    for _ in 0..5 {
        assert!(fixture.store.activities(user).unwrap().len() >= CONVERSATIONS);
    }
    meter.print("derived: reading one of a user's 10,000 conversations", 5 * CONVERSATIONS);
    // What it would cost to write it with each tick instead.
    let meter = Meter::start(server);
    for n in 0..40 {
        let rows = tick(&numbers, user, n * 256, 256);
        let values: Vec<String> = rows
            .iter()
            .map(|(no, ..)| format!("({no}, CONCAT('w', {no}), 1, '', 2, {n}, 1)"))
            .collect();
        let sql = "INSERT INTO conversations(id, conversation_id, type, name, member_count, made_id, created_at_ms) VALUES";
        raw.query_drop(format!(
            "{sql}{} ON DUPLICATE KEY UPDATE made_id = VALUES(made_id)",
            values.join(",")
        ))
        .unwrap();
    }
    meter.print("written: one conversation of a tick of 256", 40 * 256);
    assert!(fixture.store.last_seq(numbers[0]).is_ok());
}
