//! The limits of a connection and of a shard, with their defaults.

/// What one connection may do. Times in milliseconds, sizes in bytes.
#[derive(Clone, Debug, PartialEq)]
pub struct Limits {
    /// Largest WebSocket message, and largest binary frame body.
    pub max_message_bytes: usize,
    /// Most fragments one WebSocket message may come in.
    pub max_fragments: u32,
    /// Largest HTTP head of a handshake.
    pub max_head_bytes: usize,
    /// Largest content of a message (requirement B1).
    pub content_max_bytes: usize,
    /// From accept to a finished login, in total; not an idle time that a trickle could stretch.
    pub handshake_ms: u32,
    /// How often a client is told to send something.
    pub heartbeat_ms: u32,
    /// After how many heartbeats without a byte a connection is closed.
    pub heartbeat_misses: u32,
    /// Messages a second a connection may send in the long run.
    pub messages_per_second: f64,
    /// Messages it may send at once after a pause.
    pub message_burst: u32,
    /// Other requests (pulls, lists, group changes) a second in the long run.
    pub requests_per_second: f64,
    /// Other requests at once after a pause.
    pub request_burst: u32,
    /// Bytes that may wait for a connection that reads slowly before pushes to it are left out and
    /// marked with LAGGED. Answers to its own requests may use four times that, then it is closed.
    ///
    /// As long as more than this waits, nothing is received from the connection either.
    pub outbound_bytes: usize,
    /// Frames without a purpose (pings, pongs, heartbeats, requests that are refused) a second in the
    /// long run, 1 to 1000; more ends the connection.
    pub idle_frames_per_second: u32,
    /// Such frames at once after a pause; at most 65 times the number a second.
    pub idle_frame_burst: u32,
}

/// Who is let in. Everything here is for the whole process, however many shards it has.
#[derive(Clone, Debug, PartialEq)]
pub struct Admission {
    /// Connections in all; 0: as many as the open-file limit allows.
    pub max_connections: usize,
    /// Connections of one address (an IPv6 address counts as its /64 network); 0: any number. Off by
    /// default: behind a proxy, and behind the address translation of a mobile network or a company,
    /// thousands of users have one address.
    pub max_per_address: u32,
    /// New connections a second in the long run; 0: any number.
    pub connections_per_second: f64,
    /// New connections at once after a pause.
    pub connection_burst: u32,
    /// Logins that may wait for their answer before further ones, and new connections, are sent away
    /// with a delay.
    pub max_logins: usize,
}

impl Default for Admission {
    fn default() -> Self {
        Self {
            max_connections: 0,
            max_per_address: 0,
            connections_per_second: 0.0,
            connection_burst: 1_000,
            max_logins: 8_192,
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_message_bytes: 64 * 1024,
            max_fragments: 1024,
            max_head_bytes: 8 * 1024,
            content_max_bytes: proto::limits::CONTENT_MAX_BYTES,
            handshake_ms: 10_000,
            heartbeat_ms: 30_000,
            heartbeat_misses: 3,
            messages_per_second: 1.0,
            message_burst: 5,
            requests_per_second: 20.0,
            request_burst: 100,
            outbound_bytes: 256 * 1024,
            idle_frames_per_second: 50,
            idle_frame_burst: 1_000,
        }
    }
}

impl Limits {
    /// How long a logged-in connection may be silent.
    #[must_use]
    pub fn silence_ms(&self) -> u32 {
        self.heartbeat_ms.saturating_mul(self.heartbeat_misses)
    }

    /// The WebSocket codec's share of these limits.
    #[must_use]
    pub fn websocket(&self) -> codec::ws::Limits {
        codec::ws::Limits {
            max_message_bytes: self.max_message_bytes,
            max_fragments: self.max_fragments,
        }
    }

    /// The binary codec's share of these limits.
    #[must_use]
    pub fn binary(&self) -> codec::binary::Limits {
        codec::binary::Limits {
            role: codec::binary::Role::Server,
            max_body_bytes: self.max_message_bytes,
        }
    }
}

/// Descriptors kept free for everything that is not a client connection: stores, logs, HTTP answers.
pub const RESERVED_DESCRIPTORS: usize = 256;
/// Most readiness events taken in one turn. Measured: with 512 a message costs the core 3 % more (`bench/results`,
/// echo-slices-2026-11-23-4); likely for the sockets, of some 4 KB each, that are to be in its cache still when they are
/// sent to.
pub const EVENTS_PER_TURN: usize = 64;
/// Most sends handed to the kernel in one `io_uring_enter`. A few save nearly all of the system calls. With thousands
/// the thread is in the kernel for ten milliseconds at a time, where nothing else of its core gets a turn.
pub const SENDS_PER_SUBMIT: u32 = 64;
/// After so many answers and pushes out of its mailbox a turn looks at its connections again, whatever more
/// there is: until it does nothing is received, and who has room again is not sent what waits.
pub const DELIVERIES_PER_TURN: usize = 32_768;
/// Most connections accepted in one turn.
pub const ACCEPTS_PER_TURN: usize = 256;
/// The receive buffer that all connections of a shard share.
pub const RECV_BUFFER_BYTES: usize = 64 * 1024;
/// From so many bytes on a piece of output is sent from where it lies instead of being copied behind the
/// pieces before it.
pub const LEFT_IN_PLACE_BYTES: usize = 1024;
/// Bytes of output collected before a turn flushes early.
pub const ARENA_FLUSH_BYTES: usize = 256 * 1024;
/// Messages that may wait for the pipeline before clients are told BUSY.
pub const UPLINK_MESSAGES: usize = 65_536;
/// Requests that may wait for the logic service before clients are told BUSY.
pub const UPLINK_CALLS: usize = 65_536;
/// Batches of deliveries that may wait for one shard before the pipeline waits for it.
pub const MAILBOX_BATCHES: usize = 256;
/// Orders and answers that may wait for one shard.
pub const MAILBOX_ORDERS: usize = 8_192;
/// Plain HTTP connections served at once, at most; fewer where few open files are allowed.
pub const HTTP_CONNECTIONS: usize = 1024;
