//! What the whole process has room for: connections, connections of one address, plain HTTP. Shared by
//! all shards, and touched only when a connection comes, goes, or is handed over.

use std::collections::HashMap;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Parts of the address table, each under a lock of its own.
const PARTS: usize = 16;
/// Marks IPv4 addresses among IPv6 prefixes: `ff00::/8` is multicast, which no peer connects from.
const IPV4: u64 = 0xffff_ffff_0000_0000;

/// What counts as one address: an IPv4 address, or the /64 network of an IPv6 address, since one host
/// chooses freely among the 2^64 addresses of its network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct AddressKey(u64);

impl AddressKey {
    /// The key of a peer.
    #[must_use]
    pub fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => Self(IPV4 | u64::from(address.to_bits())),
            #[allow(clippy::cast_possible_truncation, reason = "the upper half of 128 bits")]
            IpAddr::V6(address) => Self((address.to_bits() >> 64) as u64),
        }
    }

    /// The place of an address nobody counts.
    pub const NONE: Self = Self(0);
}

/// Why there is no place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoPlace {
    /// The process has as many connections as it may.
    Full,
    /// The address has as many as it may.
    Address,
}

/// The counts of one process.
#[derive(Debug)]
pub struct Capacity {
    /// Sockets of the shards: clients, and those that have not said yet what they are.
    open: AtomicUsize,
    /// Those of them that turned out to be clients.
    clients: AtomicUsize,
    max_clients: usize,
    http: AtomicUsize,
    max_http: usize,
    /// 0: addresses are not counted.
    max_per_address: u32,
    addresses: [Mutex<HashMap<AddressKey, u32>>; PARTS],
}

impl Capacity {
    /// Room for so many clients, connections of one address (0: any number), and plain HTTP. Whoever has
    /// not said yet what it is may have a place of either kind, so that health can be asked for when
    /// there is no room for clients.
    #[must_use]
    pub fn new(max_clients: usize, max_per_address: u32, max_http: usize) -> Self {
        Self {
            open: AtomicUsize::new(0),
            clients: AtomicUsize::new(0),
            max_clients,
            http: AtomicUsize::new(0),
            max_http,
            max_per_address,
            addresses: std::array::from_fn(|_| Mutex::default()),
        }
    }

    /// Whether addresses are counted, so that the key of a place has to be kept.
    #[must_use]
    pub fn counts_addresses(&self) -> bool {
        self.max_per_address > 0
    }

    /// Takes a place; to be given back by [`Self::give_back`] or taken along by [`Self::to_http`].
    ///
    /// # Errors
    /// There is none.
    pub fn take(&self, address: AddressKey) -> Result<(), NoPlace> {
        let places = self.max_clients.saturating_add(self.max_http);
        if !take_one(&self.open, places.saturating_sub(self.http.load(Ordering::Relaxed))) {
            return Err(NoPlace::Full);
        }
        if !self.count_address(address) {
            self.open.fetch_sub(1, Ordering::Relaxed);
            return Err(NoPlace::Address);
        }
        Ok(())
    }

    /// Gives a place back.
    pub fn give_back(&self, address: AddressKey) {
        self.open.fetch_sub(1, Ordering::Relaxed);
        self.forget_address(address);
    }

    /// Makes a connection's place one of plain HTTP; `None`, and the place given back, when there are as
    /// many as there may be.
    #[must_use]
    pub fn to_http(self: &Arc<Self>, address: AddressKey) -> Option<HttpPlace> {
        self.open.fetch_sub(1, Ordering::Relaxed);
        if !take_one(&self.http, self.max_http) {
            self.forget_address(address);
            return None;
        }
        Some(HttpPlace { capacity: Arc::clone(self), address })
    }

    /// Whether one more may become a client. Shards that ask at the same moment may go over by one each.
    #[must_use]
    pub fn has_room_for_client(&self) -> bool {
        self.clients.load(Ordering::Relaxed) < self.max_clients
    }

    /// A connection turned out to be a client (true), or stopped being one.
    pub fn count_client(&self, is_client: bool) {
        match is_client {
            true => self.clients.fetch_add(1, Ordering::Relaxed),
            false => self.clients.fetch_sub(1, Ordering::Relaxed),
        };
    }

    /// Addresses with a connection now: what the table holds.
    #[must_use]
    pub fn addresses(&self) -> usize {
        let len =
            |part: &Mutex<HashMap<_, _>>| part.lock().unwrap_or_else(PoisonError::into_inner).len();
        self.addresses.iter().map(len).sum()
    }

    fn part(&self, address: AddressKey) -> &Mutex<HashMap<AddressKey, u32>> {
        // Multiplication by an odd number brings every bit of the key into the upper ones.
        let hash = address.0.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        &self.addresses[(hash >> 60) as usize % PARTS]
    }

    fn count_address(&self, address: AddressKey) -> bool {
        if !self.counts_addresses() {
            return true;
        }
        let mut part = self.part(address).lock().unwrap_or_else(PoisonError::into_inner);
        let count = part.entry(address).or_default();
        let fits = *count < self.max_per_address;
        *count += u32::from(fits);
        fits
    }

    fn forget_address(&self, address: AddressKey) {
        if !self.counts_addresses() {
            return;
        }
        let mut part = self.part(address).lock().unwrap_or_else(PoisonError::into_inner);
        let Some(count) = part.get_mut(&address) else { return };
        *count -= 1;
        if *count == 0 {
            part.remove(&address);
            // A crowd that has left must not keep its memory.
            if part.capacity() > 64 && part.len() * 8 < part.capacity() {
                part.shrink_to_fit();
            }
        }
    }
}

fn take_one(counter: &AtomicUsize, max: usize) -> bool {
    let one_more = |count| (count < max).then_some(count + 1);
    counter.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).is_ok()
}

/// The place of a plain HTTP connection, given back when dropped.
#[derive(Debug)]
pub struct HttpPlace {
    capacity: Arc<Capacity>,
    address: AddressKey,
}

impl Drop for HttpPlace {
    fn drop(&mut self) {
        self.capacity.http.fetch_sub(1, Ordering::Relaxed);
        self.capacity.forget_address(self.address);
    }
}

/// A plain HTTP connection on its way to whoever serves it.
#[derive(Debug)]
pub struct HandedOver {
    /// The socket.
    pub socket: OwnedFd,
    /// What was read from it already.
    pub read: Vec<u8>,
    /// Its place; to be kept until the socket is closed.
    pub place: HttpPlace,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(text: &str) -> AddressKey {
        AddressKey::of(text.parse().unwrap())
    }

    #[test]
    fn one_host_is_one_address() {
        assert_eq!(key("192.0.2.1"), key("::ffff:192.0.2.1"));
        assert_ne!(key("192.0.2.1"), key("192.0.2.2"));
        assert_eq!(key("2001:db8:1:2::1"), key("2001:db8:1:2:ffff::9"));
        assert_ne!(key("2001:db8:1:2::1"), key("2001:db8:1:3::1"));
        assert_ne!(key("0.0.0.1"), key("::1"));
    }

    #[test]
    fn an_address_has_its_limit_and_leaves_nothing_behind() {
        let capacity = Arc::new(Capacity::new(100, 2, 10));
        let (one, other) = (key("192.0.2.1"), key("192.0.2.2"));
        assert_eq!((capacity.take(one), capacity.take(one)), (Ok(()), Ok(())));
        assert_eq!(capacity.take(one), Err(NoPlace::Address));
        assert_eq!(capacity.take(other), Ok(()));
        let http = capacity.to_http(one).unwrap();
        assert_eq!(capacity.take(one), Err(NoPlace::Address), "HTTP counts too");
        drop(http);
        assert_eq!(capacity.take(one), Ok(()));
        for address in [one, one, other] {
            capacity.give_back(address);
        }
        assert_eq!(capacity.addresses(), 0);
        assert_eq!(capacity.open.load(Ordering::Relaxed), 0);
        assert_eq!(capacity.http.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn a_crowd_that_left_keeps_no_memory() {
        let capacity = Capacity::new(usize::MAX, 1, 0);
        let crowd: Vec<_> = (0..20_000_u32)
            .map(|n| AddressKey::of(std::net::Ipv4Addr::from_bits(n).into()))
            .collect();
        crowd.iter().for_each(|&address| assert_eq!(capacity.take(address), Ok(())));
        assert_eq!(capacity.addresses(), 20_000);
        crowd.iter().for_each(|&address| capacity.give_back(address));
        let held: usize =
            capacity.addresses.iter().map(|part| part.lock().unwrap().capacity()).sum();
        assert!(held <= PARTS * 64, "{held}");
    }

    #[test]
    fn clients_and_http_have_limits_of_their_own() {
        let capacity = Arc::new(Capacity::new(2, 0, 1));
        let take = || capacity.take(AddressKey::NONE);
        assert_eq!([take(), take(), take(), take()], [Ok(()), Ok(()), Ok(()), Err(NoPlace::Full)]);
        capacity.count_client(true);
        assert!(capacity.has_room_for_client());
        capacity.count_client(true);
        assert!(!capacity.has_room_for_client());
        let http = capacity.to_http(AddressKey::NONE);
        assert!(http.is_some());
        assert_eq!(take(), Err(NoPlace::Full), "HTTP has the place that was over");
        capacity.count_client(false);
        capacity.give_back(AddressKey::NONE);
        assert!(take().is_ok() && capacity.to_http(AddressKey::NONE).is_none());
        assert!(take().is_ok(), "a refused hand-over gives its place back");
        assert_eq!(capacity.addresses(), 0);
    }
}
