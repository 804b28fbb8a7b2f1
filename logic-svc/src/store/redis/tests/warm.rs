use bytes::Bytes;
use proto::v1::Message;

use super::*;
use crate::ports::{RouteCache, RouteRequest, Sent, Spoken};

fn message(seq: u64) -> Message {
    Message {
        seq,
        message_id: 1000 + seq,
        sender_id: 1,
        client_msg_id: format!("m{seq}"),
        content: Bytes::from_static(b"hello"),
        created_at_ms: 1_790_000_000_000 + seq,
        ..Message::default()
    }
}

fn spoken<'a>(conversation: u64, inboxes: &'a [u64], messages: &'a [Message]) -> Spoken<'a> {
    Spoken { conversation, conversation_id: "c", inboxes, messages: messages.iter().collect() }
}

fn tell(warm: &mut Warm, spoken: &[Spoken<'_>]) {
    warm.tick(&RouteRequest { spoken, ..Default::default() }).unwrap();
}

#[test]
#[ignore = "needs the servers of `cargo xtask servers up`"]
fn routes_are_those_of_gateways_that_live_in_the_order_asked() {
    let space = Space::shared();
    let (table, mut warm) = (space.table(), space.warm());
    for gateway in [1, 2] {
        table.report(space.gateway(gateway), 0).unwrap();
    }
    let (a, b) = (space.on(1, 1), space.on(2, 2));
    change(&table, 8, vec![login(3, "x", a), login(3, "y", b), login(1, "x", space.on(2, 3))])
        .unwrap();
    table.begin_group(50).unwrap();
    table.begin_group(51).unwrap();
    table.end_group(51).unwrap();
    let ask = |warm: &mut Warm| {
        let request = RouteRequest { users: &[1, 2, 3], groups: &[50, 51], ..Default::default() };
        let mut routes = warm.tick(&request).unwrap();
        routes.connections.iter_mut().for_each(|found| found.sort_by_key(|one| one.gateway));
        routes
    };
    let routes = ask(&mut warm);
    assert_eq!(routes.connections, [vec![space.on(2, 3)], vec![], vec![a, b]]);
    let all = vec![space.gateway(1), space.gateway(2)];
    assert_eq!(routes.gateways, [all.clone(), all]);
    // A gateway that came later is in once it has members connected; one whose registration is gone for a moment only
    // may still have its own.
    space.gateways.set_live([("gw-2".to_owned(), 12), ("gw-3".to_owned(), 13)]);
    let third = space.gateway(3);
    table.report(third, 0).unwrap();
    let routes = ask(&mut warm);
    let (one, two) = (space.gateway(1), space.gateway(2));
    assert_eq!(routes.connections, [vec![space.on(2, 3)], vec![], vec![a, b]]);
    assert_eq!(routes.gateways, [vec![one, two], vec![two, third, one]]);
    table.interested(third, &[50, 51]).unwrap();
    assert_eq!(ask(&mut warm).gateways[0], [one, two, third]);
    // Another life of it: what lies under the earlier one is void.
    let lives = [("gw-1", 14), ("gw-2", 12), ("gw-3", 13)];
    space.gateways.set_live(lives.map(|(id, epoch)| (id.to_owned(), epoch)));
    table.report(space.gateways.number_of("gw-1", 14), 0).unwrap();
    let routes = ask(&mut warm);
    assert_eq!(routes.connections, [vec![space.on(2, 3)], vec![], vec![b]]);
    assert_eq!(routes.gateways[0], [two, third]);
}

/// Neither a service whose clock is ahead nor one that has not heard of a gateway yet leaves anybody out.
#[test]
#[ignore = "needs the servers of `cargo xtask servers up`"]
fn nobody_is_left_out_for_a_clock_or_a_gateway_that_is_new() {
    let space = Space::shared();
    let (table, mut warm) = (space.table(), space.warm());
    for gateway in [1, 2] {
        table.report(space.gateway(gateway), 0).unwrap();
    }
    let new = space.gateways.number_of("gw-9", 99);
    let on_new = ConnectionId { gateway: new, ..space.on(1, 7) };
    change(&table, 8, vec![login(3, "x", space.on(1, 1)), login(3, "y", on_new)]).unwrap();
    space.pass_ms(3_600_000);
    let request = RouteRequest { users: &[3], ..Default::default() };
    let mut found = warm.tick(&request).unwrap().connections.remove(0);
    found.sort_by_key(|one| one.gateway);
    assert_eq!(found, [space.on(1, 1), on_new]);
}

#[test]
#[ignore = "needs the servers of `cargo xtask servers up`"]
fn mirrors_inboxes_and_sends_are_kept() {
    let space = Space::shared();
    let mut warm = space.warm();
    let messages: Vec<Message> = (1..=5).map(message).collect();
    tell(&mut warm, &[spoken(9, &[1, 2], &messages[..3]), spoken(10, &[2], &messages[..1])]);
    tell(&mut warm, &[spoken(9, &[1, 2], &messages[3..])]);
    assert_eq!(value::int(&space.ask("ZSCORE", "conv_seq:9", &["seq"])), 5);
    // Somebody late does not take it back.
    tell(&mut space.warm(), &[spoken(9, &[], &messages[..2])]);
    assert_eq!(value::int(&space.ask("ZSCORE", "conv_seq:9", &["seq"])), 5);
    let inbox = space.ask("ZRANGE", "im:inbox:2", &["0", "-1"]);
    let notes: Vec<&[u8]> = value::list(&inbox).iter().map(value::bytes).collect();
    assert_eq!(notes, [&b"10:1"[..], b"9:3", b"9:5"]);
    assert!(value::int(&space.ask("PTTL", "im:inbox:2", &[])) > 0);
    let send = |conversation, sender, client_msg_id| SendId { conversation, sender, client_msg_id };
    let asked = [send(9, 1, "m4"), send(9, 2, "m4"), send(10, 1, "m4"), send(10, 1, "m1")];
    let there = |seq| Some(Sent { seq, message_id: 1000 + seq });
    assert_eq!(warm.seen(&asked).unwrap(), [there(4), None, None, there(1)]);
    space.pass_ms(59_000);
    assert_eq!(warm.seen(&asked[..1]).unwrap(), [there(4)]);
    space.pass_ms(60_000);
    assert_eq!(warm.seen(&asked[..1]).unwrap(), [None]);
}

#[test]
#[ignore = "needs the servers of `cargo xtask servers up`"]
fn an_inbox_is_cut() {
    let space = Space::shared();
    let mut warm = space.warm();
    for seq in 1..=600 {
        let messages = [message(seq)];
        tell(&mut warm, &[spoken(9, &[1], &messages)]);
    }
    assert_eq!(value::int(&space.ask("ZCARD", "im:inbox:1", &[])), 600);
    for seq in 601..=1300 {
        let messages = [message(seq)];
        tell(&mut warm, &[spoken(9, &[1], &messages)]);
    }
    let notes = value::int(&space.ask("ZCARD", "im:inbox:1", &[]));
    assert!((1000..1256).contains(&notes), "{notes}");
}

/// Time this thread was on a processor, in microseconds.
fn own_cpu_us() -> f64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    text.split(' ').next().and_then(|ns| ns.parse::<f64>().ok()).unwrap_or(0.0) / 1000.0
}

/// Time the server was on a processor, in microseconds.
fn server_cpu_us(server: &Server) -> f64 {
    let info = server.query::<String>(&["INFO", "cpu"]).unwrap();
    let of = |name: &str| -> f64 {
        let line = info.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|seconds| seconds.trim().parse::<f64>().ok()).unwrap_or(0.0)
    };
    (of("used_cpu_user:") + of("used_cpu_sys:")) * 1e6
}

/// What a tick costs, for the budget; nothing is asserted about time.
#[test]
#[ignore = "needs the servers of `cargo xtask servers up`"]
fn ticks_are_counted() {
    const TICKS: u64 = 50;
    let server = Server::start(&[]);
    let space = Space::at(&server.address());
    let (table, mut warm) = (space.table(), space.warm());
    for gateway in [1, 2] {
        table.report(space.gateway(gateway), 0).unwrap();
    }
    let enter = |user: u64| login(user, "a", space.on(1 + user % 2, user as u32));
    change(&table, 8, (1..=1000).map(enter).collect()).unwrap();
    for per_tick in [1, 16, 64, 256] {
        let tick = |warm: &mut Warm, tick: u64| {
            let messages: Vec<Message> =
                (0..per_tick).map(|one| message(1 + tick * per_tick + one)).collect();
            let pair = |one: u64| [1 + one % 1000, 1 + (one * 7) % 1000];
            let pairs: Vec<[u64; 2]> = (0..per_tick).map(pair).collect();
            let spoken: Vec<Spoken<'_>> = messages
                .iter()
                .zip(&pairs)
                .map(|(one, pair)| spoken(5000 + pair[0], pair, std::slice::from_ref(one)))
                .collect();
            let mut users: Vec<u64> = pairs.iter().flatten().copied().collect();
            users.sort_unstable();
            users.dedup();
            let request = RouteRequest { spoken: &spoken, users: &users, groups: &[] };
            warm.tick(&request).unwrap();
        };
        tick(&mut warm, 0);
        let commands = space.client.counters().commands;
        let (own, of_server) = (own_cpu_us(), server_cpu_us(&server));
        let _: String = server.query(&["CONFIG", "RESETSTAT"]).unwrap();
        (1..=TICKS).for_each(|no| tick(&mut warm, no));
        let messages = (TICKS * per_tick) as f64;
        println!(
            "{per_tick} messages of as many conversations of two: {} commands a tick; CPU a message: {:.1} us here, \
             {:.1} us in the server",
            (space.client.counters().commands - commands) / TICKS,
            (own_cpu_us() - own) / messages,
            (server_cpu_us(&server) - of_server) / messages,
        );
        let stats = server.query::<String>(&["INFO", "commandstats"]).unwrap();
        stats.lines().filter(|line| line.contains("usec_per_call")).for_each(|line| {
            let part = |name: &str| line.split(',').find_map(|part| part.split(name).nth(1));
            println!(
                "  {} {:?} x {:?} us",
                line.split(':').next().unwrap_or(""),
                part("calls="),
                part("usec_per_call=")
            );
        });
    }
}
