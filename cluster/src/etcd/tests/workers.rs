//! No worker id is ever good in two places at once.

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::Signal;

use super::super::{Settings, State, Worker, boottime_ns};
use super::link::Link;
use super::server::{Process, Server};
use super::{connect, lasting, settings, until};

#[tokio::test(flavor = "multi_thread")]
#[ignore = "starts an etcd of its own"]
async fn a_holder_that_is_cut_off_stops_before_the_next_begins() {
    let server = Server::start();
    let near = settings(&server.url());
    // The next one keeps its id, whatever comes between.
    let etcd = server.connect(&lasting(near.clone())).await;
    let link = Link::to(server.address()).await;
    let far = connect(&Settings { endpoints: vec![link.url().to_owned()], ..near }).await;
    for _ in 0..3 {
        // One id for two: the second waits for the first to lose it.
        let first = far.lease_worker(0, "first").await.unwrap();
        let watching = watch_closely(first.worker());
        link.cut();
        let second = etcd.lease_worker(0, "second").await.unwrap();
        let begun = boottime_ns();
        assert!(second.is_good());
        assert!(!first.is_good() && first.good_until() < begun, "{} {begun}", first.good_until());
        assert_ne!(first.standing().state, State::Held);
        link.mend();
        until("the loss is told", || first.standing().state == State::Lost).await;
        tokio::time::sleep(Duration::from_millis(500)).await;
        assert_eq!(first.worker().current(), None, "the id is another's");
        second.release().await.unwrap();
        until("it has one again", || first.is_good()).await;
        let looks = watching.await.unwrap();
        assert!(looks.iter().all(|good| !(begun..begun + 400_000_000).contains(good)));
        assert!(looks.iter().any(|good| *good < begun), "it was good while it lasted");
        first.release().await.unwrap();
    }
}

/// When the id was good, looked at from a thread as makers of ids do.
fn watch_closely(worker: Worker) -> tokio::task::JoinHandle<Vec<u64>> {
    tokio::task::spawn_blocking(move || {
        let (mut looks, start) = (Vec::new(), boottime_ns());
        let mut lost = false;
        while boottime_ns() - start < 30_000_000_000 {
            let now = boottime_ns();
            match worker.current() {
                Some(_) if lost => break,
                Some(_) => looks.push(now),
                None => lost = true,
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        looks
    })
}

const ENDPOINT: &str = "CORELANE_TEST_HOLDER_ENDPOINT";
const ROOT: &str = "CORELANE_TEST_HOLDER_ROOT";

/// Not a test by itself: the process that the next test stops. Says until when its id is good, and how it
/// stands, line by line.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "run by another test"]
async fn holder() {
    let (Ok(endpoint), Ok(root)) = (std::env::var(ENDPOINT), std::env::var(ROOT)) else { return };
    let settings = Settings { root, ..settings(&endpoint) };
    let lease = connect(&settings).await.lease_worker(0, "holder").await.unwrap();
    let worker = lease.worker();
    for _ in 0..20_000 {
        // The time first, as makers of ids do.
        let now = boottime_ns();
        println!("holder {now} {} {}", worker.good_until(), worker.current().is_some());
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// What the holder said: when, until when it was good then, and whether it was.
struct Line {
    now: u64,
    good_until: u64,
    good: bool,
}

fn parse(line: &str) -> Option<Line> {
    let mut words = line.rsplit_once("holder ")?.1.split(' ');
    Some(Line {
        now: words.next()?.parse().ok()?,
        good_until: words.next()?.parse().ok()?,
        good: words.next()?.parse().ok()?,
    })
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "starts an etcd of its own"]
async fn a_holder_that_stood_still_wakes_up_without_its_id() {
    let server = Server::start();
    let settings = settings(&server.url());
    let etcd = server.connect(&lasting(settings.clone())).await;
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["etcd::tests::workers::holder", "--exact", "--ignored", "--nocapture"])
        .env(ENDPOINT, server.url())
        .env(ROOT, &settings.root)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let output = child.stdout.take().unwrap();
    let mut process = Process(child);
    let (said, mut lines) = tokio::sync::mpsc::unbounded_channel();
    let reader = std::thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            if parse(&line).is_some_and(|line| said.send(line).is_err()) {
                break;
            }
        }
    });
    while !super::soon("it holds an id", lines.recv()).await.unwrap().good {}
    // Beyond its first renewals.
    tokio::time::sleep(Duration::from_secs(1)).await;
    process.signal(Signal::STOP);
    let second = etcd.lease_worker(0, "second").await.unwrap();
    let begun = boottime_ns();
    assert!(second.is_good());
    process.signal(Signal::CONT);
    let mut woken = 0;
    while woken < 100 {
        let line = super::soon("it goes on", lines.recv()).await.unwrap();
        if line.now < begun {
            assert!(line.good_until < begun, "{} {begun}", line.good_until);
        } else {
            assert!(!line.good && line.good_until < begun, "{} {}", line.now, line.good_until);
            woken += 1;
        }
    }
    assert!(second.is_good());
    process.kill();
    drop(lines);
    reader.join().unwrap();
}
