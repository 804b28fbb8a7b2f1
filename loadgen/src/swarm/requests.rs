//! Prepared bytes: a handshake with everything that can go with it in one send.

use std::fmt::Write;

use codec::binary::PREFACE;
use codec::ws::{self, Opcode, handshake};

use crate::client::{self, Protocol, Request, Scratch};
use crate::plan::Plan;
use crate::rng::Rng;

/// Who a connection is.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Who<'a> {
    /// Nobody: a handshake without login.
    Nobody,
    /// A user by name (development login).
    Name(&'a str),
    /// The owner of an access token.
    Token(&'a str),
}

/// Writes what connections send first, without allocating for each of them. All handshakes of a run have
/// the same nonce, so that their answers are the same too.
pub(crate) struct Requests {
    protocol: Protocol,
    hosts: Vec<String>,
    /// Per target the path with everything up to the user's name.
    by_name: Vec<String>,
    plain: Vec<String>,
    path: String,
    bearer: String,
    nonce: [u8; 16],
    mask: [u8; 4],
    scratch: Scratch,
}

impl Requests {
    pub(crate) fn new(plan: &Plan) -> Self {
        let mut rng = Rng::fork(plan.seed, 0x51);
        let targets = &plan.targets;
        Self {
            protocol: plan.options.protocol,
            hosts: targets.iter().map(|target| target.host.clone()).collect(),
            by_name: targets.iter().map(|t| t.path_and_query(Some(("user_id", "")))).collect(),
            plain: targets.iter().map(|target| target.path_and_query(None)).collect(),
            path: String::new(),
            bearer: String::new(),
            nonce: rng.nonce(),
            mask: rng.mask(),
            scratch: Scratch::default(),
        }
    }

    /// The nonce of every handshake.
    pub(crate) fn nonce(&self) -> [u8; 16] {
        self.nonce
    }

    /// Appends everything up to the login (in the JSON protocol it is part of the handshake) for the
    /// `nth` connection.
    pub(crate) fn open(&mut self, out: &mut Vec<u8>, nth: u32, who: Who<'_>) {
        let json = self.protocol == Protocol::Json;
        if self.protocol.is_websocket() {
            self.handshake(out, nth, if json { who } else { Who::Nobody });
        } else {
            out.extend_from_slice(&PREFACE);
        }
        let (token, dev_user) = match who {
            Who::Nobody => return,
            Who::Name(name) => ("", name),
            Who::Token(token) => (token, ""),
        };
        if !json {
            self.request(out, &Request::Hello { token, dev_user });
        }
    }

    fn handshake(&mut self, out: &mut Vec<u8>, nth: u32, who: Who<'_>) {
        let target = nth as usize % self.hosts.len();
        self.path.clear();
        self.bearer.clear();
        // Writing to a string cannot fail.
        let _ = match who {
            Who::Nobody => write!(self.path, "{}", self.plain[target]),
            Who::Name(name) => write!(self.path, "{}{name}", self.by_name[target]),
            Who::Token(token) => write!(self.path, "{}", self.plain[target])
                .and_then(|()| write!(self.bearer, "bearer.{token}")),
        };
        let both = ["corelane.json.v1", self.bearer.as_str()];
        let protocols = if self.bearer.is_empty() { &both[..0] } else { &both[..] };
        let (host, path) = (&self.hosts[target], &self.path);
        handshake::write_client_request(out, host, path, protocols, self.nonce);
    }

    /// Appends a request of the protocol. A heartbeat behind a login by handshake is answered once the
    /// login is done, which nothing else tells.
    pub(crate) fn request(&mut self, out: &mut Vec<u8>, request: &Request<'_>) {
        client::encode(self.protocol, request, &mut self.scratch, out, self.mask);
    }

    /// Appends one WebSocket frame.
    pub(crate) fn frame(&self, out: &mut Vec<u8>, opcode: Opcode, payload: &[u8]) {
        ws::encode_frame_masked(out, opcode, payload, self.mask);
    }
}
