//! Messages from `im-upstream`: polled, worked in bounded ticks, published, and their offsets committed last.
//!
//! A tick's offsets are committed once every record that it sent is acknowledged by Kafka, and every tick before it
//! is done too. Whatever ends this process in between makes its successor read the records again: what is stored by
//! then is found, answered and delivered once more.
//!
//! A record may also tell of conversations whose members changed, and hold no messages.

mod places;
mod work;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use cluster::kafka::{
    CommitMode, ConsumeError, Consumer, NextOffset, Rebalance, Record, Settings, Token,
    TraceContext,
};
use proto::v1::{DeadLetter, PushRecord};

use super::faults;
use crate::domain::delivery::GatewayNo;
use crate::egress::cluster::{Ledger, Outbox};
use crate::gateways::Gateways;
use crate::ports::{Clock, DeadLetters, NewDeadLetter, StoreError};
use places::Places;
use work::{Arrived, Handle, Poisoned, work};

/// How long a poll waits for the first record; bounds how late stopping is seen.
const POLL: Duration = Duration::from_millis(50);
/// The same while acknowledgements are missing: their offsets are committed soon.
const POLL_OUTSTANDING: Duration = Duration::from_millis(20);
/// Offsets are committed this far apart at least: a commit costs the broker as much as a record. What was done since is
/// done again after a crash, without an effect.
const COMMIT_APART: Duration = Duration::from_millis(100);
/// Ticks begin this far apart at least while more than [`HERD`] messages come in each: fewer transactions and records,
/// with more in them.
const TICK_APART: Duration = Duration::from_millis(2);
/// A tick of this many messages is part of a herd.
const HERD: usize = 4;
/// Ticks whose acknowledgements are missing before no more are begun.
const OUTSTANDING_MAX: usize = 256;
/// How long missing acknowledgements are waited for when partitions are given up.
const REVOKE_LIMIT: Duration = Duration::from_secs(4);
/// The same when the service stops.
const STOP_LIMIT: Duration = Duration::from_secs(10);
/// A consumer that gets nothing of what waits for it for so long is made anew.
const STALLED: Duration = Duration::from_secs(15);
/// Wait before records are read again, by this consumer or another.
const AGAIN_WAIT: Duration = Duration::from_millis(500);
/// How long a dead letter is tried to be kept before the partition is read again instead.
const KEEP_LIMIT: Duration = Duration::from_secs(20);

/// What the loop is told at start.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    /// How to reach Kafka.
    pub(crate) kafka: Settings,
    /// The group that shares the partitions.
    pub(crate) group: String,
    /// Name for static membership; `None`: partitions move at once when this process ends.
    pub(crate) static_instance: Option<String>,
    /// Most records one poll takes.
    pub(crate) poll_records: usize,
    /// Most messages one tick takes, about.
    pub(crate) tick_messages: usize,
    /// How often a record that makes the handler panic alone is tried.
    pub(crate) poison_attempts: u32,
}

/// What the loop works with.
pub(crate) struct Parts {
    pub(crate) outbox: Arc<Outbox>,
    pub(crate) gateways: Arc<Gateways>,
    pub(crate) letters: Arc<dyn DeadLetters>,
    pub(crate) clock: Arc<dyn Clock>,
    /// Set from outside to end the loop.
    pub(crate) stop: Arc<AtomicBool>,
}

/// Why one life of the consumer ended.
enum End {
    Stopped,
    Anew(String),
}

/// Works until stopped. Blocks; for a thread of its own.
pub(crate) fn run<H>(options: &Options, parts: &Parts, handle: &mut H)
where
    H: Handle<Out = Vec<(GatewayNo, PushRecord)>>,
{
    let mut tag = 0;
    loop {
        handle.forget();
        match live(options, parts, handle, &mut tag) {
            End::Stopped => return,
            End::Anew(why) => {
                metrics::counter!("corelane_logic_consumers_made_anew_total").increment(1);
                tracing::warn!(
                    why,
                    "the consumer is made anew; uncommitted records are read again"
                );
            }
        }
        if parts.stop.load(Ordering::Relaxed) {
            return;
        }
        std::thread::sleep(AGAIN_WAIT);
    }
}

/// How far the ticks have come.
#[derive(Debug)]
struct Progress {
    ledger: Arc<Ledger>,
    places: Places,
}

impl Progress {
    /// Offsets that may be committed now.
    fn take_committable(&mut self) -> Vec<NextOffset> {
        let offsets = self.ledger.acks.take_committable();
        self.places.done(&offsets);
        offsets
    }

    fn forget(&mut self, partitions: &[(String, u32)]) {
        self.ledger.acks.forget(partitions);
        self.places.gone(partitions);
    }
}

/// The same for the loop and for the callbacks of its consumer, which are on the same thread.
#[derive(Clone, Debug)]
struct Shared(Arc<Mutex<Progress>>);

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Progress> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a rebalance does to the loop.
struct Moves {
    progress: Shared,
    /// Partitions came or went: what is at hand may be old.
    moved: Arc<AtomicBool>,
}

impl Rebalance for Moves {
    fn assigned(&mut self, partitions: &[(String, u32)]) {
        tracing::info!(?partitions, "partitions are ours");
        self.moved.store(true, Ordering::Relaxed);
    }

    fn revoked(&mut self, _: &[(String, u32)]) {
        // Every tick is worked and sent by now: only acknowledgements may be missing. Those of lost records never come.
        let ledger = Arc::clone(&self.progress.lock().ledger);
        if !ledger.failed() && !ledger.acks.wait(REVOKE_LIMIT) {
            tracing::warn!("partitions are given up before all acknowledgements are in");
        }
        self.moved.store(true, Ordering::Relaxed);
    }

    fn last_offsets(&mut self, partitions: &[(String, u32)]) -> Vec<NextOffset> {
        let mut progress = self.progress.lock();
        let offsets = progress.take_committable();
        progress.forget(partitions);
        offsets
    }

    fn lost(&mut self, partitions: &[(String, u32)]) {
        self.progress.lock().forget(partitions);
        self.moved.store(true, Ordering::Relaxed);
    }
}

/// One life of a consumer.
struct Life<'a, H> {
    options: &'a Options,
    parts: &'a Parts,
    handle: &'a mut H,
    /// Counts ledgers: what is told of an old one is known by its number.
    tag: &'a mut u16,
    /// The one of [`Progress`].
    ledger: Arc<Ledger>,
    progress: Shared,
    moved: Arc<AtomicBool>,
    consumer: Consumer,
    /// When offsets were committed last.
    committed: Instant,
    /// When the last tick began, if it was part of a herd.
    crowded: Option<Instant>,
}

fn live<H>(options: &Options, parts: &Parts, handle: &mut H, tag: &mut u16) -> End
where
    H: Handle<Out = Vec<(GatewayNo, PushRecord)>>,
{
    let ledger = next_ledger(tag);
    let progress = Progress { ledger: Arc::clone(&ledger), places: Places::default() };
    let (progress, moved) =
        (Shared(Arc::new(Mutex::new(progress))), Arc::new(AtomicBool::new(false)));
    let moves = Moves { progress: progress.clone(), moved: Arc::clone(&moved) };
    let topics = [parts.outbox.topics().upstream.clone()];
    let instance = options.static_instance.as_deref();
    let consumer = Consumer::group(&options.kafka, &options.group, &topics, instance, moves);
    let consumer = match consumer {
        Ok(consumer) => consumer,
        Err(error) => return End::Anew(error.to_string()),
    };
    parts.outbox.begin(&ledger);
    let (committed, crowded) = (Instant::now(), None);
    let mut life =
        Life { options, parts, handle, tag, ledger, progress, moved, consumer, committed, crowded };
    let end = life.run();
    if matches!(end, End::Stopped) {
        life.finish();
    }
    end
}

fn next_ledger(tag: &mut u16) -> Arc<Ledger> {
    *tag = tag.wrapping_add(1);
    Arc::new(Ledger::new(*tag))
}

impl<H: Handle<Out = Vec<(GatewayNo, PushRecord)>>> Life<'_, H> {
    fn run(&mut self) -> End {
        let mut records = Vec::new();
        while !self.parts.stop.load(Ordering::Relaxed) {
            if let Some(why) = self.stalled() {
                return End::Anew(why);
            }
            if self.ledger.failed()
                && let Err(why) = self.again("a record of a tick did not reach Kafka")
            {
                return End::Anew(why);
            }
            let many = self.ledger.acks.outstanding() >= OUTSTANDING_MAX;
            if many || self.committed.elapsed() >= COMMIT_APART {
                self.commit(CommitMode::Async);
                self.committed = Instant::now();
            }
            if self.ledger.acks.outstanding() >= OUTSTANDING_MAX {
                std::thread::sleep(TICK_APART);
                continue;
            }
            self.gather();
            let wait = if self.ledger.acks.outstanding() > 0 { POLL_OUTSTANDING } else { POLL };
            match self.consumer.poll(&mut records, wait, self.options.poll_records) {
                Ok(_) => {}
                Err(ConsumeError::Fatal(why)) => return End::Anew(why),
                Err(error) => {
                    tracing::warn!(%error, "polling");
                    std::thread::sleep(POLL);
                }
            }
            if self.moved.swap(false, Ordering::Relaxed) {
                self.handle.forget();
            }
            let worked = self.work_all(std::mem::take(&mut records));
            if let Err(why) = worked.or_else(|why| self.again(&why)) {
                return End::Anew(why);
            }
        }
        End::Stopped
    }

    /// Lets more of a herd come before the next tick.
    fn gather(&mut self) {
        let early = self.crowded.take().and_then(|at| TICK_APART.checked_sub(at.elapsed()));
        if let Some(early) = early {
            std::thread::sleep(early);
        }
    }

    /// What is not done is read again, by the same consumer: the partitions stay, and nobody waits for a member of the
    /// group that Kafka does not know to be gone.
    fn again(&mut self, why: &str) -> Result<(), String> {
        metrics::counter!("corelane_logic_read_again_total").increment(1);
        tracing::warn!(why, "uncommitted records are read again");
        self.handle.forget();
        self.ledger = next_ledger(self.tag);
        let places = {
            let mut progress = self.progress.lock();
            // What was done in time is not done again.
            progress.take_committable();
            progress.ledger = Arc::clone(&self.ledger);
            progress.places.all()
        };
        self.parts.outbox.begin(&self.ledger);
        std::thread::sleep(AGAIN_WAIT);
        self.consumer.seek(&places).map_err(|error| format!("{why}; and then {error}"))
    }

    fn stalled(&self) -> Option<String> {
        let stalled = self.consumer.health().stalled_for().filter(|since| *since > STALLED)?;
        Some(format!("nothing came for {} s while records wait", stalled.as_secs()))
    }

    /// Before any of them is worked: if a tick fails, those behind it have to be read again too.
    fn came(&self, records: &[Record]) {
        let mut progress = self.progress.lock();
        records.iter().for_each(|record| progress.places.came(record));
    }

    /// Everything polled, in ticks of a bounded size.
    fn work_all(&mut self, records: Vec<Record>) -> Result<(), String> {
        self.came(&records);
        let mut waiting = records.into_iter().map(Arrived::new).peekable();
        while waiting.peek().is_some() {
            let (mut tick, mut messages) = (Vec::new(), 0);
            while messages < self.options.tick_messages {
                let Some(one) = waiting.next() else { break };
                messages += one.messages().max(1);
                tick.push(one);
            }
            self.crowded = (messages > HERD).then(Instant::now);
            self.tick(&tick)?;
        }
        Ok(())
    }

    fn tick(&mut self, arrived: &[Arrived]) -> Result<(), String> {
        let began = Instant::now();
        let token = self.ledger.acks.begin(next_offsets(arrived));
        let mut with_messages = arrived.iter().filter(|one| one.messages() > 0);
        let trace = with_messages.find_map(|one| one.record.headers.traceparent);
        let worked = work(self.handle, &self.parts.gateways, arrived, self.options.poison_attempts);
        let sending = Instant::now();
        let mut expected = 0;
        for records in worked.out {
            expected += self.send(records, token, trace)?;
        }
        for poisoned in &worked.poisoned {
            expected += self.bury(poisoned, token)?;
        }
        self.ledger.acks.expect(token, expected);
        faults::reached("after_publish");
        metrics::histogram!("corelane_logic_step_seconds", "step" => "publish")
            .record(sending.elapsed().as_secs_f64());
        metrics::histogram!("corelane_logic_tick_seconds").record(began.elapsed().as_secs_f64());
        metrics::counter!("corelane_logic_ticks_total").increment(1);
        metrics::counter!("corelane_logic_records_total").increment(arrived.len() as u64);
        Ok(())
    }

    fn send(
        &self,
        records: Vec<(GatewayNo, PushRecord)>,
        token: Token,
        trace: Option<TraceContext>,
    ) -> Result<u64, String> {
        metrics::counter!("corelane_logic_push_records_total").increment(records.len() as u64);
        self.parts.outbox.send_tick(records, token, trace).map_err(|error| error.to_string())
    }

    /// Keeps a record that cannot be worked for somebody to look at; then the partition goes on.
    fn bury(&self, poisoned: &Poisoned, token: Token) -> Result<u64, String> {
        let Poisoned { record, reason, attempts } = poisoned;
        #[cfg(feature = "fault-injection")]
        if crate::config::Fault::NoDeadLetters.is_asked_for() {
            return Err(format!("a record is tried again: {reason}"));
        }
        let (topic, partition) = (&*record.topic, record.partition);
        tracing::error!(topic, partition, offset = record.offset, reason, "a record was set apart");
        metrics::counter!("corelane_logic_dead_letters_total").increment(1);
        let new = NewDeadLetter {
            topic,
            partition,
            offset: u64::try_from(record.offset).unwrap_or(0),
            reason,
            attempts: *attempts,
            payload: &record.payload,
        };
        keep(&*self.parts.letters, &new, &self.parts.stop)?;
        let letter = DeadLetter {
            id: 0,
            topic: topic.to_owned(),
            partition,
            offset: new.offset,
            reason: reason.clone(),
            attempts: *attempts,
            created_at_ms: self.parts.clock.now_ms(),
            replayed_at_ms: 0,
            payload: record.payload.clone(),
        };
        let trace = record.headers.traceparent;
        let sent = self.parts.outbox.send_dead_letter(&letter, token, trace);
        sent.map_err(|error| error.to_string())
    }

    fn commit(&mut self, mode: CommitMode) {
        let offsets = self.progress.lock().take_committable();
        if offsets.is_empty() {
            return;
        }
        faults::reached("before_offsets");
        match self.consumer.commit(&offsets, mode) {
            Ok(()) => {}
            // Whoever has them now reads from what was committed before; nothing at hand is sure.
            Err(ConsumeError::Fenced) => self.moved.store(true, Ordering::Relaxed),
            Err(error) => tracing::warn!(%error, "offsets were not committed"),
        }
    }

    /// Stopping: waits for what is on its way, and commits it.
    fn finish(&mut self) {
        if !self.ledger.acks.wait(STOP_LIMIT) {
            tracing::warn!("stopping before all acknowledgements are in; the rest is read again");
        }
        self.commit(CommitMode::Sync);
    }
}

/// Tries for a while: without the row nobody would know of the record.
fn keep(
    letters: &dyn DeadLetters,
    new: &NewDeadLetter<'_>,
    stop: &AtomicBool,
) -> Result<(), String> {
    let until = Instant::now() + KEEP_LIMIT;
    loop {
        match letters.keep(new) {
            Ok(()) => return Ok(()),
            Err(StoreError::Unavailable(_))
                if Instant::now() < until && !stop.load(Ordering::Relaxed) =>
            {
                std::thread::sleep(POLL);
            }
            Err(error) => return Err(error.to_string()),
        }
    }
}

/// For each partition the first record behind those that arrived.
fn next_offsets(arrived: &[Arrived]) -> Vec<NextOffset> {
    let mut next: Vec<NextOffset> = Vec::new();
    for Arrived { record, .. } in arrived {
        let same = |(topic, partition, _): &&mut NextOffset| {
            *partition == record.partition && **topic == *record.topic
        };
        match next.iter_mut().find(same) {
            Some((_, _, offset)) => *offset = record.offset + 1,
            None => next.push((record.topic.to_string(), record.partition, record.offset + 1)),
        }
    }
    next
}
