//! Many short or strange connections in one event loop, as cheaply as the kernel allows: no buffer, no
//! protocol and no timer belong to a connection here. What is sent and what the answers mean is the
//! business of a [`Drive`].

pub(crate) mod answers;
pub(crate) mod requests;
mod source;

use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;

use crate::clock;
use crate::net::socket::{self, Poller, Ready};
use crate::plan::Plan;

use source::Sources;

const INPUT_BYTES: usize = 64 * 1024;

/// How a connection ended that was not ended here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// The peer sent its last byte.
    Fin,
    /// The peer broke it off.
    Reset,
    /// Anything else, such as refused.
    Error(io::ErrorKind),
}

impl End {
    fn of(error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => Self::Reset,
            kind => Self::Error(kind),
        }
    }
}

/// What happens to the connections.
pub(crate) trait Drive {
    /// TCP stands, for connections opened with nothing to send or not able to send at once; or a full
    /// socket has room again.
    fn on_writable(&mut self, swarm: &mut Swarm, slot: u32);
    /// Bytes came.
    fn on_bytes(&mut self, swarm: &mut Swarm, slot: u32, bytes: &mut [u8]);
    /// The connection is over; its slot is free again.
    fn on_end(&mut self, swarm: &mut Swarm, slot: u32, end: End);
}

#[derive(Default)]
struct Slot {
    socket: Option<OwnedFd>,
    generation: u32,
    deaf: bool,
}

/// How to open a connection.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Opening<'b> {
    /// Sent as soon as TCP stands; on loopback that is within the same call.
    pub(crate) first: &'b [u8],
    /// Receive buffer in bytes; `None`: the kernel's choice.
    pub(crate) receive_bytes: Option<usize>,
    /// What comes is left in the kernel.
    pub(crate) deaf: bool,
    /// Whether readiness to write is of interest even when everything is sent.
    pub(crate) watch_writable: bool,
}

/// The connections.
pub(crate) struct Swarm {
    /// The time of the event in hand.
    pub(crate) now_ns: u64,
    poller: Poller,
    slots: Vec<Slot>,
    targets: Vec<SocketAddr>,
    sources: Option<Sources>,
    ready: Vec<Ready>,
    again: VecDeque<u64>,
    ends: VecDeque<(u32, End)>,
    input: Vec<u8>,
    live: u32,
}

impl Swarm {
    /// A swarm of at most `slots` connections at a time. `part` keeps apart what runs in one process.
    pub(crate) fn new(plan: &Plan, slots: u32, part: u32) -> io::Result<Self> {
        let targets: Vec<SocketAddr> = plan.targets.iter().map(|target| target.address).collect();
        let loopback = targets.iter().all(|target| match target.ip() {
            IpAddr::V4(ip) => ip.is_loopback(),
            IpAddr::V6(_) => false,
        });
        Ok(Self {
            now_ns: clock::now_ns(),
            poller: Poller::new()?,
            slots: std::iter::repeat_with(Slot::default).take(slots as usize).collect(),
            sources: loopback.then(|| Sources::new(plan.run, part)),
            targets,
            ready: Vec::new(),
            again: VecDeque::new(),
            ends: VecDeque::new(),
            input: vec![0; INPUT_BYTES],
            live: 0,
        })
    }

    /// Connections that are open or on their way.
    pub(crate) fn live(&self) -> u32 {
        self.live
    }

    /// Whether the slot holds a connection.
    pub(crate) fn is_open(&self, slot: u32) -> bool {
        self.slots.get(slot as usize).is_some_and(|slot| slot.socket.is_some())
    }

    /// Opens a connection in a free slot. `nth` chooses among several targets. `Ok(true)`: everything of
    /// `first` is on its way; else [`Drive::on_writable`] tells when to send it.
    pub(crate) fn open(&mut self, slot: u32, nth: u32, opening: Opening<'_>) -> io::Result<bool> {
        let target = self.targets[nth as usize % self.targets.len()];
        let socket = self.dial(target, opening.receive_bytes)?;
        let entry = &mut self.slots[slot as usize];
        entry.generation = entry.generation.wrapping_add(1);
        entry.deaf = opening.deaf;
        let token = u64::from(entry.generation) << 32 | u64::from(slot);
        let sent = match opening.first {
            [] => false,
            first => match socket::send(&socket, first) {
                Ok(sent) => sent == Some(first.len()),
                Err(error) if error.kind() == io::ErrorKind::NotConnected => false,
                Err(error) => return Err(error),
            },
        };
        self.poller.watch(&socket, token, !sent || opening.watch_writable)?;
        entry.socket = Some(socket);
        self.live += 1;
        Ok(sent)
    }

    fn dial(&mut self, target: SocketAddr, receive: Option<usize>) -> io::Result<OwnedFd> {
        let Some(sources) = &mut self.sources else { return socket::dial(target, None, receive) };
        let mut result = socket::dial(target, Some(sources.next()), receive);
        for _ in 0..100 {
            match &result {
                // Somebody else has that port.
                Err(error)
                    if matches!(
                        error.kind(),
                        io::ErrorKind::AddrInUse | io::ErrorKind::AddrNotAvailable
                    ) =>
                {
                    result = socket::dial(target, Some(sources.next()), receive);
                }
                _ => break,
            }
        }
        result
    }

    /// Sends without waiting; how many bytes the kernel took. An error shows as the connection's end.
    pub(crate) fn send(&mut self, slot: u32, bytes: &[u8]) -> usize {
        let Some(socket) = &self.slots[slot as usize].socket else { return 0 };
        match socket::send(socket, bytes) {
            Ok(sent) => sent.unwrap_or(0),
            Err(error) => {
                self.ends.push_back((slot, End::of(&error)));
                0
            }
        }
    }

    /// Closes a connection, in order (FIN) or, when `abruptly`, with a reset.
    pub(crate) fn close(&mut self, slot: u32, abruptly: bool) {
        if let Some(socket) = self.slots[slot as usize].socket.take() {
            if abruptly {
                socket::close_abruptly(&socket);
            }
            self.live -= 1;
        }
    }

    /// One turn of the loop: waits for readiness or `until_ns`, whichever is first.
    pub(crate) fn turn<D: Drive>(&mut self, drive: &mut D, until_ns: u64) -> io::Result<()> {
        let idle = self.again.is_empty() && self.ends.is_empty();
        let mut ready = std::mem::take(&mut self.ready);
        self.poller.wait(if idle { until_ns } else { 0 }, &mut ready)?;
        self.now_ns = clock::now_ns();
        for &event in &ready {
            self.on_ready(drive, event);
        }
        self.ready = ready;
        for _ in 0..self.again.len() {
            if let Some(token) = self.again.pop_front() {
                self.read(drive, token, true);
            }
        }
        while let Some((slot, end)) = self.ends.pop_front() {
            self.end(drive, slot, end);
        }
        Ok(())
    }

    fn on_ready<D: Drive>(&mut self, drive: &mut D, ready: Ready) {
        let Some(slot) = self.slot_of(ready.token) else { return };
        if ready.readable || ready.ended {
            self.read(drive, ready.token, ready.ended);
        }
        if ready.writable && !ready.ended && self.slot_of(ready.token).is_some() {
            drive.on_writable(self, slot);
        }
    }

    fn slot_of(&self, token: u64) -> Option<u32> {
        let (generation, slot) = ((token >> 32) as u32, token as u32);
        let entry = self.slots.get(slot as usize)?;
        (entry.generation == generation && entry.socket.is_some()).then_some(slot)
    }

    fn read<D: Drive>(&mut self, drive: &mut D, token: u64, ended: bool) {
        let Some(slot) = self.slot_of(token) else { return };
        let entry = &self.slots[slot as usize];
        let Some(socket) = entry.socket.as_ref().filter(|_| ended || !entry.deaf) else { return };
        let mut input = std::mem::take(&mut self.input);
        match socket::receive(socket, &mut input) {
            Ok(Some(0)) => self.end(drive, slot, End::Fin),
            Ok(Some(count)) => {
                if ended || count == input.len() {
                    self.again.push_back(token);
                }
                drive.on_bytes(self, slot, &mut input[..count]);
            }
            Ok(None) => {}
            Err(error) => self.end(drive, slot, End::of(&error)),
        }
        self.input = input;
    }

    fn end<D: Drive>(&mut self, drive: &mut D, slot: u32, end: End) {
        if self.is_open(slot) {
            self.close(slot, false);
            drive.on_end(self, slot, end);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::Options;
    use std::io::{Read, Write};
    use std::net::TcpListener;

    #[derive(Default)]
    struct Log {
        bytes: Vec<u8>,
        ends: Vec<(u32, End)>,
        writable: u32,
    }

    impl Drive for Log {
        fn on_writable(&mut self, _swarm: &mut Swarm, _slot: u32) {
            self.writable += 1;
        }
        fn on_bytes(&mut self, _swarm: &mut Swarm, _slot: u32, bytes: &mut [u8]) {
            self.bytes.extend_from_slice(bytes);
        }
        fn on_end(&mut self, _swarm: &mut Swarm, slot: u32, end: End) {
            self.ends.push((slot, end));
        }
    }

    fn swarm(listener: &TcpListener, slots: u32) -> Swarm {
        let url = format!("ws://{}/ws", listener.local_addr().expect("bound"));
        let options = Options::from_args(["churn", "--url", &url]).expect("a command line");
        Swarm::new(&Plan::new(&options).expect("a plan"), slots, 0).expect("a swarm")
    }

    fn until(swarm: &mut Swarm, log: &mut Log, holds: impl Fn(&Log) -> bool) {
        let deadline = clock::now_ns() + 10 * clock::SECOND_NS;
        while !holds(log) {
            assert!(clock::now_ns() < deadline, "waited in vain");
            swarm.turn(log, deadline).expect("a turn");
        }
    }

    #[test]
    fn a_connection_sends_receives_and_is_told_of_its_end() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let mut swarm = swarm(&listener, 2);
        let mut log = Log::default();
        let opening = Opening { first: b"hello", ..Opening::default() };
        swarm.open(1, 0, opening).expect("opens");
        let (mut peer, address) = listener.accept().expect("accepts");
        assert_ne!(address.ip(), IpAddr::from([127, 0, 0, 1]), "a source address of its own");
        let mut got = [0; 5];
        peer.read_exact(&mut got).expect("received");
        assert_eq!(&got, b"hello");
        peer.write_all(b"answer").expect("sent");
        until(&mut swarm, &mut log, |log| log.bytes == b"answer");
        assert_eq!((swarm.live(), swarm.is_open(1), swarm.is_open(0)), (1, true, false));
        drop(peer);
        until(&mut swarm, &mut log, |log| !log.ends.is_empty());
        assert_eq!((log.ends.as_slice(), swarm.live()), (&[(1, End::Fin)][..], 0));
    }

    #[test]
    fn closing_abruptly_resets_and_a_reset_is_told() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let mut swarm = swarm(&listener, 1);
        let mut log = Log::default();
        swarm.open(0, 0, Opening::default()).expect("opens");
        until(&mut swarm, &mut log, |log| log.writable == 1);
        let (mut peer, _) = listener.accept().expect("accepts");
        swarm.close(0, true);
        let error = peer.read(&mut [0; 1]).expect_err("reset");
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
        swarm.open(0, 0, Opening { first: b"unread", ..Opening::default() }).expect("opens again");
        // Closed with something unread: a reset.
        let (peer, _) = listener.accept().expect("accepts");
        let mut one = [0; 1];
        (&peer).read_exact(&mut one).expect("received");
        drop(peer);
        until(&mut swarm, &mut log, |log| log.ends == [(0, End::Reset)]);
    }
}
