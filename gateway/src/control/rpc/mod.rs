//! Requests to the logic service: the lane of the uplink that is not messages.
//!
//! ```text
//!   uplink.calls ──► thread ─┬─► sessions (one batch in flight: the order of logins and ends counts)
//!                            └─► asks 0..N (by connection: answers come in the order of its requests)
//! ```
//! A batch takes what waits, so under load there are fewer and larger ones. When nobody answers, everybody
//! who waits is told so: BUSY, with a delay. Never silence.

mod asks;
mod client;
mod degraded;
mod logic;
mod sessions;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use proto::v1::{Call, call};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::index::{Identity, Index};
use crate::mailbox::Mailboxes;
use crate::uplink::Uplink;
pub use client::Client;
pub use logic::{Logic, NoAnswer};
pub use sessions::ReportAll;

/// How long a look at the uplink waits; bounds how late its closing is seen.
const WAIT: Duration = Duration::from_millis(100);
/// Calls taken out of the uplink and not answered, beyond which the uplink is left to fill up: then the
/// shards answer BUSY themselves.
const BACKLOG: usize = 16_384;
/// How long the thread waits before it looks again whether the backlog has shrunk.
const BACKLOG_WAIT: Duration = Duration::from_millis(2);

/// What all lanes need.
pub struct Doors<L> {
    /// The logic service.
    pub logic: Arc<L>,
    /// Who is logged in.
    pub index: Arc<Index>,
    /// Who we are.
    pub identity: Arc<Identity>,
    /// The way back.
    pub mailboxes: Mailboxes,
}

impl<L> Clone for Doors<L> {
    fn clone(&self) -> Self {
        Self {
            logic: Arc::clone(&self.logic),
            index: Arc::clone(&self.index),
            identity: Arc::clone(&self.identity),
            mailboxes: self.mailboxes.clone(),
        }
    }
}

/// A lane is no longer there although it should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a lane of requests to the logic service has ended before its time")]
pub struct LaneEnded;

/// The lanes, running on the tokio runtime they were started on (one with several threads: handing
/// answers over may have to wait for a shard).
pub struct Lanes {
    sessions: mpsc::UnboundedSender<sessions::Input>,
    asks: Vec<mpsc::UnboundedSender<Vec<Call>>>,
    backlog: Arc<Backlog>,
    tasks: Vec<JoinHandle<()>>,
}

impl Lanes {
    /// Starts them; `in_flight`: how many batches of requests may be asked at once.
    pub fn start<L: Logic>(doors: &Doors<L>, in_flight: usize) -> Self {
        let backlog = Arc::new(Backlog::default());
        let (sessions, inputs) = mpsc::unbounded_channel();
        let mut tasks =
            vec![tokio::spawn(sessions::run(doors.clone(), inputs, Arc::clone(&backlog)))];
        let mut asks = Vec::new();
        for _ in 0..in_flight.max(1) {
            let (sender, calls) = mpsc::unbounded_channel();
            tasks.push(tokio::spawn(asks::run(doors.clone(), calls, Arc::clone(&backlog))));
            asks.push(sender);
        }
        Self { sessions, asks, backlog, tasks }
    }

    /// To ask for a report of all sessions with.
    #[must_use]
    pub fn report_all(&self) -> ReportAll {
        ReportAll(self.sessions.downgrade())
    }

    /// What the calls thread does with it: moves calls from the uplink to the lanes until the uplink is
    /// closed and empty. Gives the tasks, which end once everything they hold is answered.
    ///
    /// # Errors
    /// A lane has panicked: what it held is without an answer, and so would be all that follows.
    pub fn run(self, uplink: &Uplink) -> Result<Vec<JoinHandle<()>>, LaneEnded> {
        let mut calls = Vec::new();
        loop {
            while self.backlog.len() >= BACKLOG {
                std::thread::sleep(BACKLOG_WAIT);
            }
            let taken = uplink.calls.take_all(WAIT, |mut batch| calls.append(&mut batch));
            if taken.is_none() {
                return Ok(self.tasks);
            }
            self.pass_on(&mut calls)?;
        }
    }

    fn pass_on(&self, calls: &mut Vec<Call>) -> Result<(), LaneEnded> {
        self.backlog.add(calls.len());
        let mut changes = Vec::new();
        let mut asks: Vec<Vec<Call>> = self.asks.iter().map(|_| Vec::new()).collect();
        for call in calls.drain(..) {
            if is_change(&call) {
                changes.push(call);
            } else {
                let lane = lane_of(&call, asks.len());
                asks[lane].push(call);
            }
        }
        if !changes.is_empty() {
            self.sessions.send(sessions::Input::Calls(changes)).map_err(|_| LaneEnded)?;
        }
        for (lane, calls) in self.asks.iter().zip(asks) {
            if !calls.is_empty() {
                lane.send(calls).map_err(|_| LaneEnded)?;
            }
        }
        Ok(())
    }
}

fn is_change(call: &Call) -> bool {
    matches!(call.request, Some(call::Request::Login(_) | call::Request::Closed(_)))
}

/// All requests of a connection take the same lane.
fn lane_of(call: &Call, lanes: usize) -> usize {
    (call.slot as usize).wrapping_mul(31).wrapping_add(call.shard as usize) % lanes
}

/// How much of `calls` makes a batch: at most so many, counted with their weights, and not much more than
/// what a service takes in one request. At least one.
fn batch_len<'a>(
    calls: impl IntoIterator<Item = &'a Call>,
    most: usize,
    weight: impl Fn(&Call) -> usize,
) -> usize {
    const BYTES: usize = 2 * 1024 * 1024;
    let (mut weights, mut bytes, mut count) = (0, 0, 0);
    for call in calls {
        weights += weight(call);
        bytes += prost::Message::encoded_len(call);
        if count > 0 && (weights > most || bytes > BYTES) {
            break;
        }
        count += 1;
    }
    count
}

/// How many calls were taken out of the uplink and not answered.
#[derive(Debug, Default)]
pub(crate) struct Backlog(AtomicUsize);

impl Backlog {
    fn add(&self, count: usize) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    fn done(&self, count: usize) {
        self.0.fetch_sub(count, Ordering::Relaxed);
    }

    fn len(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}
