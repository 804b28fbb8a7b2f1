//! The table as a map, the policies of classes, and what watchers are told.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

/// No limit.
const ANY: usize = usize::MAX;

fn on(shard: u32, slot: u32, generation: u32) -> ConnectionId {
    ConnectionId { gateway: 0, shard, slot, generation }
}

#[test]
fn the_same_device_takes_over_and_other_devices_stay() {
    let presence = LocalPresence::default();
    let mut table = presence.write();
    assert_eq!(table.login(7, "phone", "web", on(0, 1, 1), ANY), Login::Added);
    assert_eq!(table.login(7, "web", "web", on(1, 1, 1), ANY), Login::Added);
    assert_eq!(table.login(7, "", "web", on(1, 2, 1), ANY), Login::Added);
    assert_eq!(table.login(7, "", "web", on(1, 3, 1), ANY), Login::Added);
    assert_eq!(table.login(8, "phone", "web", on(0, 9, 1), ANY), Login::Added);
    assert_eq!(table.login(7, "phone", "web", on(2, 4, 1), ANY), Login::Replaced(on(0, 1, 1)));
    assert_eq!(table.of(7).len(), 4);
    assert_eq!(table.closed(on(0, 1, 1)), None, "already replaced");
}

#[test]
fn a_user_has_so_many_connections_and_no_more() {
    let presence = LocalPresence::default();
    let mut table = presence.write();
    assert_eq!(table.login(7, "phone", "web", on(0, 1, 1), 2), Login::Added);
    assert_eq!(table.login(7, "", "web", on(0, 2, 1), 2), Login::Added);
    assert_eq!(table.login(7, "web", "web", on(0, 3, 1), 2), Login::TooMany);
    assert_eq!(table.login(7, "", "web", on(0, 3, 1), 2), Login::TooMany);
    assert_eq!(table.of(7).len(), 2);
    assert_eq!(
        table.login(8, "web", "web", on(0, 3, 1), 2),
        Login::Added,
        "others are not concerned"
    );
    assert_eq!(table.login(7, "phone", "web", on(0, 4, 1), 2), Login::Replaced(on(0, 1, 1)));
    assert_eq!(table.closed(on(0, 2, 1)), Some(7));
    assert_eq!(table.login(7, "web", "web", on(0, 5, 1), 2), Login::Added);
}

#[test]
fn a_late_end_of_an_old_generation_changes_nothing() {
    let presence = LocalPresence::default();
    let mut table = presence.write();
    table.login(7, "a", "web", on(0, 1, 1), ANY);
    table.login(8, "b", "web", on(0, 1, 2), ANY);
    assert!(table.of(7).is_empty(), "the slot went to another connection");
    assert_eq!(table.closed(on(0, 1, 1)), None);
    assert_eq!(table.closed(on(0, 1, 2)), Some(8));
    assert_eq!(table.closed(on(0, 1, 2)), None);
}

#[test]
fn numbers_out_of_range_take_no_memory() {
    let presence = LocalPresence::default();
    let mut table = presence.write();
    assert_eq!(table.login(1, "", "web", on(4096, 0, 0), ANY), Login::OutOfRange);
    assert_eq!(table.login(1, "", "web", on(0, 1 << 24, 0), ANY), Login::OutOfRange);
    assert_eq!(table.heap_bytes(), 0);
}

#[test]
fn a_user_with_one_connection_is_small() {
    for users in [15_000u32, 60_000] {
        let presence = LocalPresence::default();
        let mut table = presence.write();
        for user in 0..users {
            table.login(u64::from(user) + 1, "web", "web", on(user % 2, user / 2, 1), ANY);
        }
        let each = table.heap_bytes() / users as usize;
        assert!(each <= 52, "{each} bytes a user of {users}");
    }
}

proptest! {
    #[test]
    fn behaves_like_a_map(ops in prop::collection::vec((0u8..4, 1u64..5, 0u32..3, 0u32..2, 0u32..4), 1..200)) {
        let presence = LocalPresence::default();
        let mut model: BTreeMap<(u32, u32), (u64, u32, ConnectionId)> = BTreeMap::new();
        let mut generation = 0;
        for (op, user, device, shard, slot) in ops {
            if op > 0 {
                generation += 1;
                let connection = on(shard, slot, generation);
                model.remove(&(shard, slot));
                let name = if device == 0 { String::new() } else { format!("d{device}") };
                let old = model.iter().find(|(_, v)| device != 0 && v.0 == user && v.1 == device).map(|(k, v)| (*k, v.2));
                if let Some((key, _)) = old { model.remove(&key); }
                model.insert((shard, slot), (user, device, connection));
                let want = old.map_or(Login::Added, |(_, c)| Login::Replaced(c));
                prop_assert_eq!(presence.write().login(user, &name, "web", connection, ANY), want);
            } else if let Some(&(user, _, connection)) = model.get(&(shard, slot)) {
                model.remove(&(shard, slot));
                prop_assert_eq!(presence.write().closed(connection), Some(user));
            }
            let view = presence.view();
            prop_assert_eq!(view.len(), model.len());
            for user in 1..5 {
                let mut got = view.of(user);
                let mut want: Vec<_> = model.values().filter(|v| v.0 == user).map(|v| v.2).collect();
                let by = |c: &ConnectionId| (c.shard, c.slot, c.generation);
                got.sort_by_key(by);
                want.sort_by_key(by);
                prop_assert_eq!(got, want);
            }
            let mut all = 0;
            view.all(|_, _| all += 1);
            prop_assert_eq!(all, model.len());
        }
    }
}

#[test]
fn classes_have_their_policies() {
    let policies = DevicePolicies::parse(["tv=kick_old", "kiosk=refuse_new"]).unwrap();
    let presence = LocalPresence::new(&policies, Arc::new(SystemClock));
    let mut table = presence.write();
    let mut enter =
        |device: &str, class: &str, slot| table.login(7, device, class, on(0, slot, 1), 4);
    assert_eq!(enter("a", "tv", 1), Login::Added);
    assert_eq!(enter("b", "tv", 2), Login::Kicked(vec![on(0, 1, 1)]));
    assert_eq!(enter("b", "tv", 3), Login::Replaced(on(0, 2, 1)), "the same device");
    assert_eq!(enter("", "tv", 4), Login::Kicked(vec![on(0, 3, 1)]), "without a name");
    assert_eq!(enter("c", "kiosk", 5), Login::Added);
    assert_eq!(enter("d", "kiosk", 6), Login::ClassTaken);
    assert_eq!(enter("c", "kiosk", 7), Login::Replaced(on(0, 5, 1)), "the same device");
    assert_eq!(enter("e", "web", 8), Login::Added);
    assert_eq!(enter("f", "web", 9), Login::Added, "others stay side by side");
    assert_eq!(enter("g", "web", 10), Login::TooMany);
    assert_eq!(enter("h", "tv", 11), Login::Kicked(vec![on(0, 4, 1)]), "makes its own room");
    assert_eq!(enter("e", "tv", 12), Login::Kicked(vec![on(0, 8, 1), on(0, 11, 1)]));
    assert_eq!(table.of(7).len(), 3);
}

fn enter(presence: &LocalPresence, user: u64, slot: u32) {
    let (device_id, device_class) = (format!("d{slot}"), "mobile".to_owned());
    let login = SessionChange::Login { user, connection: on(0, slot, 1), device_id, device_class };
    change(presence, login);
}

fn leave(presence: &LocalPresence, user: u64, slot: u32) {
    change(presence, SessionChange::Closed { user, connection: on(0, slot, 1) });
}

fn change(presence: &LocalPresence, change: SessionChange) {
    let mut change = Some(change);
    presence.change(ANY, &mut || change.take().into_iter().collect(), &mut |_| {}).unwrap();
}

#[test]
fn watchers_are_told_of_the_first_and_the_last_connection() {
    let presence = LocalPresence::default();
    let (one, two) = (on(3, 1, 1), on(3, 2, 1));
    let states = presence.watch(one, &[7, 8]).unwrap();
    assert!(states.iter().all(|state| !state.is_online() && state.last_seen_ms == 0));
    presence.watch(two, &[8]).unwrap();
    enter(&presence, 9, 9);
    enter(&presence, 7, 1);
    enter(&presence, 7, 2);
    let begun = Instant::now();
    let told = presence.turned().unwrap();
    assert_eq!(told, [Turned { user: 7, online: true, last_seen_ms: 0, watchers: vec![one] }]);
    let state = presence.states(&[7]).unwrap().remove(0);
    assert_eq!(state.devices.len(), 2);
    assert!(state.devices.iter().all(|device| device.device_class == "mobile"));
    leave(&presence, 7, 1);
    leave(&presence, 7, 2);
    let told = presence.turned().unwrap().remove(0);
    assert!(begun.elapsed() >= Duration::from_secs(1), "a second after the last word");
    assert!(!told.online && told.last_seen_ms > 0);
    enter(&presence, 8, 3);
    let mut told = presence.turned().unwrap().remove(0);
    told.watchers.sort_by_key(|watcher| watcher.slot);
    assert_eq!(told.watchers, [one, two]);
}

#[test]
fn a_user_who_comes_and_goes_and_comes_is_told_once() {
    let presence = LocalPresence::default();
    presence.watch(on(3, 1, 1), &[7]).unwrap();
    for slot in 0..100 {
        enter(&presence, 7, slot);
        leave(&presence, 7, slot);
    }
    enter(&presence, 7, 200);
    assert_eq!(presence.turned().unwrap().len(), 1);
    for slot in 300..400 {
        leave(&presence, 7, slot - 100);
        enter(&presence, 7, slot);
    }
    presence.watch(on(3, 2, 1), &[5]).unwrap();
    enter(&presence, 5, 999);
    let told = presence.turned().unwrap();
    assert_eq!(told.iter().map(|one| one.user).collect::<Vec<_>>(), [5]);
}

#[test]
fn a_list_ends_with_another_list_an_empty_one_or_its_connection() {
    let presence = LocalPresence::default();
    let one = on(3, 1, 1);
    presence.watch(one, &[7, 8]).unwrap();
    presence.watch(one, &[8, 9]).unwrap();
    enter(&presence, 7, 1);
    enter(&presence, 9, 2);
    assert_eq!(presence.turned().unwrap()[0].user, 9);
    presence.watch(one, &[]).unwrap();
    assert!(presence.watchlist().is_empty());
    presence.watch(one, &[8]).unwrap();
    change(&presence, SessionChange::Closed { user: 1, connection: one });
    assert!(presence.watchlist().is_empty());
    presence.end();
    assert_eq!(presence.turned(), None);
}
