use std::sync::Mutex;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use bytes::Bytes;
use proto::v1::Message;

use super::*;
use crate::domain::{ConversationNo, UserId};
use crate::ports::{
    Activity, Backend, ConversationInfo, ConversationRecord, ConversationStore, Created, Ensure,
    HistoryStore, Keep, MemberInfo, NewGroup, NewUser, RefreshToken, Refreshed, RouteCache,
    RouteRequest, Spoken, StoredMessage, TokenStore, User, UserStore, View,
};

type Result<T> = std::result::Result<T, StoreError>;

/// A store in memory that counts what it is asked.
#[derive(Default)]
struct Plain {
    messages: Mutex<Vec<StoredMessage>>,
    users: Mutex<Vec<User>>,
    asked: AtomicUsize,
    slow: bool,
}

impl Plain {
    fn asked(&self) -> usize {
        self.asked.swap(0, Ordering::Relaxed)
    }
}

fn other<T>() -> Result<T> {
    Err(StoreError::Internal("not asked here".to_owned()))
}

impl UserStore for Plain {
    fn create_user(&self, new: &NewUser<'_>, _: u64) -> Result<Option<UserId>> {
        let mut users = self.users.lock().unwrap();
        let id = users.len() as u64 + 1;
        let (username, nickname) = (new.username.to_owned(), new.nickname.to_owned());
        users.push(User { id, username, nickname, password_hash: None, token_epoch: 0 });
        Ok(Some(id))
    }
    fn ensure_users(&self, _: &[&str], _: u64) -> Result<Vec<UserId>> {
        other()
    }
    fn ids_of(&self, _: &[&str]) -> Result<Vec<Option<UserId>>> {
        other()
    }
    fn user_by_name(&self, _: &str) -> Result<Option<User>> {
        other()
    }
    fn user(&self, id: UserId) -> Result<Option<User>> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        if self.slow {
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(self.users.lock().unwrap().iter().find(|user| user.id == id).cloned())
    }
    fn username(&self, user: UserId) -> Result<Option<String>> {
        Ok(self.user(user)?.map(|user| user.username))
    }
    fn names_and_epochs(&self, _: &[UserId]) -> Result<Vec<Option<(String, u64)>>> {
        other()
    }
}

impl ConversationStore for Plain {
    fn conversation_of(&self, _: &str, _: UserId) -> Result<Option<(ConversationInfo, bool)>> {
        other()
    }
    fn ensure(&self, _: &[Ensure], _: u64) -> Result<Vec<Option<ConversationRecord>>> {
        other()
    }
    fn create_group(&self, _: &NewGroup<'_>, _: u64) -> Result<Created> {
        other()
    }
    fn join(&self, _: &ConversationInfo, _: UserId, _: u64) -> Result<bool> {
        other()
    }
    fn leave(&self, _: &ConversationInfo, _: UserId) -> Result<bool> {
        other()
    }
    fn mark_read(&self, marks: &[(ConversationNo, UserId, u64)]) -> Result<Vec<Option<u64>>> {
        Ok(marks.iter().map(|&(_, user, seq)| (user != 9).then_some(seq)).collect())
    }
    fn list_members(
        &self,
        _: ConversationNo,
        _: UserId,
        _: u32,
    ) -> Result<(Vec<MemberInfo>, bool)> {
        other()
    }
    fn member_ids(&self, _: ConversationNo, _: usize) -> Result<Vec<UserId>> {
        other()
    }
    fn acquainted(&self, _: UserId, _: &[UserId], _: u32) -> Result<Vec<UserId>> {
        other()
    }
    fn activities(&self, _: UserId) -> Result<Vec<Activity>> {
        other()
    }
    fn view(&self, _: ConversationNo, _: UserId) -> Result<Option<View>> {
        other()
    }
}

impl HistoryStore for Plain {
    fn last_seq(&self, _: ConversationNo) -> Result<u64> {
        Ok(self.messages.lock().unwrap().len() as u64)
    }
    fn newest_id(&self) -> Result<u64> {
        other()
    }
    fn messages(
        &self,
        _: ConversationNo,
        low: u64,
        high: u64,
        keep: Keep,
        max_bytes: usize,
    ) -> Result<Vec<StoredMessage>> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        let all = self.messages.lock().unwrap();
        let range = all.iter().filter(|one| (low..=high).contains(&one.seq)).cloned();
        let count = (max_bytes / 10).max(1);
        Ok(match keep {
            Keep::Low => range.take(count).collect(),
            Keep::High => {
                let range: Vec<_> = range.collect();
                range[range.len().saturating_sub(count)..].to_vec()
            }
        })
    }
}

impl TokenStore for Plain {
    fn begin_session(&self, _: UserId, _: RefreshToken<'_>, _: u64) -> Result<()> {
        other()
    }
    fn refresh_session(&self, _: &[u8; 32], _: RefreshToken<'_>, _: u64) -> Result<Refreshed> {
        other()
    }
    fn end_sessions(&self, _: UserId) -> Result<()> {
        other()
    }
}

impl Backend for Plain {
    fn can_write(&self) -> bool {
        true
    }
}

/// A message of ten bytes, in the store and told to Redis as the pipeline does.
fn say(plain: &Plain, warm: Option<&mut Warm>) {
    let mut all = plain.messages.lock().unwrap();
    let seq = all.len() as u64 + 1;
    let stored = StoredMessage {
        seq,
        message_id: 100 + seq,
        sender: 7,
        msg_type: 1,
        client_msg_id: format!("m{seq}"),
        content: Bytes::from(format!("{seq:010}")),
    };
    let message = Message {
        seq,
        message_id: stored.message_id,
        sender_id: stored.sender,
        msg_type: 1,
        client_msg_id: stored.client_msg_id.clone(),
        content: stored.content.clone(),
        ..Message::default()
    };
    all.push(stored);
    let spoken =
        [Spoken { conversation: 5, conversation_id: "c", inboxes: &[], messages: vec![&message] }];
    if let Some(warm) = warm {
        warm.tick(&RouteRequest { spoken: &spoken, ..Default::default() }).unwrap();
    }
}

#[test]
#[ignore = "needs the servers of `cargo xtask servers up`"]
fn newest_messages_come_out_of_the_list_and_are_those_of_the_store() {
    let space = Space::shared();
    let plain = Arc::new(Plain::default());
    let cached = Cached::new(Arc::clone(&plain), space.client.clone());
    let mut warm = space.warm();
    (0..30).for_each(|_| say(&plain, Some(&mut warm)));
    // Nobody read yet: there is no list.
    assert_eq!(value::int(&space.ask("EXISTS", "hot_messages:5", &[])), 0);
    let both = |low, high, keep, bytes| {
        plain.asked();
        let got = cached.messages(5, low, high, keep, bytes).unwrap();
        let asked = plain.asked();
        assert_eq!(got, plain.messages(5, low, high, keep, bytes).unwrap(), "{low}..={high}");
        asked == 0
    };
    assert!(!both(21, 30, Keep::High, 10_000), "the first reader makes the list");
    (0..300).for_each(|_| say(&plain, Some(&mut warm)));
    let held = value::int(&space.ask("LLEN", "hot_messages:5", &[]));
    assert!((100..132).contains(&held), "{held}");
    assert!(both(281, 330, Keep::High, 10_000));
    assert!(both(325, 326, Keep::Low, 10_000));
    assert!(both(281, 330, Keep::High, 95) && both(281, 330, Keep::Low, 95));
    assert!(both(300, 330, Keep::Low, 1), "at least one");
    assert!(!both(150, 240, Keep::Low, 10_000), "older than the list");
    // A tick that Redis did not get leaves a hole, and the list goes.
    say(&plain, None);
    assert!(!both(325, 331, Keep::High, 10_000));
    say(&plain, Some(&mut warm));
    assert!(!both(325, 332, Keep::High, 10_000) && !both(325, 332, Keep::High, 10_000));
    assert!(both(325, 332, Keep::High, 10_000), "made anew");
    assert_eq!(cached.hits_and_misses().0, 6);
    assert_eq!(cached.messages(5, 7, 6, Keep::Low, 10).unwrap(), []);
}

#[test]
#[ignore = "needs the servers of `cargo xtask servers up`"]
fn many_who_want_a_name_ask_the_store_once() {
    let space = Space::shared();
    let plain = Arc::new(Plain { slow: true, ..Plain::default() });
    let cached = || Cached::new(Arc::clone(&plain), space.client.clone());
    let one = cached();
    assert_eq!(one.username(1).unwrap(), None);
    assert_eq!((one.username(1).unwrap(), plain.asked()), (None, 1), "noted as missing");
    let alice = NewUser { username: "alice", nickname: "A", password_hash: "" };
    assert_eq!(one.create_user(&alice, 0).unwrap(), Some(1));
    std::thread::scope(|scope| {
        // Two processes, so to speak, with four threads each.
        for cached in [cached(), cached()].map(Arc::new) {
            for _ in 0..4 {
                let cached = Arc::clone(&cached);
                scope.spawn(move || assert_eq!(cached.username(1).unwrap().unwrap(), "alice"));
            }
        }
    });
    assert_eq!(plain.asked(), 1);
    let ttl = value::int(&space.ask("PTTL", "user_info:1", &[]));
    assert!((3_500_000..=4_320_000).contains(&ttl), "{ttl}");
    assert_eq!(cached().username(1).unwrap().as_deref(), Some("alice"));
    assert_eq!(plain.asked(), 0);
}

#[test]
#[ignore = "needs the servers of `cargo xtask servers up`"]
fn without_redis_everything_comes_from_the_store() {
    let server = Server::start(&[]);
    let space = Space::at(&server.address());
    let plain = Arc::new(Plain::default());
    let cached = Cached::new(Arc::clone(&plain), space.client.clone());
    (0..3).for_each(|_| say(&plain, None));
    let bob = NewUser { username: "bob", nickname: "B", password_hash: "" };
    cached.create_user(&bob, 0).unwrap();
    drop(server);
    for _ in 0..2 {
        assert_eq!(cached.messages(5, 1, 3, Keep::Low, 100).unwrap().len(), 3);
        assert_eq!(cached.mark_read(&[(5, 1, 3)]).unwrap(), [Some(3)]);
    }
    assert_eq!(cached.username(1).unwrap().as_deref(), Some("bob"));
    assert_eq!(cached.username(2).unwrap(), None);
    assert!(!space.client.is_up());
}

#[test]
#[ignore = "needs the servers of `cargo xtask servers up`"]
fn read_positions_are_mirrored_and_only_rise() {
    let space = Space::shared();
    let cached = Cached::new(Arc::new(Plain::default()), space.client.clone());
    cached.mark_read(&[(5, 1, 10), (5, 2, 7), (5, 9, 3), (6, 1, 1)]).unwrap();
    cached.mark_read(&[(5, 1, 4)]).unwrap();
    assert_eq!(cached.mirrored_reads(5, &[1, 2, 9]).unwrap(), [Some(10), Some(7), None]);
}

#[test]
#[ignore = "needs the servers of `cargo xtask servers up`"]
fn a_lock_has_one_owner_and_tokens_rise_even_after_a_flush() {
    let server = Server::start(&[]);
    let space = Space::at(&server.address());
    let take = |ms| Lock::take(&space.client, "switch", Duration::from_millis(ms)).unwrap();
    let mut first = take(10_000).unwrap();
    assert!(take(10_000).is_none());
    assert!(first.is_held() && first.keep(Duration::from_secs(10)).unwrap());
    let token = first.token();
    drop(first);
    let short = take(30).unwrap();
    assert!(short.token() > token);
    std::thread::sleep(Duration::from_millis(60));
    assert!(!short.is_held());
    let mut next = take(10_000).unwrap();
    assert!(next.token() > short.token());
    drop(short);
    assert!(take(10).is_none(), "whose time was over takes nobody's lock away");
    let _: String = server.query(&["FLUSHALL"]).unwrap();
    assert!(!next.keep(Duration::from_secs(10)).unwrap());
    assert!(take(10).unwrap().token() > next.token());
}
