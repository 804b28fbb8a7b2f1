//! Source addresses and ports, so that a million connections neither wait for a port nor meet one in
//! TIME_WAIT.

use std::net::{Ipv4Addr, SocketAddrV4};

use crate::rng::Rng;

/// Ports run from here, below those the kernel gives by itself.
const FIRST_PORT: u16 = 10_000;
const PORTS: u16 = 20_000;
/// 127.2.0.0 up to 127.249.255.255.
const FIRST_ADDRESS: u32 = 0x7f02_0000;
const ADDRESSES: u64 = 248 << 16;
/// Addresses between the beginnings of two parts of a run: 40 million connections.
const PER_PART: u32 = 2000;

/// Each source once.
pub(super) struct Sources {
    address: u32,
    port: u16,
}

impl Sources {
    /// Runs and their parts begin at different addresses.
    pub(super) fn new(run: u32, part: u32) -> Self {
        let mut rng = Rng::fork(u64::from(run), 0x50);
        let offset = rng.below(ADDRESSES) + u64::from(part) * u64::from(PER_PART);
        Self { address: (offset % ADDRESSES) as u32, port: 0 }
    }

    pub(super) fn next(&mut self) -> SocketAddrV4 {
        let ip = Ipv4Addr::from(FIRST_ADDRESS + self.address);
        let source = SocketAddrV4::new(ip, FIRST_PORT + self.port);
        self.port += 1;
        if self.port == PORTS {
            self.port = 0;
            self.address = ((u64::from(self.address) + 1) % ADDRESSES) as u32;
        }
        source
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_source_comes_once_and_is_on_loopback() {
        let mut all = std::collections::HashSet::new();
        for part in 0..2 {
            let mut sources = Sources::new(7, part);
            for _ in 0..100_000 {
                let source = sources.next();
                assert!(source.ip().is_loopback() && source.port() < 32_768);
                assert!(all.insert(source), "{source} again");
            }
        }
    }

    #[test]
    fn runs_begin_at_different_addresses() {
        assert_ne!(Sources::new(1, 0).next().ip(), Sources::new(2, 0).next().ip());
    }
}
