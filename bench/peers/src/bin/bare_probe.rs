//! A floor of our own: the least that one thread can spend on a WebSocket echo.
//!
//! One edge-triggered epoll set, one recv(2) an event into one shared buffer, and all sends of a
//! turn as one submit of an io_uring that nobody ever waits on. The gateway's shard does the same,
//! with sessions, timers and limits around it; the distance between the two is what those cost.
//!
//! It trusts its client: no limit on what it queues for a reader that stops, no deadline, no check
//! of UTF-8, of reserved bits or of the order of fragments, which are sent back as they came.

use std::io;
use std::ops::Range;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::process::ExitCode;

use io_uring::{IoUring, opcode, squeue, types};
use peers::websocket::{answer_frame, upgrade};
use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, Event, EventData, EventFlags};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, SocketFlags, accept_with, recv, send};
use socket2::Socket;

const NAME: &str = "bare-probe";
const EVENTS: usize = 64;
/// The longest frame. Only what a read fills of it is ever touched.
const BUFFER_BYTES: usize = 1 << 20;
const ARENA_BYTES: usize = 2 << 20;
/// What one read can add to the arena: an answer is shorter than its frame, but not than its
/// upgrade request.
const ROOM_BYTES: usize = BUFFER_BYTES + 256;
const RING_ENTRIES: u32 = 4096;
/// The listener's name in the epoll set, where connections go by their descriptors.
const LISTENER: u64 = u64::MAX;
const IN: EventFlags = EventFlags::IN.union(EventFlags::RDHUP).union(EventFlags::ET);
const BROKEN: EventFlags = EventFlags::ERR.union(EventFlags::HUP);

fn main() -> ExitCode {
    let Err(error) = Probe::start().and_then(|mut probe| probe.run()) else {
        return ExitCode::SUCCESS;
    };
    eprintln!("{NAME}: {error}");
    ExitCode::FAILURE
}

/// What a connection has while it is between two reads or its socket is full.
#[derive(Default)]
struct Rest {
    /// The beginning of a request or frame.
    input: Vec<u8>,
    /// What the socket did not take. As long as there is any, nothing may pass it.
    output: Vec<u8>,
}

/// 16 bytes in the table; the rest is there only once it was needed.
struct Connection {
    socket: OwnedFd,
    upgraded: bool,
    /// To be closed at the end of the turn in which its last byte is out.
    ending: bool,
    rest: Option<Box<Rest>>,
}

impl Connection {
    /// Puts what was left of the last read in front of the next.
    fn load(&self, buffer: &mut [u8]) -> usize {
        let Some(rest) = &self.rest else { return 0 };
        buffer[..rest.input.len()].copy_from_slice(&rest.input);
        rest.input.len()
    }

    fn keep(&mut self, input: &[u8]) {
        if let Some(rest) = &mut self.rest {
            rest.input.clear();
            rest.input.extend_from_slice(input);
        } else if !input.is_empty() {
            self.rest = Some(Box::new(Rest { input: input.to_vec(), output: Vec::new() }));
        }
    }

    fn tail(&mut self) -> Option<&mut Vec<u8>> {
        self.rest.as_mut().map(|rest| &mut rest.output).filter(|output| !output.is_empty())
    }

    /// Appends the answers to all that is complete in `input`; the number of bytes dealt with.
    fn answer(&mut self, input: &mut [u8], arena: &mut Vec<u8>) -> Result<usize, &'static str> {
        let mut done = 0;
        if !self.upgraded
            && let Some(end) = input.windows(4).position(|window| window == b"\r\n\r\n")
        {
            done = end + 4;
            arena.extend_from_slice(upgrade(&input[..end])?.as_bytes());
            self.upgraded = true;
        }
        while self.upgraded
            && !self.ending
            && let Some(frame) = answer_frame(&mut input[done..])?
        {
            arena.extend_from_slice(&input[done + frame.start..done + frame.end]);
            self.ending = input[done + 4] & 0xF == 8;
            done += frame.end;
        }
        if done == 0 && input.len() == BUFFER_BYTES {
            return Err("a request or frame is longer than the buffer");
        }
        Ok(done)
    }
}

/// One answer or several of one connection.
struct Send {
    fd: RawFd,
    bytes: Range<usize>,
}

/// All answers of a turn, one behind the other, and the ring that sends them.
struct Outbox {
    ring: IoUring,
    /// Made once: with the memory in place a message costs no allocation.
    arena: Vec<u8>,
    sends: Vec<Send>,
}

impl Outbox {
    fn new() -> io::Result<Self> {
        let mut builder = IoUring::builder();
        builder.setup_single_issuer().setup_defer_taskrun().setup_coop_taskrun();
        let ring = builder
            .build(RING_ENTRIES)
            .map_err(|error| io::Error::other(format!("io_uring is not to be had: {error}")))?;
        let arena = Vec::with_capacity(ARENA_BYTES);
        Ok(Self { ring, arena, sends: Vec::with_capacity(EVENTS) })
    }

    /// What stands in the arena from `start` on goes to `fd` at the end of the turn. One send a
    /// socket: after a short one a second would jump the queue.
    fn queue(&mut self, fd: RawFd, start: usize) {
        let end = self.arena.len();
        match self.sends.last_mut() {
            Some(last) if last.fd == fd => last.bytes.end = end,
            _ => self.sends.push(Send { fd, bytes: start..end }),
        }
    }

    /// Sends all and empties the arena. Tells whose bytes were not taken as a whole, with the
    /// kernel's result.
    fn flush(&mut self, mut short: impl FnMut(RawFd, i32, &[u8])) -> io::Result<()> {
        if self.sends.is_empty() {
            return Ok(());
        }
        let mut queue = self.ring.submission();
        for (number, Send { fd, bytes }) in self.sends.iter().enumerate() {
            let bytes = &self.arena[bytes.clone()];
            // Never parked, and a short send counts as failed: a completion that is left out hides
            // nothing.
            let entry = opcode::Send::new(types::Fd(*fd), bytes.as_ptr(), bytes.len() as u32)
                .flags(libc::MSG_DONTWAIT | libc::MSG_WAITALL | libc::MSG_NOSIGNAL)
                .build()
                .flags(squeue::Flags::SKIP_SUCCESS)
                .user_data(number as u64);
            // SAFETY: the entry points into the arena, which changes only after the loop below has
            // seen the kernel take every entry, and one that is taken is final: MSG_DONTWAIT keeps
            // it from being parked. When the ring fails instead, what it did not take it never will.
            unsafe { queue.push(&entry) }.map_err(io::Error::other)?;
        }
        drop(queue);
        while !self.ring.submission().is_empty() {
            match self.ring.submit().map_err(|error| (error.kind(), error)) {
                Err((io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock, _)) | Ok(_) => {}
                Err((_, error)) => return Err(error),
            }
        }
        for completion in self.ring.completion() {
            let Send { fd, bytes } = &self.sends[completion.user_data() as usize];
            short(*fd, completion.result(), &self.arena[bytes.clone()]);
        }
        self.sends.clear();
        self.arena.clear();
        Ok(())
    }
}

struct Probe {
    listener: Socket,
    epoll: OwnedFd,
    /// By descriptor, without generations: descriptors are closed behind the last event of a turn
    /// only, so no event can be of an earlier owner of the number.
    connections: Vec<Option<Connection>>,
    buffer: Vec<u8>,
    outbox: Outbox,
    ended: Vec<RawFd>,
}

impl Probe {
    fn start() -> io::Result<Self> {
        let outbox = Outbox::new()?;
        let listener = peers::listen(peers::address()?)?;
        // Inherited by what it accepts.
        listener.set_tcp_nodelay(true)?;
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        epoll::add(&epoll, &listener, EventData::new_u64(LISTENER), EventFlags::IN)?;
        let address = listener.local_addr()?.as_socket().ok_or(io::ErrorKind::Unsupported)?;
        println!("{NAME} ready on {address}");
        let (connections, ended) = (Vec::new(), Vec::new());
        Ok(Self { listener, epoll, connections, buffer: vec![0; BUFFER_BYTES], outbox, ended })
    }

    fn run(&mut self) -> io::Result<()> {
        let mut events: Vec<Event> = Vec::with_capacity(EVENTS);
        loop {
            events.clear();
            match epoll::wait(&self.epoll, spare_capacity(&mut events), None) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            for &Event { flags, data } in &events {
                if data.u64() == LISTENER {
                    self.accept_all()?;
                    continue;
                }
                let fd = data.u64() as RawFd;
                if flags.intersects(EventFlags::OUT | BROKEN) {
                    self.send_tail(fd)?;
                }
                if flags.intersects(EventFlags::IN | EventFlags::RDHUP | BROKEN) {
                    self.receive(fd, flags.intersects(EventFlags::RDHUP | BROKEN))?;
                }
            }
            self.flush()?;
            self.close_ended();
        }
    }

    fn accept_all(&mut self) -> io::Result<()> {
        loop {
            let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
            let socket = match accept_with(&self.listener, flags) {
                Ok(socket) => socket,
                Err(Errno::AGAIN) => return Ok(()),
                Err(Errno::INTR | Errno::CONNABORTED) => continue,
                Err(error) => return Err(error.into()),
            };
            let slot = socket.as_raw_fd() as usize;
            epoll::add(&self.epoll, &socket, EventData::new_u64(slot as u64), IN)?;
            if self.connections.len() <= slot {
                self.connections.resize_with(slot + 1, || None);
            }
            let connection = Connection { socket, upgraded: false, ending: false, rest: None };
            self.connections[slot] = Some(connection);
        }
    }

    /// One read, unless there may be more that no further edge will tell of: the buffer was filled,
    /// or the peer has finished, which comes together with its last bytes.
    fn receive(&mut self, fd: RawFd, hang_up: bool) -> io::Result<()> {
        loop {
            if self.outbox.arena.len() > ARENA_BYTES - ROOM_BYTES {
                self.flush()?;
            }
            let Some(connection) = &mut self.connections[fd as usize] else { return Ok(()) };
            if connection.ending {
                return Ok(());
            }
            let before = connection.load(&mut self.buffer);
            let room = &mut self.buffer[before..];
            let filled = match recv(&connection.socket, room, RecvFlags::empty()) {
                Ok((_, received @ 1..)) => before + received,
                Err(Errno::AGAIN) => return Ok(()),
                Err(Errno::INTR) => continue,
                Ok(_) | Err(_) => break,
            };
            let start = self.outbox.arena.len();
            match connection.answer(&mut self.buffer[..filled], &mut self.outbox.arena) {
                Ok(done) => connection.keep(&self.buffer[done..filled]),
                Err(fault) => {
                    eprintln!("{NAME}: {fault}");
                    break;
                }
            }
            if let Some(tail) = connection.tail() {
                tail.extend_from_slice(&self.outbox.arena[start..]);
                self.outbox.arena.truncate(start);
            } else if self.outbox.arena.len() > start {
                self.outbox.queue(fd, start);
            }
            if connection.ending {
                break;
            }
            if filled < BUFFER_BYTES && !hang_up {
                return Ok(());
            }
        }
        self.end(fd);
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        let Self { outbox, connections, epoll, ended, .. } = self;
        let mut outcome = Ok(());
        outbox.flush(|fd, result, bytes| {
            let Some(connection) = &mut connections[fd as usize] else { return };
            if result < 0 && result != -libc::EAGAIN {
                connection.ending = true;
                ended.push(fd);
                return;
            }
            let sent = usize::try_from(result).unwrap_or(0);
            connection.rest.get_or_insert_default().output.extend_from_slice(&bytes[sent..]);
            outcome = outcome.and(watch(epoll, connection, IN | EventFlags::OUT));
        })?;
        Ok(outcome?)
    }

    /// Sends what the socket did not take before; it has room again, or is broken.
    fn send_tail(&mut self, fd: RawFd) -> io::Result<()> {
        let Some(connection) = &mut self.connections[fd as usize] else { return Ok(()) };
        while let Connection { socket, rest: Some(rest), ending, .. } = connection
            && !rest.output.is_empty()
        {
            match send(socket, &rest.output, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
                Ok(sent) => drop(rest.output.drain(..sent)),
                Err(Errno::AGAIN) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(_) => {
                    rest.output.clear();
                    *ending = true;
                }
            }
        }
        if connection.ending {
            self.ended.push(fd);
            return Ok(());
        }
        Ok(watch(&self.epoll, connection, IN)?)
    }

    fn end(&mut self, fd: RawFd) {
        if let Some(connection) = &mut self.connections[fd as usize] {
            connection.ending = true;
        }
        self.ended.push(fd);
    }

    /// After the sends: until then the number of a closed descriptor could pass to another.
    fn close_ended(&mut self) {
        for fd in self.ended.drain(..) {
            let slot = &mut self.connections[fd as usize];
            if slot.as_mut().is_some_and(|connection| connection.tail().is_none()) {
                *slot = None;
            }
        }
    }
}

fn watch(epoll: &OwnedFd, connection: &Connection, flags: EventFlags) -> rustix::io::Result<()> {
    let data = EventData::new_u64(connection.socket.as_raw_fd() as u64);
    epoll::modify(epoll, &connection.socket, data, flags)
}
