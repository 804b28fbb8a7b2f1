//! A run from its beginning to its report: starts the workers, lets the load begin everywhere at once,
//! watches the server, and puts the results together.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::args::{Options, Scenario};
use crate::clock::{self, MILLISECOND_NS};
use crate::plan::{Plan, PlanError, RESERVED_FILES};
use crate::process::ProcessWorker;
use crate::procfs::{self, Usage};
use crate::report::{Report, ServerReadings};
use crate::stats::{Counters, Percentiles};
use crate::stress_report::Mark;
use crate::talk::{FromWorker, Outcome, ToWorker};
use crate::worker::{AUDIT_NS, PHASES_NS, work};

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The options are wrong (exit code 2).
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// The run broke off (exit code 1).
    #[error("{0}")]
    Run(String),
}

/// How workers are run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Workers {
    /// Threads of this process; all share its limit of open files.
    Threads,
    /// Processes of this program, which must answer [`crate::WORKER_ARGUMENT`] with
    /// [`crate::worker_main`]. A single worker is a thread all the same.
    Processes(PathBuf),
}

/// How far a run has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Stage {
    /// Connecting, logging in, making conversations.
    #[default]
    Setup,
    /// Messages are sent (idle: connections are held).
    Load,
    /// Outstanding answers are awaited, histories are read.
    Finish,
}

/// A running run at one moment.
#[derive(Clone, Copy, Debug, Default)]
pub struct Progress {
    /// How far it has come.
    pub stage: Stage,
    /// Counts of all workers, at most a second old.
    pub counters: Counters,
    /// The worst latencies of the workers so far, from due to acknowledged.
    pub ack: Percentiles,
}

#[derive(Default)]
struct Control {
    stop: AtomicBool,
    progress: Mutex<Progress>,
}

/// A run under way.
pub struct Running {
    control: Arc<Control>,
    thread: JoinHandle<Result<Report, Error>>,
}

impl Running {
    /// Starts a run.
    ///
    /// # Errors
    /// The options are wrong, or workers cannot be started.
    pub fn start(options: &Options, workers: &Workers) -> Result<Self, Error> {
        let plan = Arc::new(Plan::new(options)?);
        let control = Arc::new(Control::default());
        let fleet = Fleet::start(&plan, workers)?;
        let run = Coordinator {
            plan,
            fleet,
            control: Arc::clone(&control),
            readings: ServerReadings::default(),
            next_look: Instant::now(),
        };
        let thread = std::thread::spawn(move || run.run());
        Ok(Self { control, thread })
    }

    /// How far it has come.
    #[must_use]
    pub fn progress(&self) -> Progress {
        *self.control.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the report is there.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.thread.is_finished()
    }

    /// Ends the load early; what was sent is still awaited and checked.
    pub fn stop(&self) {
        self.control.stop.store(true, Ordering::Relaxed);
    }

    /// Waits for the report.
    ///
    /// # Errors
    /// The run broke off.
    pub fn wait(self) -> Result<Report, Error> {
        self.thread
            .join()
            .unwrap_or_else(|_| Err(Error::Run("the coordinator panicked".to_owned())))
    }
}

enum Worker {
    Thread(Sender<ToWorker>),
    Process(ProcessWorker),
}

struct Fleet {
    workers: Vec<Worker>,
    inbox: Receiver<(usize, FromWorker)>,
}

impl Fleet {
    fn start(plan: &Arc<Plan>, kind: &Workers) -> Result<Self, Error> {
        let (outbox, inbox) = channel();
        let mut workers = Vec::with_capacity(plan.shares.len());
        for (index, share) in plan.shares.iter().enumerate() {
            let outbox = outbox.clone();
            let worker = match kind {
                Workers::Processes(program) if plan.shares.len() > 1 => {
                    let assignment = ToWorker::Assign(Box::new(((**plan).clone(), *share)));
                    let started = ProcessWorker::start(program, index, assignment, outbox);
                    Worker::Process(
                        started.map_err(|error| Error::Run(format!("worker {index}: {error}")))?,
                    )
                }
                _ => start_thread(Arc::clone(plan), index, outbox),
            };
            workers.push(worker);
        }
        if *kind == Workers::Threads {
            check_files(plan)?;
        }
        Ok(Self { workers, inbox })
    }

    fn tell_all(&mut self, message: &ToWorker) -> Result<(), Error> {
        for (index, worker) in self.workers.iter_mut().enumerate() {
            let told = match worker {
                Worker::Thread(sender) => {
                    sender.send(message.clone()).map_err(|_| "ended".to_owned())
                }
                Worker::Process(process) => {
                    process.send(message).map_err(|error| error.to_string())
                }
            };
            told.map_err(|error| Error::Run(format!("worker {index}: {error}")))?;
        }
        Ok(())
    }
}

/// Says that a worker is gone, however its thread ends.
struct Farewell(usize, Sender<(usize, FromWorker)>);

impl Drop for Farewell {
    fn drop(&mut self) {
        let reason = format!("worker {} ended without a result", self.0);
        // After its result nobody listens to this.
        let _ = self.1.send((self.0, FromWorker::Failed(reason)));
    }
}

fn start_thread(plan: Arc<Plan>, index: usize, outbox: Sender<(usize, FromWorker)>) -> Worker {
    let (sender, inbox) = channel();
    std::thread::spawn(move || {
        let farewell = Farewell(index, outbox);
        // Nobody listens any more when the run broke off elsewhere.
        let mut say = |message| _ = farewell.1.send((index, message));
        if let Err(error) = work(Arc::clone(&plan), plan.shares[index], &inbox, &mut say) {
            say(FromWorker::Failed(format!("worker {index}: {error}")));
        }
    });
    Worker::Thread(sender)
}

fn check_files(plan: &Plan) -> Result<(), Error> {
    let needed = u64::from(plan.options.connections)
        + u64::from(plan.options.extra_connections())
        + RESERVED_FILES;
    let limit =
        rustix::process::getrlimit(rustix::process::Resource::Nofile).current.unwrap_or(u64::MAX);
    if needed <= limit {
        return Ok(());
    }
    let sentence =
        format!("{needed} open files needed, {limit} allowed in one process: use worker processes");
    Err(PlanError::Options(sentence).into())
}

struct Coordinator {
    plan: Arc<Plan>,
    fleet: Fleet,
    control: Arc<Control>,
    readings: ServerReadings,
    /// When the server is looked at next for the most memory it has.
    next_look: Instant,
}

/// How often it is.
const LOOK: Duration = Duration::from_millis(250);
/// Longest time that a scenario takes which ends by a count.
const COUNTED: Duration = Duration::from_hours(2);
/// Longest wait for the server to let go of what it must not keep.
const LET_GO: Duration = Duration::from_secs(10);

/// What has come from one worker so far.
#[derive(Default)]
struct Heard {
    counters: Counters,
    ack: Percentiles,
    ready: bool,
    reached: u32,
    drained: bool,
    outcome: Option<Outcome>,
}

impl Coordinator {
    fn run(mut self) -> Result<Report, Error> {
        self.readings.before = self.server_usage();
        let mut heard: Vec<Heard> =
            std::iter::repeat_with(Heard::default).take(self.fleet.workers.len()).collect();
        let (setup, rest) = self.limits();
        self.listen(&mut heard, setup, |worker| worker.ready)?;
        let counters = sum(&heard);
        self.readings.connected = self.server_usage();
        self.readings.connections = counters.established;
        let stands = counters.established == self.plan.standing() && counters.setup_failures == 0;
        if stands && !self.control.stop.load(Ordering::Relaxed) {
            self.enter(Stage::Load);
            let ahead_ns = (20 + 2 * heard.len() as u64) * MILLISECOND_NS;
            self.fleet.tell_all(&ToWorker::Go { start_ns: clock::now_ns() + ahead_ns })?;
        } else {
            self.fleet.tell_all(&ToWorker::Stop)?;
        }
        self.listen(&mut heard, rest, |worker| worker.drained)?;
        self.readings.after = self.last_usage();
        self.enter(Stage::Finish);
        self.listen(&mut heard, rest, |worker| worker.outcome.is_some())?;
        let outcomes = heard.into_iter().filter_map(|worker| worker.outcome).collect();
        Ok(Report::new(&self.plan, outcomes, &self.readings))
    }

    fn enter(&self, stage: Stage) {
        self.control.progress.lock().unwrap_or_else(PoisonError::into_inner).stage = stage;
    }

    /// Longest times up to the load, and from there.
    fn limits(&self) -> (Duration, Duration) {
        let options = &self.plan.options;
        let setup = options.setup_timeout + Duration::from_secs(30);
        let rest = options.duration
            + options.drain
            + Duration::from_nanos(AUDIT_NS)
            + Duration::from_secs(60);
        match options.scenario {
            // The set-up is the warm-up.
            Scenario::Churn => (COUNTED, COUNTED),
            Scenario::Establish => (setup, COUNTED),
            Scenario::Fanout | Scenario::Hostile => {
                (setup * 2, rest + options.duration + Duration::from_nanos(PHASES_NS))
            }
            _ => (setup, rest),
        }
    }

    /// The server at the end; after a churn once it has closed what it will close.
    fn last_usage(&self) -> Option<Usage> {
        let deadline = Instant::now() + LET_GO;
        let before = self.readings.connected.map_or(0, |usage| usage.descriptors);
        loop {
            let usage = self.server_usage()?;
            let churn = self.plan.options.scenario == Scenario::Churn;
            if !churn || usage.descriptors <= before || Instant::now() > deadline {
                return Some(usage);
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Opens the next gate when every worker stands at it, and looks at the server.
    fn open_gate(&mut self, heard: &[Heard]) -> Result<(), Error> {
        let gate = self.readings.gates.len() as u32 + 1;
        if !heard.iter().all(|worker| worker.reached >= gate) {
            return Ok(());
        }
        let usage = self.server_usage();
        let tcp_bytes = procfs::tcp_memory_bytes().unwrap_or(0);
        let mark = |usage: Usage| Mark { usage, peak_bytes: usage.anonymous_bytes, tcp_bytes };
        self.readings.gates.push(usage.map(mark));
        if gate == 1 && self.plan.options.scenario == Scenario::Fanout {
            // The members have come and gone; now they come to stay.
            self.readings.before = usage;
        }
        let ahead_ns = (20 + 2 * heard.len() as u64) * MILLISECOND_NS;
        self.fleet.tell_all(&ToWorker::Open { gate, start_ns: clock::now_ns() + ahead_ns })
    }

    /// Keeps the most memory since the last gate.
    fn look(&mut self) {
        if self.plan.options.scenario != Scenario::Hostile || Instant::now() < self.next_look {
            return;
        }
        self.next_look = Instant::now() + LOOK;
        let usage = self.server_usage();
        if let (Some(Some(mark)), Some(usage)) = (self.readings.gates.last_mut(), usage) {
            mark.peak_bytes = mark.peak_bytes.max(usage.anonymous_bytes);
        }
    }

    fn server_usage(&self) -> Option<Usage> {
        self.plan.options.server_pid.and_then(procfs::usage)
    }

    /// Listens until something holds for every worker.
    fn listen(
        &mut self,
        heard: &mut [Heard],
        limit: Duration,
        holds: fn(&Heard) -> bool,
    ) -> Result<(), Error> {
        let deadline = Instant::now() + limit;
        let mut stopped = false;
        while !heard.iter().all(holds) {
            if !stopped && self.control.stop.load(Ordering::Relaxed) {
                stopped = true;
                self.fleet.tell_all(&ToWorker::Stop)?;
            }
            match self.fleet.inbox.recv_timeout(Duration::from_millis(50)) {
                Ok((index, message)) => take_note(&mut heard[index], message)?,
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(Error::Run("all workers are gone".to_owned()));
                }
            }
            if Instant::now() > deadline {
                return Err(Error::Run("the workers do not come to an end".to_owned()));
            }
            self.open_gate(heard)?;
            self.look();
            self.publish(heard);
        }
        Ok(())
    }

    fn publish(&self, heard: &[Heard]) {
        let mut progress = self.control.progress.lock().unwrap_or_else(PoisonError::into_inner);
        progress.counters = sum(heard);
        let worst = heard.iter().map(|worker| worker.ack).max_by_key(|ack| ack.p99_us);
        progress.ack = worst.unwrap_or_default();
    }
}

fn sum(heard: &[Heard]) -> Counters {
    let mut counters = Counters::default();
    for worker in heard {
        counters.merge(&worker.counters);
    }
    counters
}

fn take_note(worker: &mut Heard, message: FromWorker) -> Result<(), Error> {
    match message {
        FromWorker::Reached(gate) => worker.reached = gate,
        FromWorker::Ready(counters) => (worker.counters, worker.ready) = (counters, true),
        FromWorker::Tick { counters, ack } => (worker.counters, worker.ack) = (counters, ack),
        FromWorker::Drained => worker.drained = true,
        FromWorker::Done(outcome) => {
            worker.counters = outcome.stats.counters;
            worker.outcome = Some(*outcome);
        }
        FromWorker::Failed(_) if worker.outcome.is_some() => {}
        FromWorker::Failed(reason) => return Err(Error::Run(reason)),
    }
    Ok(())
}
