//! Workers as processes of their own: the same program again, JSON lines over its standard input and
//! output. A worker ends when its input ends, so none outlives its coordinator however that dies.

use std::io::{self, BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, ExitCode, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

use crate::plan::{Plan, Share};
use crate::talk::{FromWorker, ToWorker};
use crate::worker::work;

/// First argument of a worker process.
pub const WORKER_ARGUMENT: &str = "worker-process";

/// A running worker process; killed when dropped.
pub(crate) struct ProcessWorker {
    child: Child,
    stdin: Option<ChildStdin>,
}

impl ProcessWorker {
    /// Starts `program` as worker `index`; what it says arrives at `outbox`.
    pub(crate) fn start(
        program: &Path,
        index: usize,
        assignment: ToWorker,
        outbox: Sender<(usize, FromWorker)>,
    ) -> io::Result<Self> {
        let mut command = Command::new(program);
        command.arg(WORKER_ARGUMENT).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn()?;
        let stdin = child.stdin.take();
        let stdout = child.stdout.take();
        let mut worker = Self { child, stdin };
        std::thread::spawn(move || {
            for line in stdout.into_iter().flat_map(|stdout| BufReader::new(stdout).lines()) {
                let said = line.map_err(|error| error.to_string());
                let said = said.and_then(|line| {
                    serde_json::from_str(&line).map_err(|error| error.to_string())
                });
                let said = said
                    .unwrap_or_else(|error| FromWorker::Failed(format!("worker {index}: {error}")));
                if outbox.send((index, said)).is_err() {
                    return;
                }
            }
            // After its result nobody listens to this.
            let _ = outbox.send((
                index,
                FromWorker::Failed(format!("worker {index} ended without a result")),
            ));
        });
        worker.send(&assignment)?;
        Ok(worker)
    }

    pub(crate) fn send(&mut self, message: &ToWorker) -> io::Result<()> {
        let Some(stdin) = &mut self.stdin else { return Ok(()) };
        let mut line = serde_json::to_vec(message)?;
        line.push(b'\n');
        stdin.write_all(&line)?;
        stdin.flush()
    }
}

impl Drop for ProcessWorker {
    fn drop(&mut self) {
        self.stdin = None;
        // One that ended already cannot be killed; either way it is waited for.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The whole life of a worker process.
#[must_use]
pub fn worker_main() -> ExitCode {
    let mut lines = BufReader::new(io::stdin()).lines();
    let first = lines.next().and_then(Result::ok).unwrap_or_default();
    let Ok(ToWorker::Assign(assignment)) = serde_json::from_str(&first) else {
        return ExitCode::from(2);
    };
    let (plan, share): (Plan, Share) = *assignment;
    let inbox = listen(lines);
    match work(Arc::new(plan), share, &inbox, &mut say) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(FromWorker::Failed(format!("worker {}: {error}", share.worker)));
            ExitCode::FAILURE
        }
    }
}

fn listen(lines: impl Iterator<Item = io::Result<String>> + Send + 'static) -> Receiver<ToWorker> {
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        for line in lines.map_while(Result::ok) {
            if let Ok(message) = serde_json::from_str(&line)
                && sender.send(message).is_err()
            {
                return;
            }
        }
        // The coordinator is gone: the loop may be asleep, and nobody is left to report to.
        std::process::exit(3);
    });
    receiver
}

fn say(message: FromWorker) {
    let Ok(mut line) = serde_json::to_vec(&message) else { return };
    line.push(b'\n');
    let mut stdout = io::stdout().lock();
    if stdout.write_all(&line).and_then(|()| stdout.flush()).is_err() {
        std::process::exit(3);
    }
}
