//! What goes out on a connection: written by a thread of its own, so that one who does not read holds up
//! nobody else. Beyond a bound pushes are left out, and a notice to lag takes their place.

use std::io::Write;
use std::net::{Shutdown, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use super::wire::{self, Answer, Form};

/// Bytes that may wait for one who does not read.
const WAITING_MAX: usize = 64 * 1024;

#[derive(Default)]
struct State {
    waiting: Vec<u8>,
    /// A notice to lag that takes the place of pushes.
    lagged: Option<Vec<u8>>,
    finished: bool,
    /// Everything is written.
    idle: bool,
}

pub(crate) struct Writer {
    stream: TcpStream,
    state: Mutex<State>,
    changed: Condvar,
}

impl Writer {
    pub(crate) fn start(stream: &TcpStream) -> Arc<Self> {
        // So that little waits in the kernel.
        rustix::net::sockopt::set_socket_send_buffer_size(stream, 4096).expect("a socket");
        let writer = Arc::new(Self {
            stream: stream.try_clone().expect("a socket"),
            state: Mutex::default(),
            changed: Condvar::new(),
        });
        let own = Arc::clone(&writer);
        std::thread::spawn(move || own.write());
        writer
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) {
        let mut stream = &self.stream;
        let mut state = self.state();
        loop {
            if state.waiting.is_empty()
                && let Some(notice) = state.lagged.take()
            {
                state.waiting = notice;
            }
            if state.waiting.is_empty() {
                state.idle = true;
                self.changed.notify_all();
                if state.finished {
                    return;
                }
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            state.idle = false;
            let bytes = std::mem::take(&mut state.waiting);
            drop(state);
            // A peer that is gone shows at the next read.
            let _ = stream.write_all(&bytes);
            state = self.state();
        }
    }

    fn push(&self, bytes: &[u8]) {
        let mut state = self.state();
        state.waiting.extend_from_slice(bytes);
        state.idle = false;
        self.changed.notify_all();
    }

    pub(crate) fn say_goodbye(&self, code: u16) {
        let mut bytes = Vec::new();
        codec::ws::encode_close(&mut bytes, code, "");
        self.push(&bytes);
    }

    /// Everything goes out, and nothing more.
    pub(crate) fn finish(&self) {
        let mut state = self.state();
        state.finished = true;
        self.changed.notify_all();
        let patience = std::time::Duration::from_secs(1);
        let busy = |state: &mut State| !state.idle;
        drop(self.changed.wait_timeout_while(state, patience, busy));
    }
}

/// One connection's way out.
#[derive(Clone)]
pub(crate) struct Out {
    writer: Arc<Writer>,
    form: Form,
}

impl Out {
    pub(crate) fn new(writer: &Arc<Writer>, form: Form) -> Self {
        Self { writer: Arc::clone(writer), form }
    }

    fn encode(&self, answer: &Answer) -> Vec<u8> {
        let mut bytes = Vec::new();
        wire::encode(self.form, answer, &mut bytes);
        bytes
    }

    pub(crate) fn send(&self, answer: &Answer) {
        self.writer.push(&self.encode(answer));
    }

    /// Sends a push, or leaves it out when too much waits.
    pub(crate) fn send_push(&self, answer: &Answer, conversation: &str, from_seq: u64) {
        let mut state = self.writer.state();
        if state.lagged.is_some() {
            return;
        }
        if state.waiting.len() > WAITING_MAX {
            let conversation = conversation.to_owned();
            state.lagged = Some(self.encode(&Answer::Lagged { conversation, from_seq }));
            return;
        }
        drop(state);
        self.send(answer);
    }

    pub(crate) fn shutdown(&self) {
        let _ = self.writer.stream.shutdown(Shutdown::Both);
    }
}
