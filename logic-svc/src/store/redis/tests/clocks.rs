//! Callers whose clocks are off: only the server's own time says what is alive.

use std::time::Duration;

use proto::v1::{Connection, Session};

use super::*;
use crate::domain::device::DevicePolicies;
use crate::ports::{UserState, Watches};
use crate::snowflake::SystemClock;

/// How far the clocks of two services are off, in ms; and how long an entry lives, which is shorter.
const OFF_MS: u64 = 60_000;
const LIFETIME: Duration = Duration::from_secs(30);

/// A service whose clock is right, one that is ahead and one that is behind, by the same gateways.
fn services(space: &Space) -> [SessionTable; 3] {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let now_ms = u64::try_from(now.as_millis()).unwrap();
    let classes = DevicePolicies::parse(["tv=kick_old"]).unwrap();
    [now_ms, now_ms + OFF_MS, now_ms - OFF_MS].map(|at_ms| {
        let settings =
            RouteSettings { lifetime: LIFETIME, classes: classes.clone(), ..Default::default() };
        let clock: Arc<dyn Clock> = Arc::new(Hand(AtomicU64::new(at_ms)));
        SessionTable::new(space.client.clone(), Arc::clone(&space.gateways), clock, settings)
    })
}

fn enter(table: &SessionTable, most: usize, device: &str, connection: ConnectionId) -> Login {
    change(table, most, vec![login(7, device, connection)]).unwrap().remove(0)
}

#[test]
#[ignore = "needs the servers of `cargo xtask servers up`"]
fn nobody_living_is_taken_for_dead() {
    let space = Space::shared();
    let [right, ahead, behind] = services(&space);
    for (at, writer) in [&right, &ahead, &behind].into_iter().enumerate() {
        assert_eq!(enter(writer, 9, &format!("d{at}"), space.on(1, at as u32)), Login::Added);
        for reader in [&right, &ahead, &behind] {
            assert_eq!(of(reader, 7).len(), at + 1, "written by {at}");
        }
    }
    for (at, reader) in [&right, &ahead, &behind].into_iter().enumerate() {
        assert_eq!(enter(reader, 3, "one more", space.on(2, 9)), Login::TooMany, "asked by {at}");
        assert_eq!(of(&right, 7).len(), 3, "asked by {at}");
    }
    for gateway in 1..=2 {
        right.report(space.gateway(gateway), 0).unwrap();
    }
    let states = ahead.states(&[7]).unwrap();
    assert_eq!(states.iter().map(|one| one.devices.len()).collect::<Vec<_>>(), [3]);
}

#[test]
#[ignore = "needs the servers of `cargo xtask servers up`"]
fn nobody_dead_is_taken_for_living() {
    let space = Space::shared();
    let [right, ahead, behind] = services(&space);
    for (asked, writer) in [(&behind, &right), (&right, &ahead), (&behind, &ahead)] {
        assert_eq!(enter(writer, 1, "old", space.on(1, 1)), Login::Added);
        space.pass_ms(40_000);
        assert_eq!(of(asked, 7), []);
        assert_eq!(enter(asked, 1, "new", space.on(2, 2)), Login::Added, "the old one is gone");
        change(&right, 1, vec![closed(7, space.on(2, 2))]).unwrap();
    }
}

/// A gateway that one service has not heard of yet: its connections are in doubt for a minute, by the server's time.
#[test]
#[ignore = "needs the servers of `cargo xtask servers up`"]
fn a_gateway_not_heard_of_yet_is_not_dead_for_a_clock_that_is_ahead() {
    let space = Space::shared();
    let [_, ahead, _] = services(&space);
    let others = Arc::new(Gateways::default());
    others.set_live([("gw-1".to_owned(), 11), ("gw-9".to_owned(), 99)]);
    let on = |slot| ConnectionId {
        gateway: others.number_of("gw-9", 99),
        shard: 0,
        slot,
        generation: 1,
    };
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let knowing =
        SessionTable::new(space.client.clone(), others.clone(), clock, RouteSettings::default());
    assert_eq!(enter(&knowing, 9, "a", on(1)), Login::Added);
    let late = Arc::new(Hand(AtomicU64::new(ahead.clock.now_ms() + OFF_MS)));
    let (client, gateways) = (space.client.clone(), Arc::clone(&space.gateways));
    let late = SessionTable::new(client, gateways, late, RouteSettings::default());
    assert_eq!(enter(&late, 1, "b", space.on(1, 1)), Login::TooMany, "it may live");
    let connection = Some(Connection { shard: 0, slot: 2, generation: 1 });
    let (device_id, device_class) = ("a".to_owned(), "web".to_owned());
    let claim = Session { user_id: 7, device_id, device_class, connection };
    let lost = late.register_all(space.gateway(1), &[claim]).unwrap();
    assert_eq!(lost, [space.on(1, 2)], "the place is taken");
    assert_eq!(of(&knowing, 7).len(), 1);
    space.pass_ms(120_000);
    assert_eq!(enter(&late, 1, "b", space.on(1, 1)), Login::Added, "no more in doubt");
}

#[test]
#[ignore = "needs the servers of `cargo xtask servers up`"]
fn reports_and_watchers_are_judged_by_the_servers_time() {
    let space = Space::shared();
    let [right, ahead, behind] = services(&space);
    let gateway = space.gateway(1);
    assert!(!right.report(space.gateway(2), 0).unwrap());
    assert!(ahead.report(gateway, 1).unwrap());
    let connection = Some(Connection { shard: 0, slot: 1, generation: 1 });
    let session = Session { user_id: 7, connection, ..Session::default() };
    assert_eq!(ahead.register_all(gateway, std::slice::from_ref(&session)).unwrap(), []);
    for table in [&right, &ahead, &behind] {
        assert!(!table.report(gateway, 1).unwrap(), "parts are coming in");
    }
    space.pass_ms(1500);
    assert!(!behind.report(gateway, 1).unwrap(), "no more parts come");
    // Done by one that is behind: one that is far ahead does not find it old.
    let far: Arc<dyn Clock> = Arc::new(Hand(AtomicU64::new(right.clock.now_ms() + 3_600_000)));
    let (client, gateways) = (space.client.clone(), Arc::clone(&space.gateways));
    let far = SessionTable::new(client, gateways, far, RouteSettings::default());
    assert!(!far.report(gateway, 1).unwrap());
    // Nor does it take watchers for gone, or those of others away.
    let states = behind.watch(space.on(2, 70), &[8]).unwrap();
    assert!(!states.iter().any(UserState::is_online));
    far.turned().unwrap();
    change(&far, 8, vec![login(8, "x", space.on(1, 8))]).unwrap();
    let told = far.turned().unwrap();
    assert_eq!(told.iter().map(|one| one.watchers.len()).collect::<Vec<_>>(), [1]);
}
