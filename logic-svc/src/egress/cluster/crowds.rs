//! Large groups: who is in them is told to all gateways, and crossing the threshold is told to whoever switches.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use proto::v1::{InterestChange, SpreadInterest, Task, task};

use super::records::Records;
use crate::domain::delivery::GatewayNo;
use crate::domain::{ConversationNo, UserId};
use crate::gateways::Gateways;
use crate::ports::{
    Crowds, Fanout, MembersChanged, PushOut, Reports, Sessions, StoreError, TaskOut,
};

/// Conversations looked up at a time after the threshold changed.
const PAGE: u32 = 500;

/// How long gateways may take to be told before whoever joins is asked to try again.
const TELL_LIMIT: Duration = Duration::from_secs(5);

/// How many members make a group large. May change while the service runs.
#[derive(Clone, Debug)]
pub struct Threshold(Arc<AtomicU32>);

impl Threshold {
    /// So many members.
    #[must_use]
    pub fn new(members: u32) -> Self {
        Self(Arc::new(AtomicU32::new(members.max(1))))
    }

    /// Other than before from now on; whether that is another number. [`CrowdWatch::threshold_changed`] is for groups
    /// that are on the other side of it now.
    pub fn set(&self, members: u32) -> bool {
        let members = members.max(1);
        self.0.swap(members, Ordering::Relaxed) != members
    }

    /// From here on a group is large.
    #[must_use]
    pub fn up(&self) -> u32 {
        self.0.load(Ordering::Relaxed)
    }

    /// Below this a large group is small again: some way under `up`, so that a group at the edge does not go to and
    /// fro. From here on gateways hear who joins, so that they know everybody when the group becomes large.
    #[must_use]
    pub fn down(&self) -> u32 {
        let up = self.up();
        up - up / 5
    }
}

/// Watches groups whose members change.
#[derive(Clone)]
pub struct CrowdWatch {
    gateways: Arc<Gateways>,
    crowds: Arc<dyn Crowds>,
    out: Arc<dyn PushOut>,
    tasks: Arc<dyn TaskOut>,
    sessions: Arc<dyn Sessions>,
    reports: Arc<dyn Reports>,
    threshold: Threshold,
}

impl CrowdWatch {
    /// Watches with these.
    pub fn new(
        gateways: Arc<Gateways>,
        crowds: Arc<dyn Crowds>,
        out: Arc<dyn PushOut>,
        tasks: Arc<dyn TaskOut>,
        sessions: Arc<dyn Sessions>,
        reports: Arc<dyn Reports>,
        threshold: Threshold,
    ) -> Self {
        Self { gateways, crowds, out, tasks, sessions, reports, threshold }
    }

    /// How many members make a group large.
    #[must_use]
    pub fn threshold(&self) -> &Threshold {
        &self.threshold
    }

    /// Told after the change is stored and before it is answered: whoever gives the conversation's messages their
    /// places is told, and of large groups every gateway. May be told twice.
    ///
    /// # Errors
    /// Some of them could not be told: whoever asked is to repeat the request.
    pub fn changed(&self, change: &MembersChanged<'_>) -> Result<(), StoreError> {
        let MembersChanged { conversation_id, is_new, .. } = *change;
        let announced = if is_new { Ok(()) } else { self.announce(conversation_id) };
        // Whoever cannot be told keeps nobody else from hearing of it.
        self.crowd_changed(change).and(announced)
    }

    /// The same for who gives the messages their places himself.
    ///
    /// # Errors
    /// Gateways could not be told: the change is to be told again.
    pub fn crowd_changed(&self, change: &MembersChanged<'_>) -> Result<(), StoreError> {
        let MembersChanged { conversation_id, joined, left, .. } = *change;
        let Some(crowd) = self.crowds.crowd(conversation_id)? else { return Ok(()) };
        let large = crowd.fanout == Fanout::Read;
        if large || crowd.members >= self.threshold.down() {
            self.tell(conversation_id, joined, left)?;
            self.listen(crowd.no, joined)?;
        }
        let wanted = match crowd.fanout {
            Fanout::Write if crowd.members >= self.threshold.up() => true,
            Fanout::Read if crowd.members < self.threshold.down() => false,
            _ => return Ok(()),
        };
        self.tasks.hand_over(conversation_id, spread(conversation_id, wanted))
    }

    /// Told after the threshold changed: hands over the switch of every group that is on the other side of it now.
    /// Every service does, so that the last one to hear of it comes after all have; what is done is not done again.
    ///
    /// # Errors
    /// Some were not handed over; may be told again.
    pub fn threshold_changed(&self) -> Result<(), StoreError> {
        let mut after: ConversationNo = 0;
        loop {
            let (up, down) = (self.threshold.up(), self.threshold.down());
            let misfits = self.crowds.misfits(up, down, after, PAGE)?;
            for (group, fanout) in &misfits {
                self.tasks.hand_over(&group.id, spread(&group.id, *fanout == Fanout::Read))?;
            }
            match misfits.last() {
                Some((last, _)) if misfits.len() >= PAGE as usize => after = last.no,
                _ => return Ok(()),
            }
        }
    }

    /// The gateways of those who came in get the messages from now on.
    fn listen(&self, no: ConversationNo, joined: &[UserId]) -> Result<(), StoreError> {
        if joined.is_empty() {
            return Ok(());
        }
        let connections = self.sessions.of(joined)?;
        let mut gateways: Vec<GatewayNo> = connections.iter().map(|c| c.gateway).collect();
        gateways.sort_unstable();
        gateways.dedup();
        gateways.into_iter().try_for_each(|gateway| self.reports.interested(gateway, &[no]))
    }

    /// Tells every gateway that lives who came and went, and waits until that is on its way for good.
    ///
    /// # Errors
    /// It is not.
    pub fn tell(
        &self,
        conversation_id: &str,
        joined: &[UserId],
        left: &[UserId],
    ) -> Result<(), StoreError> {
        let conversation_id = conversation_id.to_owned();
        let (joined, left) = (joined.to_vec(), left.to_vec());
        self.send(&InterestChange { conversation_id, joined, left, forget: false })
    }

    /// Tells whoever gives the conversation's messages their places that it is not what it was.
    ///
    /// # Errors
    /// It is not known to be on its way.
    pub fn announce(&self, conversation_id: &str) -> Result<(), StoreError> {
        self.tasks.announce(conversation_id)
    }

    /// Tells every gateway that lives that the conversation is no longer large.
    ///
    /// # Errors
    /// They could not be told.
    pub fn forget(&self, conversation_id: &str) -> Result<(), StoreError> {
        let conversation_id = conversation_id.to_owned();
        self.send(&InterestChange { conversation_id, forget: true, ..InterestChange::default() })
    }

    fn send(&self, change: &InterestChange) -> Result<(), StoreError> {
        let mut records = Records::new(Arc::clone(&self.gateways));
        for gateway in self.gateways.reachable() {
            records.interest(gateway, change.clone());
        }
        self.out.push_and_wait(records.finish(), TELL_LIMIT)
    }
}

fn spread(conversation_id: &str, large: bool) -> Task {
    let conversation_id = conversation_id.to_owned();
    Task { task: Some(task::Task::SpreadInterest(SpreadInterest { conversation_id, large })) }
}
