//! The rows: what breaks, how and when, and which safeguard the control run switches off.
//!
//! A row is data. Its script runs while a load of messages runs; the load generator's oracle then
//! says whether any promise was broken. A control run is the same with one safeguard off and has
//! to show the damage, or the row proves nothing.

use crate::cluster::{Scope, Size};
use crate::servers::Kind;

use Act::{
    CrashAt, Flush, Freeze, KeepOldFile, Kill, OldFile, Panic, Pause, Poison, Start, Stop, Thaw,
    Times, Valve,
};
use Victim::{Gateway, Logic, Server};

/// Whom an act is about. Numbers count the processes of a kind in an order drawn for each trial.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Victim {
    /// A gateway.
    Gateway(usize),
    /// A logic service.
    Logic(usize),
    /// A server.
    Server(Kind),
}

/// One step of a script.
#[derive(Debug, Clone, Copy)]
pub(super) enum Act {
    /// Nothing, for a time drawn between these two, in milliseconds.
    Pause(u64, u64),
    /// SIGKILL.
    Kill(Victim),
    /// SIGTERM, and waiting for the end.
    Stop(Victim),
    /// Started again, and waited for until it is ready.
    Start(Victim),
    /// Started again so that it ends itself at this point of a tick (a drawn one of the first
    /// fifty), and, once it did, started as usual. Only in builds with fault injection.
    CrashAt(Victim, &'static str),
    /// SIGSTOP.
    Freeze(Victim),
    /// SIGCONT.
    Thaw(Victim),
    /// Redis loses everything (FLUSHALL).
    Flush,
    /// Keeps a copy of Redis's data as it is now.
    KeepOldFile,
    /// Redis comes back with the copy; it must be down.
    OldFile,
    /// Records that mean nothing, some of them 900 KB long, among those of the gateways.
    Poison,
    /// Messages that make their handler panic, sent by a client. Only in builds with fault
    /// injection.
    Panic,
    /// Whether what Kafka answers gets through.
    Valve(bool),
    /// A part of the script several times.
    Times(u32, &'static [Act]),
}

/// How a row is judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Method {
    /// Load, script, the oracle's verdict.
    Oracle,
    /// As before; besides, every record that cannot be worked is in the table of dead letters, and
    /// what was sent behind it is answered.
    DeadLetters,
    /// Two logins of one device at the same moment through two gateways: one stays, one is told.
    DoubleLogin,
}

/// What a control run does without.
#[derive(Debug, Clone, Copy)]
pub(super) enum Off {
    /// A safeguard of our processes, in builds with fault injection: the value of
    /// `CORELANE_FAULT`.
    Guard(Scope, &'static str),
    /// A setting of our processes: key, and value as it stands in the file.
    Setting(Scope, &'static str, &'static str),
    /// A further option of a server.
    Option(Kind, &'static str),
    /// What clients are to do, by an option of the load generator.
    Load(&'static str),
}

/// One row of the fault matrix.
#[derive(Debug)]
pub(super) struct Row {
    /// Its number in the matrix.
    pub(super) id: &'static str,
    /// What happens, in a few words.
    pub(super) fault: &'static str,
    /// How the processes are laid out.
    pub(super) size: Size,
    /// Further settings of the processes: for whom, the key, and the value as it stands in the file.
    pub(super) settings: &'static [(Scope, &'static str, &'static str)],
    /// What is done while the load runs, which ends a moment after.
    pub(super) script: &'static [Act],
    /// How it is judged.
    pub(super) method: Method,
    /// What its control runs do without, one each.
    pub(super) controls: &'static [Off],
    /// Part of the short selection.
    pub(super) short: bool,
}

const THREE: Size = Size { gateways: 3, logic: 3 };
const NO_DEDUPE: Off = Off::Guard(Scope::Logic, "no_dedupe");
/// Whoever comes back gets partitions once its dead predecessor is out of the group.
const SOON_OUT: &[(Scope, &str, &str)] = &[(Scope::Logic, "kafka_session_timeout", "\"4s\"")];
const ACK_FIRST: Off = Off::Guard(Scope::Logic, "ack_before_commit");
const KAFKA: Victim = Server(Kind::Kafka);
const DATABASE: Victim = Server(Kind::MariaDb);
const CACHE: Victim = Server(Kind::Redis);
const ETCD: Victim = Server(Kind::Etcd);

/// The rows in the order they run.
pub(super) const ROWS: &[Row] = &[
    Row {
        id: "F1",
        fault: "a gateway is killed, and comes back later",
        size: THREE,
        settings: &[],
        script: &[Pause(500, 2500), Kill(Gateway(0)), Pause(500, 4000), Start(Gateway(0))],
        method: Method::Oracle,
        controls: &[Off::Load("--no-catch-up"), NO_DEDUPE],
        short: true,
    },
    Row {
        id: "F3",
        fault: "a gateway is killed and back at once: its old routes are still there",
        size: THREE,
        settings: &[],
        script: &[Times(2, &[Pause(500, 2500), Kill(Gateway(0)), Start(Gateway(0))])],
        method: Method::Oracle,
        controls: &[Off::Guard(Scope::Logic, "any_epoch")],
        short: false,
    },
    Row {
        id: "F4",
        fault: "logic services end at every point of their ticks",
        size: THREE,
        settings: SOON_OUT,
        script: &[
            Pause(300, 2000),
            Kill(Logic(0)),
            Pause(0, 300),
            Start(Logic(0)),
            CrashAt(Logic(1), "before_commit"),
            CrashAt(Logic(2), "after_commit"),
            CrashAt(Logic(0), "after_publish"),
            CrashAt(Logic(1), "before_offsets"),
        ],
        method: Method::Oracle,
        // Acknowledging first shows nothing here: what was read is read again, whoever ends.
        controls: &[NO_DEDUPE],
        short: false,
    },
    Row {
        id: "F5",
        fault: "consumers come and go; one stands still until its partitions are others'",
        size: THREE,
        settings: SOON_OUT,
        script: &[
            Freeze(Logic(0)),
            Pause(1500, 2500),
            Stop(Logic(1)),
            Pause(4500, 5500),
            Thaw(Logic(0)),
            Pause(500, 1500),
            Start(Logic(1)),
        ],
        method: Method::Oracle,
        controls: &[NO_DEDUPE],
        short: false,
    },
    Row {
        id: "F6",
        fault: "Kafka is killed and started five times",
        size: THREE,
        settings: &[],
        script: &[Times(5, &[Pause(300, 1500), Kill(KAFKA), Start(KAFKA), Pause(1000, 2000)])],
        method: Method::Oracle,
        controls: &[Off::Setting(
            Scope::Logic,
            "kafka_properties",
            "[\"producer.acks=0\", \"producer.enable.idempotence=false\"]",
        )],
        short: false,
    },
    Row {
        id: "F8",
        fault: "what Kafka answers does not get through for five seconds",
        size: THREE,
        settings: &[],
        script: &[Pause(500, 2000), Valve(false), Pause(5000, 5000), Valve(true)],
        method: Method::Oracle,
        controls: &[NO_DEDUPE],
        short: false,
    },
    Row {
        id: "F9",
        fault: "Redis loses everything, is killed, comes back with an old file",
        size: THREE,
        settings: &[],
        script: &[
            KeepOldFile,
            Pause(1000, 3000),
            Flush,
            Pause(500, 2000),
            Kill(CACHE),
            OldFile,
            Pause(0, 1500),
            Start(CACHE),
        ],
        method: Method::Oracle,
        controls: &[Off::Guard(Scope::Logic, "no_broadcast")],
        short: false,
    },
    Row {
        id: "F10",
        fault: "MariaDB is killed and comes back, the second time after standing still",
        size: THREE,
        settings: &[],
        // First it is back before services stop waiting for it, then only after that, and what was
        // asked of it at the end it never did: of a commit under way most is in its log already.
        script: &[
            Pause(500, 1500),
            Kill(DATABASE),
            Pause(0, 1000),
            Start(DATABASE),
            Pause(500, 1500),
            Freeze(DATABASE),
            Pause(100, 500),
            Kill(DATABASE),
            Pause(3500, 5000),
            Start(DATABASE),
        ],
        method: Method::Oracle,
        // Commits then wait in the server's memory for up to a second.
        controls: &[Off::Option(Kind::MariaDb, "--innodb-flush-log-at-trx-commit=0"), ACK_FIRST],
        short: true,
    },
    Row {
        id: "F11",
        fault: "etcd stands still for longer than a lease, and is away for as long",
        size: THREE,
        settings: &[],
        // After standing still it ends the leases that ran out; a start of its own makes them last.
        script: &[
            Pause(500, 1500),
            Freeze(ETCD),
            Pause(6500, 8000),
            Thaw(ETCD),
            Pause(1000, 2500),
            Kill(ETCD),
            Pause(6000, 7500),
            Start(ETCD),
        ],
        method: Method::Oracle,
        controls: &[Off::Guard(Scope::Logic, "no_lingering")],
        short: false,
    },
    Row {
        id: "F16",
        fault: "one device logs in through two gateways at the same moment",
        size: Size { gateways: 2, logic: 2 },
        settings: &[],
        script: &[],
        method: Method::DoubleLogin,
        controls: &[Off::Guard(Scope::Logic, "no_kick")],
        short: false,
    },
    Row {
        id: "F17",
        fault: "records that cannot be read, some of 900 KB, and messages whose handler panics",
        size: THREE,
        settings: &[],
        script: &[Pause(500, 2000), Times(2, &[Panic, Pause(0, 1000), Poison, Pause(0, 1000)])],
        method: Method::DeadLetters,
        controls: &[Off::Guard(Scope::Logic, "no_dead_letters")],
        short: false,
    },
];

impl Row {
    /// Whether its script works with builds with fault injection only.
    pub(super) fn needs_faults(&self) -> bool {
        self.has(|act| matches!(act, CrashAt(..) | Panic))
    }

    /// Whether messages of its script make their handler panic.
    pub(super) fn panics(&self) -> bool {
        self.has(|act| matches!(act, Panic))
    }

    /// Whether anything in its script is about the road to Kafka.
    pub(super) fn needs_valve(&self) -> bool {
        self.has(|act| matches!(act, Valve(_)))
    }

    /// Whether such an act is anywhere in its script.
    fn has(&self, is: impl Fn(&Act) -> bool + Copy) -> bool {
        fn any(acts: &[Act], is: impl Fn(&Act) -> bool + Copy) -> bool {
            acts.iter().any(|act| match act {
                Times(_, inner) => any(inner, is),
                act => is(act),
            })
        }
        any(self.script, is)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(row: &Row, acts: &[Act]) {
        for act in acts {
            match act {
                Pause(from, to) => assert!(from <= to, "{}: {from} > {to}", row.id),
                Times(_, inner) => check(row, inner),
                Kill(victim)
                | Stop(victim)
                | Start(victim)
                | Freeze(victim)
                | Thaw(victim)
                | CrashAt(victim, _) => {
                    let (number, of) = match victim {
                        Gateway(number) => (*number, row.size.gateways),
                        Logic(number) => (*number, row.size.logic),
                        Server(_) => (0, 1),
                    };
                    assert!(number < of as usize, "{}: {victim:?}", row.id);
                }
                _ => {}
            }
        }
    }

    #[test]
    fn scripts_name_who_is_there() {
        ROWS.iter().for_each(|row| check(row, row.script));
    }

    #[test]
    fn every_row_has_a_control_run() {
        for row in ROWS {
            assert!(!row.controls.is_empty(), "{}", row.id);
        }
    }

    #[test]
    fn what_a_row_needs_is_found_in_its_repetitions() {
        let needs = |id: &str| {
            let row = ROWS.iter().find(|row| row.id == id).unwrap();
            (row.needs_faults(), row.panics(), row.needs_valve())
        };
        assert_eq!(needs("F1"), (false, false, false));
        assert_eq!(needs("F4"), (true, false, false));
        assert_eq!(needs("F8"), (false, false, true));
        assert_eq!(needs("F17"), (true, true, false));
    }

    #[test]
    fn rows_have_names_of_their_own() {
        for (at, row) in ROWS.iter().enumerate() {
            assert!(ROWS[..at].iter().all(|other| other.id != row.id), "{}", row.id);
        }
        assert!(ROWS.iter().any(|row| row.short));
    }
}
