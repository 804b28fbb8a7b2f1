//! A worker's talk with the coordinator.

use std::io;
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::clock::{self, SECOND_NS};
use crate::oracle::Verdict;
use crate::parts::Part;
use crate::plan::{Plan, Share};
use crate::stats::{Counters, Percentiles, Stats};

/// What the coordinator says.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum ToWorker {
    /// First of all, to worker processes.
    Assign(Box<(Plan, Share)>),
    /// The load runs from this time on.
    Go { start_ns: u64 },
    /// All workers have reached this gate; what lies behind it begins at this time.
    Open { gate: u32, start_ns: u64 },
    /// No more load.
    Stop,
}

/// What a worker says.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum FromWorker {
    /// It has come to this gate and waits for the others.
    Reached(u32),
    /// Set up, or as far as it went.
    Ready(Counters),
    /// Once a second.
    Tick { counters: Counters, ack: Percentiles },
    /// Load and drain are over.
    Drained,
    /// The result; nothing follows.
    Done(Box<Outcome>),
    /// It could not go on; nothing follows.
    Failed(String),
}

/// A worker's result.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Outcome {
    pub(crate) stats: Stats,
    pub(crate) verdict: Option<Verdict>,
    /// What only this scenario measures.
    pub(crate) part: Option<Part>,
    /// From the first connection to the last one's login.
    pub(crate) connect_ns: u64,
    /// How long the load ran.
    pub(crate) load_ns: u64,
    /// CPU time of the loop during load and drain.
    pub(crate) cpu_ns: u64,
    /// Resident memory of the worker's process at the end of the load.
    pub(crate) rss_bytes: u64,
}

/// Both directions, and what has been heard so far.
pub(crate) struct Link<'w> {
    inbox: &'w Receiver<ToWorker>,
    outbox: &'w mut dyn FnMut(FromWorker),
    /// When the load begins, once that is known.
    pub(crate) start_ns: Option<u64>,
    /// No more load.
    pub(crate) stopped: bool,
    /// The last gate that is open, and from when on.
    open: (u32, u64),
    reached: u32,
    next_tick_ns: u64,
}

impl<'w> Link<'w> {
    pub(crate) fn new(
        inbox: &'w Receiver<ToWorker>,
        outbox: &'w mut dyn FnMut(FromWorker),
    ) -> Self {
        Self {
            inbox,
            outbox,
            start_ns: None,
            stopped: false,
            open: (0, 0),
            reached: 0,
            next_tick_ns: 0,
        }
    }

    pub(crate) fn say(&mut self, message: FromWorker) {
        (self.outbox)(message);
    }

    /// Stands at a gate that opens when all workers do.
    pub(crate) fn reach(&mut self, gate: u32) {
        if gate > self.reached {
            self.reached = gate;
            self.say(FromWorker::Reached(gate));
        }
    }

    /// When the work behind a gate begins, once it is open.
    pub(crate) fn opened_ns(&self, gate: u32) -> Option<u64> {
        (self.open.0 >= gate).then_some(self.open.1)
    }

    /// Takes what the coordinator said, and tells it once a second how far this worker is.
    pub(crate) fn poll(&mut self, now_ns: u64, stats: &Stats) -> io::Result<()> {
        match self.inbox.try_recv() {
            Ok(message) => self.take(&message),
            Err(TryRecvError::Empty) => {}
            Err(TryRecvError::Disconnected) => return Err(gone()),
        }
        if now_ns >= self.next_tick_ns {
            self.next_tick_ns = now_ns + SECOND_NS;
            let ack = stats.latencies.ack.percentiles();
            self.say(FromWorker::Tick { counters: stats.counters, ack });
        }
        Ok(())
    }

    /// Sleeps until something holds; for workers that have nothing to do meanwhile.
    pub(crate) fn wait(&mut self, holds: impl Fn(&Self) -> bool) -> io::Result<()> {
        while !holds(self) && !self.stopped {
            match self.inbox.recv_timeout(Duration::from_millis(50)) {
                Ok(message) => self.take(&message),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Err(gone()),
            }
        }
        Ok(())
    }

    /// Waits for the start of the load; `None` when there will be none.
    pub(crate) fn wait_for_start(&mut self) -> io::Result<Option<u64>> {
        self.wait(|link| link.start_ns.is_some())?;
        let Some(start_ns) = self.start_ns.filter(|_| !self.stopped) else { return Ok(None) };
        std::thread::sleep(Duration::from_nanos(start_ns.saturating_sub(clock::now_ns())));
        Ok(Some(start_ns))
    }

    fn take(&mut self, message: &ToWorker) {
        match *message {
            ToWorker::Go { start_ns } => self.start_ns = Some(start_ns),
            ToWorker::Open { gate, start_ns } => self.open = (gate, start_ns),
            ToWorker::Stop => self.stopped = true,
            ToWorker::Assign(_) => {}
        }
    }
}

fn gone() -> io::Error {
    io::Error::other("the coordinator is gone")
}
