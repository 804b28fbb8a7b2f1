//! Before the load: every conversation is made by its first member once all its members are logged in.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

use super::{Chat, request};
use crate::client::{Failure, Request};
use crate::net::Net;

/// Requests under way at a time.
const IN_FLIGHT_MAX: u32 = 256;
/// Members the create call may name; the others join.
const NAMED_MAX: u32 = proto::limits::CREATE_MEMBERS_MAX as u32 - 1;

/// One conversation.
#[derive(Debug, Default)]
pub(super) struct Room {
    /// Empty until the server has named or confirmed it.
    pub(super) id: Box<str>,
    logged_in: u32,
    /// Members that still have to join.
    joining: u32,
    open: bool,
}

impl Room {
    /// Whether messages can be sent.
    pub(super) fn is_open(&self) -> bool {
        self.open
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Job {
    Create(u32),
    Join(u32),
}

impl Job {
    fn connection(self, size: u32) -> u32 {
        match self {
            Self::Create(room) => room * size,
            Self::Join(conn) => conn,
        }
    }
}

/// What is still to be asked for.
#[derive(Debug)]
pub(super) struct Setup {
    jobs: VecDeque<Job>,
    later: BinaryHeap<Reverse<(u64, Job)>>,
    in_flight: Vec<Job>,
    rooms_left: u32,
}

impl Setup {
    pub(super) fn new(rooms: u32) -> Self {
        Self {
            jobs: VecDeque::new(),
            later: BinaryHeap::new(),
            in_flight: Vec::new(),
            rooms_left: rooms,
        }
    }

    pub(super) fn is_done(&self) -> bool {
        self.rooms_left == 0
    }

    /// Takes the job of a connection whose answer came.
    fn answered(&mut self, conn: u32, size: u32) -> Option<Job> {
        let at = self.in_flight.iter().position(|job| job.connection(size) == conn)?;
        Some(self.in_flight.swap_remove(at))
    }
}

impl Chat {
    /// A member of a room that is not open yet is logged in.
    pub(super) fn on_member_ready(&mut self, net: &mut Net, conn: u32, again: bool) {
        if again {
            return;
        }
        let room = conn / self.size;
        let books = &mut self.rooms[room as usize];
        books.logged_in += 1;
        if books.logged_in == self.size {
            self.setup.jobs.push_back(Job::Create(room));
            self.pump_setup(net);
        }
    }

    /// The answer to a broken connection's request will not come: ask again when it is back.
    pub(super) fn on_member_gone(&mut self, conn: u32) {
        if let Some(job) = self.setup.answered(conn, self.size) {
            self.setup.jobs.push_back(job);
        }
    }

    pub(super) fn pump_setup(&mut self, net: &mut Net) {
        while let Some(&Reverse((at_ns, job))) = self.setup.later.peek() {
            if at_ns > net.now_ns {
                break;
            }
            self.setup.later.pop();
            self.setup.jobs.push_back(job);
        }
        for _ in 0..self.setup.jobs.len() {
            if self.setup.in_flight.len() >= IN_FLIGHT_MAX as usize {
                return;
            }
            let Some(job) = self.setup.jobs.pop_front() else { return };
            if net.is_active(job.connection(self.size)) {
                self.setup.in_flight.push(job);
                self.ask(net, job);
            } else {
                self.setup.jobs.push_back(job);
            }
        }
    }

    fn ask(&mut self, net: &mut Net, job: Job) {
        match job {
            Job::Create(room) => {
                let connections = self.connections(room);
                let global = self.share.global(connections.start);
                let named = (self.size - 1).min(NAMED_MAX);
                let members: Vec<String> =
                    (1..=named).map(|i| net.plan.user_name(global + i)).collect();
                let group_id =
                    net.plan.options.group_size.map(|_| net.plan.group_id(global / self.size));
                let (request_id, group_id) = (request::CREATE, group_id.as_deref());
                net.request(
                    connections.start,
                    &Request::Create { request_id, group_id, members: &members },
                );
            }
            Job::Join(conn) => {
                let conversation_id = &self.rooms[(conn / self.size) as usize].id;
                net.request(conn, &Request::Join { request_id: request::JOIN, conversation_id });
            }
        }
    }

    /// A conversation was made, or somebody joined it.
    pub(super) fn on_conversation(&mut self, net: &mut Net, conn: u32, id: &str) {
        match self.setup.answered(conn, self.size) {
            Some(Job::Create(room)) => self.created(room, id),
            Some(Job::Join(conn)) => self.joined(conn / self.size),
            None => {}
        }
        self.pump_setup(net);
    }

    fn created(&mut self, room: u32, id: &str) {
        let first_unnamed = self.connections(room).start + 1 + NAMED_MAX;
        let unnamed = first_unnamed..self.connections(room).end.max(first_unnamed);
        let books = &mut self.rooms[room as usize];
        books.id = id.into();
        books.joining = unnamed.len() as u32;
        self.setup.jobs.extend(unnamed.map(Job::Join));
        self.open_if_complete(room);
    }

    fn joined(&mut self, room: u32) {
        let books = &mut self.rooms[room as usize];
        books.joining = books.joining.saturating_sub(1);
        self.open_if_complete(room);
    }

    fn open_if_complete(&mut self, room: u32) {
        let books = &mut self.rooms[room as usize];
        if books.joining == 0 && !books.open {
            books.open = true;
            self.setup.rooms_left -= 1;
        }
    }

    pub(super) fn on_setup_failed(
        &mut self,
        net: &mut Net,
        conn: u32,
        failure: &Failure<'_>,
        retry_ns: Option<u64>,
    ) {
        let Some(job) = self.setup.answered(conn, self.size) else { return };
        match (retry_ns, job) {
            (Some(at_ns), _) => self.setup.later.push(Reverse((at_ns, job))),
            // The answer to an earlier try was lost.
            (None, Job::Create(room)) if failure.name == "ALREADY_EXISTS" => {
                let id = net.plan.group_id(self.share.global(conn) / self.size);
                self.created(room, &id);
            }
            (None, _) => {
                net.stats.error(&format!("SETUP_{}: {}", failure.name, failure.detail));
                net.stats.counters.setup_failures += 1;
                self.setup.rooms_left = self.setup.rooms_left.saturating_sub(1);
            }
        }
        self.pump_setup(net);
    }
}
