//! Before anybody is online to stay: the group is made and every member joins it, few at a time, so that
//! the news of a join reaches few.

use std::collections::{BTreeMap, VecDeque};
use std::io;

use crate::client::{Incoming, Request};
use crate::clock::{self, MILLISECOND_NS, SECOND_NS};
use crate::plan::{Plan, Share};
use crate::stats::Stats;
use crate::swarm::answers::{Answers, Form, Said};
use crate::swarm::requests::{Requests, Who};
use crate::swarm::{Drive, End, Opening, Swarm};
use crate::talk::Link;

/// Joins under way in the whole run.
const IN_FLIGHT: u32 = 32;
/// A join that takes longer is tried again.
const PATIENCE_NS: u64 = 10 * SECOND_NS;
/// Before a failed one is tried again.
const BACK_OFF_NS: u64 = 20 * MILLISECOND_NS;
const REQUEST_ID: u32 = 3;

/// What is left of the joining.
#[derive(Debug, Default)]
pub(crate) struct Joined {
    /// Members that could not join.
    pub(super) failed: u64,
    /// Why, by name.
    pub(super) errors: BTreeMap<String, u64>,
}

#[derive(Clone, Copy, Default)]
struct Entry {
    user: u32,
    since_ns: u64,
    form: Form,
    unsent: bool,
}

struct Join<'p> {
    plan: &'p Plan,
    group: String,
    requests: Requests,
    answers: Answers,
    entries: Vec<Entry>,
    free: Vec<u32>,
    /// Members (over all workers) that still have to join, and not before when.
    queue: VecDeque<(u32, u64)>,
    wanted: u32,
    joined: u32,
    /// The group's first member makes it; until then nobody else asks.
    made: bool,
    out: Vec<u8>,
    stats: Stats,
}

/// Lets the worker's members join, and waits for those of the others.
pub(crate) fn join(plan: &Plan, share: &Share, link: &mut Link<'_>) -> io::Result<Joined> {
    let slots = (IN_FLIGHT / share.workers).max(1);
    let mut swarm = Swarm::new(plan, slots, share.worker)?;
    let mut run = Join::new(plan, share, slots);
    let deadline_ns = clock::now_ns() + clock::duration_ns(plan.options.setup_timeout);
    while run.joined < run.wanted && swarm.now_ns < deadline_ns && !link.stopped {
        run.start_some(&mut swarm);
        swarm.turn(&mut run, swarm.now_ns + 20 * MILLISECOND_NS)?;
        run.expire(&mut swarm);
        link.poll(swarm.now_ns, &run.stats)?;
    }
    let failed = u64::from(run.wanted - run.joined);
    if failed == 0 {
        run.stats.errors.clear();
    }
    link.reach(super::gate::JOINED);
    link.wait(|link| link.opened_ns(super::gate::JOINED).is_some())?;
    Ok(Joined { failed, errors: run.stats.errors })
}

impl<'p> Join<'p> {
    fn new(plan: &'p Plan, share: &Share, slots: u32) -> Self {
        let requests = Requests::new(plan);
        let online = (0..share.connections()).map(|local| share.global(local));
        let members: VecDeque<u32> = online.chain(plan.offline(share)).collect();
        Self {
            plan,
            group: plan.group_id(0),
            answers: Answers::new(requests.nonce()),
            requests,
            entries: vec![Entry::default(); slots as usize],
            free: (0..slots).collect(),
            wanted: members.len() as u32,
            queue: members.into_iter().map(|user| (user, 0)).collect(),
            joined: 0,
            made: share.worker != 0,
            out: Vec::new(),
            stats: Stats::default(),
        }
    }

    fn start_some(&mut self, swarm: &mut Swarm) {
        while let (Some(&slot), Some(&(user, not_before_ns))) =
            (self.free.last(), self.queue.front())
        {
            let alone = !self.made && swarm.live() > 0;
            if not_before_ns > swarm.now_ns || alone {
                return;
            }
            self.free.pop();
            self.queue.pop_front();
            self.start(swarm, slot, user);
        }
    }

    fn start(&mut self, swarm: &mut Swarm, slot: u32, user: u32) {
        let form = Form::first(self.plan.options.protocol);
        self.entries[slot as usize] = Entry { user, since_ns: swarm.now_ns, form, unsent: false };
        self.write_request(user);
        let opening = Opening { first: &self.out, ..Opening::default() };
        match swarm.open(slot, user, opening) {
            Ok(sent) => self.entries[slot as usize].unsent = !sent,
            Err(error) => self.again(swarm, slot, &format!("CONNECT_{:?}", error.kind())),
        }
    }

    fn write_request(&mut self, user: u32) {
        let name = self.plan.user_name(user);
        self.out.clear();
        self.requests.open(&mut self.out, user, Who::Name(&name));
        let request = if self.made {
            Request::Join { request_id: REQUEST_ID, conversation_id: &self.group }
        } else {
            Request::Create { request_id: REQUEST_ID, group_id: Some(&self.group), members: &[] }
        };
        self.requests.request(&mut self.out, &request);
    }

    fn leave(&mut self, swarm: &mut Swarm, slot: u32) {
        swarm.close(slot, true);
        self.answers.forget(slot);
        self.free.push(slot);
    }

    fn again(&mut self, swarm: &mut Swarm, slot: u32, name: &str) {
        self.stats.error(&format!("JOIN: {name}"));
        self.leave(swarm, slot);
        let user = self.entries[slot as usize].user;
        let back = (user, swarm.now_ns + BACK_OFF_NS);
        // Whoever makes the group stays first.
        if self.made { self.queue.push_back(back) } else { self.queue.push_front(back) }
    }

    fn expire(&mut self, swarm: &mut Swarm) {
        for slot in 0..self.entries.len() as u32 {
            let since_ns = self.entries[slot as usize].since_ns;
            if swarm.is_open(slot) && swarm.now_ns.saturating_sub(since_ns) > PATIENCE_NS {
                self.again(swarm, slot, "TIMEOUT");
            }
        }
    }
}

impl Drive for Join<'_> {
    fn on_writable(&mut self, swarm: &mut Swarm, slot: u32) {
        if std::mem::take(&mut self.entries[slot as usize].unsent) {
            self.write_request(self.entries[slot as usize].user);
            if swarm.send(slot, &self.out) < self.out.len() {
                self.again(swarm, slot, "SEND");
            }
        }
    }

    fn on_bytes(&mut self, swarm: &mut Swarm, slot: u32, bytes: &mut [u8]) {
        let mut form = self.entries[slot as usize].form;
        let (mut done, mut wrong) = (false, None);
        self.answers.read(slot, &mut form, bytes, &mut |said| {
            match said {
                Said::Frame(Incoming::Conversation { request_id: REQUEST_ID, .. }) => done = true,
                // The answer to an earlier try was lost.
                Said::Frame(Incoming::Failed(failure)) if failure.name == "ALREADY_EXISTS" => {
                    done = true
                }
                Said::Frame(Incoming::Failed(failure)) => wrong = Some(failure.name.into_owned()),
                Said::Upgraded | Said::Frame(_) => return true,
                Said::Status(status) => wrong = Some(format!("STATUS_{status}")),
                Said::Close(code) => wrong = Some(format!("CLOSE_{code}")),
                Said::Nonsense(text) => wrong = Some(text),
            }
            false
        });
        self.entries[slot as usize].form = form;
        if done {
            self.made = true;
            self.joined += 1;
            self.leave(swarm, slot);
        } else if let Some(name) = wrong {
            self.again(swarm, slot, &name);
        }
    }

    fn on_end(&mut self, swarm: &mut Swarm, slot: u32, end: End) {
        self.again(swarm, slot, &format!("CLOSED_{end:?}"));
    }
}
