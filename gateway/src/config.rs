//! What a gateway is started with.

use std::net::SocketAddr;

use crate::limits::{Admission, Limits};
use crate::session::rules::Mode;

/// Which driver the shards run on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum IoChoice {
    /// io_uring where it is granted, else epoll.
    #[default]
    Auto,
    /// io_uring, or do not start.
    IoUring,
    /// epoll and one system call a send.
    Epoll,
    /// glommio instead of monoio (io_uring), or do not start. Needs the cargo feature `glommio`.
    Glommio,
}

impl std::str::FromStr for IoChoice {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "auto" => Ok(Self::Auto),
            "io_uring" => Ok(Self::IoUring),
            "epoll" => Ok(Self::Epoll),
            "glommio" => Ok(Self::Glommio),
            _ => Err("auto, io_uring, epoll or glommio"),
        }
    }
}

/// What a gateway is started with.
#[derive(Clone, Debug)]
pub struct GatewayConfig {
    /// Where clients connect. Port 0 picks one.
    pub listen: SocketAddr,
    /// Shards, each a thread on a core of its own.
    pub shards: usize,
    /// Which driver the shards run on.
    pub io: IoChoice,
    /// Serve or echo.
    pub mode: Mode,
    /// Limits of connections.
    pub limits: Limits,
    /// Who is let in.
    pub admission: Admission,
    /// permessage-deflate (RFC 7692); `None` declines it.
    pub deflate: Option<codec::ws::deflate::Config>,
    /// What paces connections (tcp(7), `TCP_CONGESTION`); `None`: what the system has as its default.
    pub congestion_control: Option<String>,
}

impl GatewayConfig {
    /// A gateway on `listen` with defaults for the rest.
    #[must_use]
    pub fn new(listen: SocketAddr, mode: Mode) -> Self {
        Self {
            listen,
            shards: cores(),
            io: IoChoice::Auto,
            mode,
            limits: Limits::default(),
            admission: Admission::default(),
            deflate: None,
            congestion_control: None,
        }
    }
}

/// Cores of this machine that the process may use.
#[must_use]
pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}
