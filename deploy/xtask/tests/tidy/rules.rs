//! What each crate may know. Change a row only together with ARCHITECTURE.md.

/// One name, and the names that go with it.
pub(crate) type Pair = (&'static str, &'static [&'static str]);

/// The rules of one crate.
#[derive(Debug)]
pub(crate) struct Crate {
    /// Its folder from the root.
    pub(crate) folder: &'static str,
    /// Its package name.
    pub(crate) package: &'static str,
    /// Our crates it may import.
    pub(crate) imports: &'static [&'static str],
    /// Our crates its tests may import besides.
    pub(crate) test_imports: &'static [&'static str],
    /// The order of its rooms (see [`crate::order`]); empty: any order without circles.
    pub(crate) order: &'static str,
    /// Rooms that may hold `unsafe`.
    pub(crate) unsafe_rooms: &'static [&'static str],
    /// Rooms (`*`: all) and the paths and keywords their code must not name, tests left out.
    pub(crate) pure: &'static [Pair],
    /// Words and the only rooms that may use them, tests included.
    pub(crate) only_in: &'static [Pair],
}

impl Crate {
    /// The name of its library in paths.
    pub(crate) fn library(&self) -> String {
        self.package.replace('-', "_")
    }
}

/// Words that only a room named in [`Crate::only_in`] may use, in any crate.
pub(crate) const KEPT_WORDS: &[&str] =
    &["monoio", "glommio", "rdkafka", "rusqlite", "sqlx", "mysql", "redis"];

/// The room of files outside `src`: tests, examples, benches.
pub(crate) const OUTSIDE: &str = "";

/// What code without side effects must not name: sockets, files, threads, processes, runtimes.
const NO_SIDE_EFFECTS: &[&str] = &[
    "std::net::TcpStream",
    "std::net::TcpListener",
    "std::net::UdpSocket",
    "std::fs",
    "std::io",
    "std::thread",
    "std::process",
    "std::env",
    "tokio",
    "axum",
    "hyper",
    "rustix",
    "libc",
    "socket2",
];

/// Time is an argument of pure code.
const NO_CLOCK: &[&str] = &["std::time::Instant", "std::time::SystemTime"];

/// All crates.
pub(crate) const CRATES: &[Crate] = &[
    Crate {
        folder: "codec",
        package: "codec",
        imports: &[],
        test_imports: &[],
        order: "role, error, recv_buffer, payload < ws | binary < detect < main",
        // A test counts allocations.
        unsafe_rooms: &["payload", OUTSIDE],
        pure: &[
            ("*", NO_SIDE_EFFECTS),
            ("*", &["std::net", "std::time", "core::time", "prost", "bytes", "async", "await"]),
        ],
        only_in: &[],
    },
    Crate {
        folder: "proto",
        package: "proto",
        imports: &[],
        test_imports: &[],
        order: "im, v1, limits < error, ids < main",
        unsafe_rooms: &[],
        pure: &[("*", NO_SIDE_EFFECTS), ("*", NO_CLOCK)],
        only_in: &[],
    },
    Crate {
        folder: "cluster",
        package: "cluster",
        imports: &["proto"],
        test_imports: &[],
        order: "own_address < etcd | kafka | rpc | settings | log | metrics < main",
        unsafe_rooms: &[],
        pure: &[],
        only_in: &[("rdkafka", &["kafka"]), ("etcd_client", &["etcd"])],
    },
    Crate {
        folder: "gateway",
        package: "gateway",
        imports: &["codec", "proto", "cluster"],
        test_imports: &[],
        order: "ids, limits < session, index < config, net, rt, mailbox, uplink < shard | bus | control < supervisor < main",
        unsafe_rooms: &["net", "rt"],
        pure: &[("session", NO_SIDE_EFFECTS), ("session", NO_CLOCK)],
        only_in: &[
            ("monoio", &["rt"]),
            ("glommio", &["rt"]),
            ("rdkafka", &["bus"]),
            ("io_uring", &["net", "rt"]),
            ("axum", &["control", "supervisor"]),
            ("hyper", &["control"]),
        ],
    },
    Crate {
        folder: "logic-svc",
        package: "logic-svc",
        imports: &["proto", "cluster"],
        test_imports: &[],
        order: "limits < domain < config < ports, gateways < snowflake < pipeline | store | egress < auth < ops < ingest | rpc | api | tasks < service < main",
        unsafe_rooms: &[],
        pure: &[("domain", NO_SIDE_EFFECTS), ("domain", NO_CLOCK)],
        only_in: &[
            // Tests may look into the database from outside.
            ("rusqlite", &["store", OUTSIDE]),
            // The wiring names the store's rooms, which are called like their servers.
            ("mysql", &["store", "service", OUTSIDE]),
            ("redis", &["store", "service", OUTSIDE]),
            ("rdkafka", &["ingest", "egress"]),
        ],
    },
    Crate {
        folder: "loadgen",
        package: "loadgen",
        imports: &["codec", "proto"],
        test_imports: &[],
        order: "",
        unsafe_rooms: &[],
        pure: &[],
        only_in: &[],
    },
    Crate {
        folder: "bench",
        package: "bench",
        imports: &["codec", "proto", "gateway", "logic-svc", "loadgen", "standalone"],
        test_imports: &[],
        order: "machine | process | growth | client | turns < accounts | fanout | establish < main",
        unsafe_rooms: &[],
        pure: &[],
        only_in: &[],
    },
    Crate {
        folder: "deploy/standalone",
        package: "standalone",
        imports: &["codec", "proto", "gateway", "logic-svc"],
        test_imports: &["loadgen"],
        order: "",
        unsafe_rooms: &[],
        pure: &[],
        only_in: &[],
    },
    Crate {
        folder: "deploy/xtask",
        package: "xtask",
        imports: &[],
        test_imports: &[],
        order: "interrupt, scratch, procfs, pinned, ports, repo < job, daemon < build, server, web, callgrind, servers < cluster < autobahn, fuzz, instructions, chaos < start | verify | bench | flame < main",
        unsafe_rooms: &[],
        pure: &[],
        only_in: &[],
    },
    Crate {
        folder: "bench/instructions",
        package: "instructions",
        imports: &["codec", "proto", "gateway"],
        test_imports: &[],
        order: "",
        unsafe_rooms: &[],
        pure: &[],
        only_in: &[],
    },
    Crate {
        folder: "fuzz/bodies",
        package: "fuzz-bodies",
        imports: &["codec", "proto", "gateway"],
        test_imports: &[],
        order: "",
        unsafe_rooms: &[],
        pure: &[],
        only_in: &[],
    },
];
