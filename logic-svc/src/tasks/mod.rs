//! Work that is on nobody's path: switching large groups, sweeping up behind gateways that are gone, deleting old
//! messages. Everything may be done twice.

mod retention;
mod spread;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use cluster::kafka::{CommitMode, ConsumeError, Consumer, NextOffset, Polled, Record, Settings};
use prost::Message as _;
use proto::v1::{ForgetGateway, Task, task};

use crate::egress::cluster::CrowdWatch;
use crate::gateways::Gateways;
use crate::ports::{Crowds, DeadLetters, NewDeadLetter, Reports, StoreError};
use spread::Spread;

pub(crate) use retention::{Keeper, Rule};

/// How long a poll waits; bounds how late stopping is seen.
const POLL: Duration = Duration::from_millis(200);
/// Most tasks taken at once.
const POLL_RECORDS: usize = 32;
/// Wait before a task that failed for a moment is tried again.
const AGAIN: Duration = Duration::from_millis(500);
/// How often a task is tried before it is set apart.
const ATTEMPTS: u32 = 20;

/// What the loop is told at start.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    /// How to reach Kafka.
    pub(crate) kafka: Settings,
    /// The group that shares the tasks.
    pub(crate) group: String,
    /// Their topic.
    pub(crate) topic: String,
}

/// What the loop works with.
pub(crate) struct Parts {
    pub(crate) gateways: Arc<Gateways>,
    pub(crate) crowds: Arc<dyn Crowds>,
    pub(crate) watch: CrowdWatch,
    pub(crate) reports: Arc<dyn Reports>,
    pub(crate) letters: Arc<dyn DeadLetters>,
    pub(crate) stop: Arc<AtomicBool>,
}

/// Works until stopped. Blocks; for a thread of its own.
pub(crate) fn run(options: &Options, parts: &Parts, mut keeper: Keeper) {
    while !parts.stop.load(Ordering::Relaxed) {
        let topics = [options.topic.clone()];
        match Consumer::group(&options.kafka, &options.group, &topics, None, ()) {
            Ok(consumer) => live(parts, consumer, &mut keeper),
            Err(error) => tracing::warn!(%error, "tasks cannot be read"),
        }
        std::thread::sleep(AGAIN);
    }
}

fn live(parts: &Parts, mut consumer: Consumer, keeper: &mut Keeper) {
    let mut records = Vec::new();
    let mut later = VecDeque::new();
    while !parts.stop.load(Ordering::Relaxed) {
        due(parts, &mut later);
        if consumer.partitions().iter().any(|(_, partition)| *partition == 0) {
            keeper.step();
        }
        match consumer.poll(&mut records, POLL, POLL_RECORDS) {
            Ok(Polled::Nothing) => continue,
            Ok(Polled::Records(_)) => {}
            Err(ConsumeError::Fatal(why)) => {
                tracing::warn!(why, "the consumer of tasks is made anew");
                return;
            }
            Err(error) => {
                tracing::warn!(%error, "polling tasks");
                std::thread::sleep(AGAIN);
                continue;
            }
        }
        for record in records.drain(..) {
            if !worked(parts, &record, &mut later) {
                // Stopping: whoever has the partition next does it.
                return;
            }
            let next: NextOffset = (record.topic.to_string(), record.partition, record.offset + 1);
            if let Err(error) = consumer.commit(&[next], CommitMode::Async) {
                tracing::warn!(%error, "a task is done but not committed; it is done again");
            }
        }
    }
}

/// What is to be done later. Lost with this process, which costs memory of gateways and nothing else.
struct Later {
    at: Instant,
    conversation_id: String,
}

fn due(parts: &Parts, later: &mut VecDeque<Later>) {
    while later.front().is_some_and(|first| first.at <= Instant::now()) {
        let Some(Later { conversation_id, .. }) = later.pop_front() else { return };
        if let Err(error) = spread::forget(parts, &conversation_id) {
            tracing::warn!(%error, conversation_id, "gateways still hold a group that is small");
        }
    }
}

/// Whether it is done, or set apart.
fn worked(parts: &Parts, record: &Record, later: &mut VecDeque<Later>) -> bool {
    let task = match Task::decode(record.payload.clone()) {
        Ok(Task { task: Some(task) }) => task,
        Ok(Task { task: None }) => return bury(parts, record, "the task is empty", 1),
        Err(error) => return bury(parts, record, &format!("it cannot be read: {error}"), 1),
    };
    let mut why = String::new();
    for _ in 0..ATTEMPTS {
        match work(parts, &task, later) {
            Ok(()) => {
                metrics::counter!("corelane_logic_tasks_total", "task" => name(&task)).increment(1);
                return true;
            }
            Err(error) => why = error.to_string(),
        }
        if parts.stop.load(Ordering::Relaxed) {
            return false;
        }
        std::thread::sleep(AGAIN);
    }
    bury(parts, record, &why, ATTEMPTS)
}

fn work(parts: &Parts, task: &task::Task, later: &mut VecDeque<Later>) -> Result<(), StoreError> {
    match task {
        task::Task::SpreadInterest(spread) => {
            let done = spread::spread(parts, spread, &|time| std::thread::sleep(time))?;
            if let Spread::Small(after) = done {
                let conversation_id = spread.conversation_id.clone();
                later.push_back(Later { at: Instant::now() + after, conversation_id });
            }
            Ok(())
        }
        task::Task::ForgetGateway(ForgetGateway { gateway: Some(gateway) }) => {
            let no = parts.gateways.number_of(&gateway.id, gateway.epoch);
            // It may have come back meanwhile, in the same life: its registration was lost for a moment.
            if parts.gateways.is_live(no) { Ok(()) } else { parts.reports.forget(no) }
        }
        task::Task::ForgetGateway(ForgetGateway { gateway: None }) => Ok(()),
    }
}

fn name(task: &task::Task) -> &'static str {
    match task {
        task::Task::SpreadInterest(_) => "spread_interest",
        task::Task::ForgetGateway(_) => "forget_gateway",
    }
}

/// Keeps it for somebody to look at.
fn bury(parts: &Parts, record: &Record, reason: &str, attempts: u32) -> bool {
    tracing::error!(offset = record.offset, reason, "a task was set apart");
    let letter = NewDeadLetter {
        topic: &record.topic,
        partition: record.partition,
        offset: u64::try_from(record.offset).unwrap_or(0),
        reason,
        attempts,
        payload: &record.payload,
    };
    while !parts.stop.load(Ordering::Relaxed) {
        match parts.letters.keep(&letter) {
            Ok(()) => return true,
            Err(error) => tracing::warn!(%error, "a dead letter is not kept yet"),
        }
        std::thread::sleep(AGAIN);
    }
    false
}
