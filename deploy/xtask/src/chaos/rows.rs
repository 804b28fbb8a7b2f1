//! The rows: what breaks, how and when, and which safeguard the control run switches off.
//!
//! A row is data. Its script runs while a load of messages runs; the load generator's oracle then
//! says whether any promise was broken. A control run is the same with one safeguard off and has
//! to show the damage, or the row proves nothing. Rows without one are marked in the table.

use crate::cluster::{Scope, Size};
use crate::servers::Kind;

use Act::{
    CrashAt, Flush, Freeze, KeepOldFile, Kill, OldFile, Pause, Poison, Start, Stop, Thaw, Times,
    Valve,
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
    /// As before; besides, every poison record is in the table of dead letters.
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
    /// Length of the load in seconds; the script must fit in.
    pub(super) load_s: u64,
    /// What is done meanwhile.
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
        load_s: 10,
        script: &[Pause(500, 2500), Kill(Gateway(0)), Pause(500, 4000), Start(Gateway(0))],
        method: Method::Oracle,
        controls: &[],
        short: true,
    },
    Row {
        id: "F3",
        fault: "a gateway is killed and back at once: its old routes are still there",
        size: THREE,
        load_s: 10,
        script: &[Times(2, &[Pause(500, 2500), Kill(Gateway(0)), Start(Gateway(0))])],
        method: Method::Oracle,
        controls: &[],
        short: false,
    },
    Row {
        id: "F4",
        fault: "logic services end at every point of their ticks",
        size: THREE,
        // Whoever comes back waits until its dead predecessor is out of the group.
        load_s: 100,
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
        load_s: 30,
        script: &[
            Freeze(Logic(0)),
            Pause(4000, 5000),
            Stop(Logic(1)),
            Pause(8000, 9000),
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
        load_s: 90,
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
        load_s: 20,
        script: &[Pause(500, 2000), Valve(false), Pause(5000, 5000), Valve(true)],
        method: Method::Oracle,
        controls: &[NO_DEDUPE],
        short: false,
    },
    Row {
        id: "F9",
        fault: "Redis loses everything, is killed, comes back with an old file",
        size: THREE,
        load_s: 15,
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
        controls: &[],
        short: false,
    },
    Row {
        id: "F10",
        fault: "MariaDB is killed and comes back",
        size: THREE,
        load_s: 15,
        // Shorter and longer than services wait for it: only then can acknowledging first be seen.
        script: &[Pause(1000, 3000), Kill(DATABASE), Pause(0, 6000), Start(DATABASE)],
        method: Method::Oracle,
        // Commits then wait in the server's memory for up to a second.
        controls: &[Off::Option(Kind::MariaDb, "--innodb-flush-log-at-trx-commit=0"), ACK_FIRST],
        short: true,
    },
    Row {
        id: "F11",
        fault: "etcd is away for longer than a lease",
        size: THREE,
        load_s: 25,
        script: &[Pause(500, 1500), Kill(ETCD), Pause(9000, 12_000), Start(ETCD)],
        method: Method::Oracle,
        controls: &[],
        short: false,
    },
    Row {
        id: "F16",
        fault: "one device logs in through two gateways at the same moment",
        size: Size { gateways: 2, logic: 2 },
        load_s: 0,
        script: &[],
        method: Method::DoubleLogin,
        controls: &[],
        short: false,
    },
    Row {
        id: "F17",
        fault: "records that cannot be read, some of 900 KB, among the others",
        size: THREE,
        load_s: 15,
        script: &[Pause(500, 2000), Poison, Pause(500, 2000), Poison],
        method: Method::DeadLetters,
        controls: &[],
        short: false,
    },
];

impl Row {
    /// Whether its script works with builds with fault injection only.
    pub(super) fn needs_faults(&self) -> bool {
        self.script.iter().any(|act| matches!(act, CrashAt(..)))
    }

    /// Whether anything in its script is about the road to Kafka.
    pub(super) fn needs_valve(&self) -> bool {
        self.script.iter().any(|act| matches!(act, Valve(_)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(row: &Row, acts: &[Act]) -> u64 {
        let mut longest_ms = 0;
        for act in acts {
            longest_ms += match act {
                Pause(from, to) => {
                    assert!(from <= to, "{}: {from} > {to}", row.id);
                    *to
                }
                Times(times, inner) => u64::from(*times) * check(row, inner),
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
                    0
                }
                _ => 0,
            };
        }
        longest_ms
    }

    #[test]
    fn scripts_fit_into_their_load_and_name_who_is_there() {
        for row in ROWS {
            let longest_ms = check(row, row.script);
            assert!(longest_ms <= row.load_s * 1000, "{}: {longest_ms} ms", row.id);
        }
    }

    #[test]
    fn rows_have_names_of_their_own() {
        for (at, row) in ROWS.iter().enumerate() {
            assert!(ROWS[..at].iter().all(|other| other.id != row.id), "{}", row.id);
        }
        assert!(ROWS.iter().any(|row| row.short));
    }
}
