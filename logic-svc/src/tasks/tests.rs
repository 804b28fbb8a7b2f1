use std::sync::Mutex;

use proto::v1::{GatewayReport, InterestChange, PushRecord, SpreadInterest};

use super::spread::{Spread, forget, spread};
use super::*;
use crate::domain::delivery::{ConnectionId, GatewayNo};
use crate::domain::{ConversationNo, UserId};
use crate::egress::cluster::Threshold;
use crate::ports::{
    Crowd, Fanout, Large, Login, MembersChanged, PushOut, Reported, SessionChange, Sessions,
    TaskOut, UserState, Watches,
};

/// One group, and everything that was done, in its order.
struct Group {
    crowd: Mutex<Crowd>,
    done: Mutex<Vec<String>>,
    /// Whether Kafka is away.
    away: bool,
    /// Whether only the reader of the group's messages cannot be told.
    deaf: AtomicBool,
}

impl Group {
    fn note(&self, what: impl Into<String>) {
        self.done.lock().unwrap().push(what.into());
    }

    fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.done.lock().unwrap())
    }

    fn told(&self, change: &InterestChange) {
        let InterestChange { joined, left, forget, .. } = change;
        self.note(if *forget {
            "forget".to_owned()
        } else {
            format!("joined {joined:?} left {left:?}")
        });
    }
}

impl Crowds for Group {
    fn large_of(&self, users: &[UserId], _: u32) -> Result<Vec<Vec<Large>>, StoreError> {
        Ok(vec![Vec::new(); users.len()])
    }
    fn crowd(&self, id: &str) -> Result<Option<Crowd>, StoreError> {
        Ok((id == "g").then_some(*self.crowd.lock().unwrap()))
    }
    fn set_fanout(&self, _: ConversationNo, fanout: Fanout) -> Result<(), StoreError> {
        self.crowd.lock().unwrap().fanout = fanout;
        self.note(format!("{fanout:?}"));
        Ok(())
    }
    fn members_after(
        &self,
        _: ConversationNo,
        after: UserId,
        _: u32,
    ) -> Result<Vec<UserId>, StoreError> {
        let members = u64::from(self.crowd.lock().unwrap().members);
        Ok((after + 1..=members).collect())
    }
    fn misfits(
        &self,
        up: u32,
        down: u32,
        after: ConversationNo,
        _: u32,
    ) -> Result<Vec<(Large, Fanout)>, StoreError> {
        let crowd = *self.crowd.lock().unwrap();
        let right = match crowd.fanout {
            Fanout::Write if crowd.members >= up => Fanout::Read,
            Fanout::Read if crowd.members < down => Fanout::Write,
            _ => return Ok(Vec::new()),
        };
        let group = Large { no: crowd.no, id: "g".to_owned() };
        Ok((crowd.no > after).then_some((group, right)).into_iter().collect())
    }
}

impl PushOut for Group {
    fn push(&self, _: Vec<(GatewayNo, PushRecord)>) {}
    fn push_and_wait(
        &self,
        records: Vec<(GatewayNo, PushRecord)>,
        _: Duration,
    ) -> Result<(), StoreError> {
        if self.away {
            return Err(StoreError::Unavailable("away".to_owned()));
        }
        for (_, record) in records {
            record.interests.iter().for_each(|change| self.told(change));
        }
        Ok(())
    }
}

impl TaskOut for Group {
    fn hand_over(&self, _: &str, task: Task) -> Result<(), StoreError> {
        if let Some(task::Task::SpreadInterest(SpreadInterest { large, .. })) = task.task {
            self.note(format!("task large={large}"));
        }
        Ok(())
    }
    fn announce(&self, id: &str) -> Result<(), StoreError> {
        if self.away || self.deaf.load(Ordering::Relaxed) {
            return Err(StoreError::Unavailable("away".to_owned()));
        }
        self.note(format!("announced {id}"));
        Ok(())
    }
}

impl Reports for Group {
    fn report(&self, _: GatewayNo, _: &GatewayReport) -> Result<Reported, StoreError> {
        Ok(Reported::default())
    }
    fn interested(&self, gateway: GatewayNo, nos: &[ConversationNo]) -> Result<(), StoreError> {
        self.note(format!("gateway {gateway} listens to {nos:?}"));
        Ok(())
    }
    fn group(&self, _: ConversationNo, large: bool) -> Result<(), StoreError> {
        self.note(format!("counted={large}"));
        Ok(())
    }
    fn forget(&self, gateway: GatewayNo) -> Result<(), StoreError> {
        self.note(format!("gateway {gateway} forgotten"));
        Ok(())
    }
    fn count(&self, _: GatewayNo) -> Option<u32> {
        None
    }
    fn is_up(&self) -> bool {
        true
    }
}

impl Sessions for Group {
    fn change(
        &self,
        _: usize,
        _: &mut dyn FnMut() -> Vec<SessionChange>,
        _: &mut dyn FnMut(Vec<Login>),
    ) -> Result<(), StoreError> {
        Ok(())
    }
    fn of(&self, users: &[UserId]) -> Result<Vec<ConnectionId>, StoreError> {
        let on = |&user: &UserId| ConnectionId {
            gateway: user as u32,
            shard: 0,
            slot: 0,
            generation: 0,
        };
        Ok(users.iter().map(on).collect())
    }
}

impl Watches for Group {
    fn states(&self, users: &[UserId]) -> Result<Vec<UserState>, StoreError> {
        Ok(vec![UserState::default(); users.len()])
    }
    fn watch(&self, _: ConnectionId, users: &[UserId]) -> Result<Vec<UserState>, StoreError> {
        self.states(users)
    }
}

impl DeadLetters for Group {
    fn keep(&self, letter: &NewDeadLetter<'_>) -> Result<(), StoreError> {
        self.note(format!("kept {}", letter.reason));
        Ok(())
    }
    fn page(&self, _: u64, _: u32) -> Result<Vec<proto::v1::DeadLetter>, StoreError> {
        Ok(Vec::new())
    }
    fn get(&self, _: u64) -> Result<Option<proto::v1::DeadLetter>, StoreError> {
        Ok(None)
    }
    fn replayed(&self, _: u64) -> Result<(), StoreError> {
        Ok(())
    }
}

/// A group of so many, large from 5 on and small below 4, with one gateway that lives.
fn parts(members: u32, fanout: Fanout, away: bool) -> (Arc<Group>, Parts) {
    let crowd = Mutex::new(Crowd { no: 7, members, fanout });
    let group =
        Arc::new(Group { crowd, done: Mutex::default(), away, deaf: AtomicBool::default() });
    let gateways = Arc::new(Gateways::default());
    gateways.set_live([("gw".to_owned(), 2)]);
    let watch = CrowdWatch::new(
        Arc::clone(&gateways),
        group.clone(),
        group.clone(),
        group.clone(),
        group.clone(),
        group.clone(),
        Threshold::new(5),
    );
    let parts = Parts {
        gateways,
        crowds: group.clone(),
        watch,
        reports: group.clone(),
        letters: group.clone(),
        stop: Arc::new(AtomicBool::new(false)),
    };
    (group, parts)
}

fn task(large: bool) -> SpreadInterest {
    SpreadInterest { conversation_id: "g".to_owned(), large }
}

#[test]
fn everybody_is_known_before_the_switch_and_it_comes_before_the_forgetting() {
    let (group, parts) = parts(5, Fanout::Write, false);
    let wait = |_| group.note("wait");
    assert_eq!(spread(&parts, &task(true), &wait).unwrap(), Spread::Large);
    let all = "joined [1, 2, 3, 4, 5] left []";
    assert_eq!(group.take(), ["counted=true", all, "wait", all, "Read", "announced g"]);
    assert_eq!(spread(&parts, &task(true), &wait).unwrap(), Spread::Nothing, "done twice");
    group.crowd.lock().unwrap().members = 3;
    assert!(matches!(spread(&parts, &task(false), &wait).unwrap(), Spread::Small(_)));
    assert_eq!(group.take(), ["Write", "announced g"]);
    forget(&parts, "g").unwrap();
    assert_eq!(group.take(), ["counted=false", "forget"]);
}

#[test]
fn a_group_that_changed_its_mind_is_left_alone() {
    for (members, fanout, large) in
        [(3, Fanout::Write, true), (5, Fanout::Read, false), (4, Fanout::Read, false)]
    {
        let (group, parts) = parts(members, fanout, false);
        assert_eq!(spread(&parts, &task(large), &|_| {}).unwrap(), Spread::Nothing);
        forget(&parts, "g").unwrap();
        assert!(fanout == Fanout::Write || group.take().is_empty(), "it has grown again");
    }
    let (_, parts) = parts(5, Fanout::Write, false);
    let other = SpreadInterest { conversation_id: "gone".to_owned(), large: true };
    assert_eq!(spread(&parts, &other, &|_| {}).unwrap(), Spread::Nothing);
}

#[test]
fn nothing_is_switched_before_gateways_were_told() {
    let (group, parts) = parts(5, Fanout::Write, true);
    assert!(spread(&parts, &task(true), &|_| {}).is_err());
    assert_eq!(group.crowd.lock().unwrap().fanout, Fanout::Write);
}

#[test]
fn members_are_told_and_the_switch_is_handed_over_at_the_thresholds() {
    let joins = |members, fanout| {
        let (group, parts) = parts(members, fanout, false);
        let change = MembersChanged { conversation_id: "g", joined: &[1], ..Default::default() };
        parts.watch.changed(&change).unwrap();
        group.take()
    };
    let told = ["announced g", "joined [1] left []", "gateway 1 listens to [7]"];
    assert_eq!(joins(3, Fanout::Write), told[..1]);
    assert_eq!(joins(4, Fanout::Write), told);
    assert_eq!(joins(5, Fanout::Write), [&told[..], &["task large=true"]].concat());
    assert_eq!(joins(9, Fanout::Read), told);
    let (group, parts) = parts(3, Fanout::Read, false);
    let change = MembersChanged { conversation_id: "g", left: &[2], ..Default::default() };
    parts.watch.changed(&change).unwrap();
    assert_eq!(group.take(), ["announced g", "joined [] left [2]", "task large=false"]);
    let new = MembersChanged { is_new: true, ..change };
    let (group, parts) = self::parts(3, Fanout::Write, false);
    parts.watch.changed(&new).unwrap();
    assert!(group.take().is_empty(), "nobody remembers a group that is new");
    for (members, fanout) in [(5, Fanout::Read), (2, Fanout::Write)] {
        let (_, parts) = self::parts(members, fanout, true);
        assert!(parts.watch.changed(&change).is_err(), "whoever asked is to ask again");
    }
}

/// Who leaves a large group is told to gateways whether or not the reader of its messages can be told.
#[test]
fn who_cannot_be_told_keeps_nobody_else_from_hearing() {
    let (group, parts) = parts(5, Fanout::Read, false);
    group.deaf.store(true, Ordering::Relaxed);
    let change = MembersChanged { conversation_id: "g", left: &[2], ..MembersChanged::default() };
    assert!(parts.watch.changed(&change).is_err(), "whoever asked is to ask again");
    assert_eq!(group.take(), ["joined [] left [2]"]);
    assert!(matches!(spread(&parts, &task(true), &|_| {}).unwrap(), Spread::Nothing));
    group.crowd.lock().unwrap().members = 3;
    assert!(matches!(spread(&parts, &task(false), &|_| {}).unwrap(), Spread::Small(_)));
    assert_eq!(group.take(), ["Write"], "whoever does not hear of it asks within seconds");
}

#[test]
fn another_threshold_has_groups_switched_that_nobody_joins_or_leaves() {
    let (group, parts) = parts(10, Fanout::Write, false);
    assert!(!parts.watch.threshold().set(5), "the same");
    parts.watch.threshold_changed().unwrap();
    assert_eq!(group.take(), ["task large=true"]);
    spread(&parts, &task(true), &|_| {}).unwrap();
    group.take();
    // 80 % of 12 are 10: not below.
    for (threshold, handed_over) in [(12, &[][..]), (13, &["task large=false".to_owned()])] {
        assert!(parts.watch.threshold().set(threshold));
        parts.watch.threshold_changed().unwrap();
        assert_eq!(group.take(), handed_over, "{threshold}");
    }
}

fn record(payload: Vec<u8>) -> Record {
    Record {
        topic: Arc::from("tasks"),
        partition: 0,
        offset: 4,
        payload: payload.into(),
        key: None,
        headers: cluster::kafka::Headers::default(),
        timestamp_ms: 0,
    }
}

#[test]
fn tasks_are_done_or_set_apart() {
    let (group, parts) = parts(3, Fanout::Read, false);
    let mut later = VecDeque::new();
    let small = Task { task: Some(task::Task::SpreadInterest(self::task(false))) };
    assert!(worked(&parts, &record(small.encode_to_vec()), &mut later));
    assert_eq!(
        (group.take(), later.len()),
        (vec!["Write".to_owned(), "announced g".to_owned()], 1)
    );
    let gone = |epoch| {
        let gateway = Some(proto::v1::GatewayRef { id: "gw".to_owned(), epoch });
        let forget = ForgetGateway { gateway };
        record(Task { task: Some(task::Task::ForgetGateway(forget)) }.encode_to_vec())
    };
    assert!(worked(&parts, &gone(2), &mut later) && group.take().is_empty(), "it lives");
    assert!(worked(&parts, &gone(1), &mut later));
    assert_eq!(group.take().len(), 1);
    assert!(worked(&parts, &record(vec![0xff]), &mut later));
    assert!(worked(&parts, &record(Vec::new()), &mut later));
    assert!(group.take().iter().all(|what| what.starts_with("kept")));
}
