//! All the work under `valgrind --tool=callgrind --dump-before=*frames::mark*`: see
//! `deploy/xtask/src/callgrind.rs` for what the marks and the lines are for. `--versions` names the
//! versions of the peers.

use std::hint::black_box;
use std::io::Write;

/// The lock file that this was built from.
const LOCK: &str = include_str!("../../Cargo.lock");

/// Callgrind writes its counts when this is entered.
#[inline(never)]
fn mark(number: usize) -> usize {
    black_box(number)
}

fn main() {
    if std::env::args().any(|argument| argument == "--versions") {
        return say(&versions());
    }
    for (number, mut one) in codec_bench::all().into_iter().enumerate() {
        (0..3).for_each(|_| (one.work)());
        mark(3 * number);
        (0..one.rounds).for_each(|_| (one.work)());
        mark(3 * number + 1);
        (0..2 * one.rounds).for_each(|_| (one.work)());
        mark(3 * number + 2);
        say(&format!("{}\tmain\t{}\n", one.name, one.rounds * one.units));
    }
}

/// As `Peers: fastwebsockets 1.2.3, tungstenite 1.2.3.`
fn versions() -> String {
    let version = |name: &str| {
        let at = LOCK.split("[[package]]").find(|one| one.contains(&format!("name = \"{name}\"")));
        let version = at.and_then(|one| one.split("version = \"").nth(1)?.split('"').next());
        format!("{name} {}", version.unwrap_or("unknown"))
    };
    format!("Peers: {}, {}.\n", version("fastwebsockets"), version("tungstenite"))
}

fn say(text: &str) {
    // A reader that went away needs no lines.
    let _ = std::io::stdout().write_all(text.as_bytes());
}
