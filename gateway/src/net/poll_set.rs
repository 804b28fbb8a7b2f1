//! One edge-triggered epoll set: all that an idle connection costs beside its table entry.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::buffer::spare_capacity;
use rustix::event::Timespec;
use rustix::event::epoll::{self, Event, EventData, EventFlags};

/// Whose readiness an event tells: the slot and generation it was registered with. The generation lets
/// the shard drop events of a connection that was closed earlier in the same turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Token {
    /// Slot of the connection, or one of the reserved names.
    pub slot: u32,
    /// Generation of the slot.
    pub generation: u32,
}

impl Token {
    fn data(self) -> EventData {
        EventData::new_u64(u64::from(self.slot) << 32 | u64::from(self.generation))
    }

    fn of(data: EventData) -> Self {
        let word = data.u64();
        #[allow(clippy::cast_possible_truncation, reason = "the two halves of the word")]
        let (slot, generation) = ((word >> 32) as u32, word as u32);
        Self { slot, generation }
    }
}

/// What is ready on a descriptor.
#[derive(Clone, Copy, Debug)]
pub struct Readiness {
    /// Whose.
    pub token: Token,
    /// Bytes or an end of stream can be received, or an error waits.
    pub readable: bool,
    /// Room for sending came free.
    pub writable: bool,
    /// The peer has finished sending, or the connection broke: receive until nothing is left, since FIN
    /// together with data gives one edge only.
    pub hang_up: bool,
}

/// The epoll set of one shard.
pub struct PollSet {
    epoll: OwnedFd,
    events: Vec<Event>,
}

impl PollSet {
    /// A set that takes at most `max_events` events a turn (fairness towards mailbox and timers).
    ///
    /// # Errors
    /// The process is out of descriptors.
    pub fn new(max_events: usize) -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        Ok(Self { epoll, events: Vec::with_capacity(max_events) })
    }

    /// The set's own descriptor as a runtime can await it: readable while any event waits.
    ///
    /// # Errors
    /// The process is out of descriptors.
    pub fn awaitable(&self) -> io::Result<UnixStream> {
        Ok(UnixStream::from(self.epoll.try_clone()?))
    }

    /// Watches a descriptor for bytes to receive.
    ///
    /// # Errors
    /// The kernel's limit of watches is reached, or the descriptor cannot be watched.
    pub fn add(&self, fd: impl AsFd, token: Token) -> io::Result<()> {
        Ok(epoll::add(&self.epoll, fd, token.data(), interest(false))?)
    }

    /// Watches also (or no longer) for room to send. Re-arms the edge: what is ready is told again.
    ///
    /// # Errors
    /// The descriptor is not in the set.
    pub fn watch_writable(&self, fd: impl AsFd, token: Token, on: bool) -> io::Result<()> {
        Ok(epoll::modify(&self.epoll, fd, token.data(), interest(on))?)
    }

    /// Tells nothing of a descriptor (or again what [`Self::add`] tells, beginning with what is ready). Errors
    /// are told all the same.
    ///
    /// # Errors
    /// The descriptor is not in the set.
    pub fn mute(&self, fd: impl AsFd, token: Token, on: bool) -> io::Result<()> {
        let flags = if on { EventFlags::ET } else { interest(false) };
        Ok(epoll::modify(&self.epoll, fd, token.data(), flags)?)
    }

    /// Stops watching. (Closing the last descriptor of a socket does the same.)
    ///
    /// # Errors
    /// The descriptor is not in the set.
    pub fn remove(&self, fd: impl AsFd) -> io::Result<()> {
        Ok(epoll::delete(&self.epoll, fd)?)
    }

    /// Takes what is ready now into `into`, without waiting. Returns whether the batch was full, so that
    /// more may be waiting.
    ///
    /// # Errors
    /// Only programming faults: an interrupted call counts as nothing ready.
    pub fn take_ready(&mut self, into: &mut Vec<Readiness>) -> io::Result<bool> {
        self.wait(into, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }))
    }

    fn wait(&mut self, into: &mut Vec<Readiness>, timeout: Option<&Timespec>) -> io::Result<bool> {
        self.events.clear();
        match epoll::wait(&self.epoll, spare_capacity(&mut self.events), timeout) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        into.extend(self.events.iter().map(readiness));
        Ok(self.events.len() == self.events.capacity())
    }
}

impl AsFd for PollSet {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }
}

fn interest(writable: bool) -> EventFlags {
    let flags = EventFlags::IN | EventFlags::RDHUP | EventFlags::ET;
    if writable { flags | EventFlags::OUT } else { flags }
}

fn readiness(event: &Event) -> Readiness {
    let flags = event.flags;
    let broken = flags.intersects(EventFlags::HUP | EventFlags::ERR);
    Readiness {
        token: Token::of(event.data),
        readable: flags.intersects(EventFlags::IN | EventFlags::RDHUP) || broken,
        writable: flags.contains(EventFlags::OUT),
        hang_up: flags.contains(EventFlags::RDHUP) || broken,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn ready(set: &mut PollSet) -> Vec<Readiness> {
        let mut events = Vec::new();
        set.take_ready(&mut events).unwrap();
        events
    }

    #[test]
    fn an_edge_is_told_once_with_its_token() {
        let mut set = PollSet::new(8).unwrap();
        let (a, mut b) = UnixStream::pair().unwrap();
        let token = Token { slot: 7, generation: 0xffff_fffe };
        set.add(&a, token).unwrap();
        assert!(ready(&mut set).is_empty());
        b.write_all(b"x").unwrap();
        let events = ready(&mut set);
        assert_eq!(events.len(), 1);
        assert_eq!(events[0].token, token);
        assert!(events[0].readable && !events[0].hang_up && !events[0].writable);
        assert!(ready(&mut set).is_empty());
    }

    #[test]
    fn a_muted_descriptor_tells_nothing_and_then_what_came_meanwhile() {
        let mut set = PollSet::new(8).unwrap();
        let (a, mut b) = UnixStream::pair().unwrap();
        let token = Token { slot: 1, generation: 1 };
        set.add(&a, token).unwrap();
        set.mute(&a, token, true).unwrap();
        b.write_all(b"x").unwrap();
        assert!(ready(&mut set).is_empty());
        set.mute(&a, token, false).unwrap();
        assert!(ready(&mut set)[0].readable);
        b.write_all(b"x").unwrap();
        assert_eq!(ready(&mut set).len(), 1);
    }

    #[test]
    fn fin_behind_data_is_one_edge_with_hang_up() {
        let mut set = PollSet::new(8).unwrap();
        let (a, mut b) = UnixStream::pair().unwrap();
        set.add(&a, Token { slot: 1, generation: 1 }).unwrap();
        b.write_all(b"x").unwrap();
        drop(b);
        let events = ready(&mut set);
        assert_eq!(events.len(), 1);
        assert!(events[0].readable && events[0].hang_up);
        assert!(ready(&mut set).is_empty());
    }

    #[test]
    fn a_full_batch_says_so() {
        let mut set = PollSet::new(1).unwrap();
        let pairs: Vec<_> = (0..2).map(|_| UnixStream::pair().unwrap()).collect();
        for (slot, (a, b)) in (0..).zip(&pairs) {
            set.add(a, Token { slot, generation: 0 }).unwrap();
            (&*b).write_all(b"x").unwrap();
        }
        let mut events = Vec::new();
        assert!(set.take_ready(&mut events).unwrap());
        assert!(set.take_ready(&mut events).unwrap());
        assert_eq!(events.len(), 2);
        assert!(!set.take_ready(&mut events).unwrap());
    }
}
