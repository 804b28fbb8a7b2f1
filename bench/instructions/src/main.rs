//! Work to count the instructions of, under `valgrind --tool=callgrind`.
//!
//! Each scenario is warmed up and then run N and 2N times, with a call of [`mark`] before, between and
//! after. Callgrind writes its counts whenever [`mark`] is entered (`--dump-before`), so the difference
//! of the two runs is N times the work alone: setting up and the loop's ends cancel out. Standard
//! output says which counts belong to which scenario:
//!
//! ```text
//! NAME<tab>THREAD<tab>TIMES
//! ```
//! one line a scenario, in order; THREAD is `main` or `shard`, TIMES is how often the unit of work was
//! done in the first run.

mod codec_work;
mod session_work;
mod turn_work;

use std::hint::black_box;
use std::io::Write;

/// The allocator of the server.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Whose instructions count.
#[derive(Clone, Copy, Debug)]
enum Thread {
    /// The one that runs the scenario.
    Main,
    /// The shard's.
    Shard,
}

/// One piece of work.
struct Scenario {
    name: String,
    thread: Thread,
    /// How often [`Scenario::work`] is called in the first of the two runs.
    rounds: usize,
    /// Units of work in one call.
    units: usize,
    work: Box<dyn FnMut()>,
}

impl Scenario {
    fn new(name: impl Into<String>, rounds: usize, work: impl FnMut() + 'static) -> Self {
        let work = Box::new(work);
        Self { name: name.into(), thread: Thread::Main, rounds, units: 1, work }
    }

    /// One call does `units` units of work.
    fn units(self, units: usize) -> Self {
        Self { units, ..self }
    }

    /// The shard's instructions count, not ours.
    fn of_shard(self) -> Self {
        Self { thread: Thread::Shard, ..self }
    }
}

/// Callgrind writes its counts when this is entered.
#[inline(never)]
fn mark(number: usize) -> usize {
    black_box(number)
}

fn main() {
    let mut marks = 0;
    let mut next_mark = || {
        mark(black_box(marks));
        marks += 1;
    };
    let scenarios: [fn() -> Vec<Scenario>; 3] =
        [codec_work::scenarios, session_work::scenarios, turn_work::scenarios];
    for group in scenarios {
        for mut scenario in group() {
            (0..scenario.rounds.div_ceil(10)).for_each(|_| (scenario.work)());
            next_mark();
            (0..scenario.rounds).for_each(|_| (scenario.work)());
            next_mark();
            (0..2 * scenario.rounds).for_each(|_| (scenario.work)());
            next_mark();
            say(&scenario);
        }
    }
}

fn say(scenario: &Scenario) {
    let thread = match scenario.thread {
        Thread::Main => "main",
        Thread::Shard => "shard",
    };
    let times = scenario.rounds * scenario.units;
    let line = format!("{}\t{thread}\t{times}\n", scenario.name);
    // A reader that went away needs no lines.
    let _ = std::io::stdout().write_all(line.as_bytes());
}
