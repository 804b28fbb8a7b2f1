//! The door of a shard: who may come in, who counts, and who is kept for a moment after a refusal.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use crate::net::capacity::{AddressKey, Capacity, HandedOver};
use crate::net::poll_set::Token;
use crate::net::sockets;
use crate::session::Phase;
use crate::session::bucket::{Bucket, Rate};

/// How long a refused connection is kept so that its answer arrives: closing at once would reset it if
/// the peer has sent a request that nobody read.
const SEEING_OFF_MS: u32 = 1_000;
/// A crowd that is sent away comes back over this many seconds.
pub(super) const SPREAD_S: u32 = 8;

/// What one shard lets in.
pub(super) struct DoorLimits {
    /// Places of the whole process.
    pub(super) capacity: Arc<Capacity>,
    /// New connections; `None`: any number.
    pub(super) rate: Option<Rate>,
    /// Logins that may wait for their answer.
    pub(super) max_logins: usize,
    /// Refused connections that may be kept for a moment.
    pub(super) max_seen_off: usize,
}

/// The door of one shard.
pub(super) struct Door {
    pub(super) limits: DoorLimits,
    pub(super) bucket: Bucket,
    /// Whose place a slot's connection has; empty when addresses are not counted.
    pub(super) keys: Vec<AddressKey>,
    /// Given up to tell somebody that there are no descriptors left.
    pub(super) spare: Option<OwnedFd>,
    pub(super) seen_off: VecDeque<(u32, OwnedFd)>,
    /// Logins that wait for their answer.
    pub(super) logging_in: usize,
    /// A herd is coming: the listener's edges are switched off, and whoever moves the shard accepts once in
    /// a while what has gathered.
    pub(super) gathering: bool,
    pub(super) told: u64,
    pub(super) told_at_ms: u32,
}

impl Door {
    pub(super) fn new(limits: DoorLimits) -> Self {
        let bucket = limits.rate.as_ref().map(|rate| Bucket::full(rate, 0));
        Self {
            bucket: bucket.unwrap_or(Bucket::full(&Rate::new(1.0, 1), 0)),
            limits,
            keys: Vec::new(),
            spare: sockets::spare_descriptor().ok(),
            seen_off: VecDeque::new(),
            logging_in: 0,
            gathering: false,
            told: 0,
            told_at_ms: 0,
        }
    }

    /// The delay to send a login away with, 0 to let it pass. Delays differ, so that a crowd does not
    /// come back as one.
    pub(super) fn login_delay_ms(&self, slot: u32) -> u32 {
        if self.logging_in < self.limits.max_logins {
            return 0;
        }
        1_000 + slot.wrapping_mul(977) % (SPREAD_S * 1_000)
    }

    /// Whether whoever is about to say that it is a client has to be told that there is no room.
    pub(super) fn is_full(&self, phase: Phase) -> bool {
        phase == Phase::Greeting && !self.limits.capacity.has_room_for_client()
    }

    /// A connection's phase changed.
    pub(super) fn phase_changed(&mut self, from: Phase, to: Phase) {
        if is_client(from) != is_client(to) {
            self.limits.capacity.count_client(is_client(to));
        }
        self.logging_in += usize::from(to == Phase::LoggingIn);
        self.logging_in -= usize::from(from == Phase::LoggingIn);
    }

    pub(super) fn may_enter(&mut self, now_ms: u32) -> bool {
        self.limits.rate.as_ref().is_none_or(|rate| self.bucket.take(rate, now_ms).is_ok())
    }

    pub(super) fn remember(&mut self, token: Token, key: AddressKey) {
        if !self.limits.capacity.counts_addresses() {
            return;
        }
        let slot = token.slot as usize;
        if self.keys.len() <= slot {
            self.keys.resize(slot + 1, AddressKey::NONE);
        }
        self.keys[slot] = key;
    }

    fn key_of(&self, token: Token) -> AddressKey {
        self.keys.get(token.slot as usize).copied().unwrap_or(AddressKey::NONE)
    }

    /// A connection left the table: its place is free.
    pub(super) fn left(&mut self, token: Token, phase: Phase) {
        self.limits.capacity.give_back(self.key_of(token));
        self.phase_changed(phase, Phase::Ended);
    }

    /// A connection left the table for plain HTTP and takes its place along, if there is room there.
    pub(super) fn left_for_http(
        &mut self,
        token: Token,
        socket: OwnedFd,
        read: Vec<u8>,
    ) -> Result<HandedOver, OwnedFd> {
        match self.limits.capacity.to_http(self.key_of(token)) {
            Some(place) => Ok(HandedOver { socket, read, place }),
            None => Err(socket),
        }
    }

    /// Keeps a refused connection for a moment.
    pub(super) fn see_off(&mut self, socket: OwnedFd, now_ms: u32) {
        sockets::finish_sending(&socket);
        self.seen_off.push_back((now_ms, socket));
        if self.seen_off.len() > self.limits.max_seen_off {
            self.seen_off.pop_front();
        }
    }

    /// Lets go of those who had their moment.
    pub(super) fn let_go(&mut self, now_ms: u32) {
        while let Some((since_ms, _)) = self.seen_off.front()
            && now_ms.wrapping_sub(*since_ms) >= SEEING_OFF_MS
        {
            self.seen_off.pop_front();
        }
    }
}

fn is_client(phase: Phase) -> bool {
    !matches!(phase, Phase::Greeting | Phase::Ended)
}
