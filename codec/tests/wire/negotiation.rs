//! permessage-deflate in the opening handshake: what is agreed to, what is declined, both sides.

use codec::ws::deflate::{Agreement, Config, Offer, WindowBits};
use codec::ws::handshake::{
    Limits, OFFERS_MAX, Request, ResponseError, read_request, read_response_to,
    write_client_request_offering,
};
use proptest::option;
use proptest::prelude::*;

const NONCE: [u8; 16] = *b"the sample nonce";

/// Takes over whatever the client allows.
const GENEROUS: Config =
    Config { server_context_takeover: true, client_context_takeover: true, ..Config::DEFAULT };

/// The value of `Sec-WebSocket-Extensions` in our answer to this one; empty: none.
fn answer(config: &Config, lines: &[&str]) -> String {
    let mut head = "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
        Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
        .to_owned();
    for line in lines {
        head += &format!("Sec-WebSocket-Extensions: {line}\r\n");
    }
    head += "\r\n";
    let Ok(Request::Upgrade(upgrade)) = read_request(head.as_bytes(), &Limits::DEFAULT) else {
        panic!("refused: {head}");
    };
    let agreement = upgrade.agree_deflate(config);
    let mut out = Vec::new();
    upgrade.accept_with(None, agreement.as_ref(), &mut out);
    let out = String::from_utf8(out).unwrap();
    let value = out.lines().find_map(|l| l.strip_prefix("Sec-WebSocket-Extensions: "));
    assert_eq!(value.is_some(), agreement.is_some());
    value.unwrap_or_default().to_owned()
}

#[test]
fn offers_are_answered() {
    let none = "permessage-deflate; server_no_context_takeover; client_no_context_takeover";
    // What is offered; the answer that holds nothing; the answer that takes over.
    let table = [
        ("permessage-deflate", none.to_owned(), "permessage-deflate"),
        ("PerMessage-Deflate ;\tclient_max_window_bits", none.to_owned(), "permessage-deflate"),
        (
            "permessage-deflate; server_no_context_takeover",
            none.to_owned(),
            "permessage-deflate; server_no_context_takeover",
        ),
        (
            "permessage-deflate; client_no_context_takeover",
            none.to_owned(),
            "permessage-deflate; client_no_context_takeover",
        ),
        (
            "permessage-deflate; server_max_window_bits=15",
            format!("{none}; server_max_window_bits=15"),
            "permessage-deflate; server_max_window_bits=15",
        ),
        (
            "permessage-deflate; server_max_window_bits=\"9\"",
            format!("{none}; server_max_window_bits=9"),
            "permessage-deflate; server_max_window_bits=9",
        ),
        (
            "permessage-deflate; client_max_window_bits = 10",
            format!("{none}; client_max_window_bits=10"),
            "permessage-deflate; client_max_window_bits=10",
        ),
        (
            "permessage-deflate; client_max_window_bits=8",
            format!("{none}; client_max_window_bits=8"),
            "permessage-deflate; client_max_window_bits=8",
        ),
        // Several: the first that can be agreed to.
        (
            "permessage-deflate; x, permessage-deflate; server_max_window_bits=10, permessage-deflate",
            format!("{none}; server_max_window_bits=10"),
            "permessage-deflate; server_max_window_bits=10",
        ),
        (
            "x-other; a=\"1,permessage-deflate\", permessage-deflate",
            none.to_owned(),
            "permessage-deflate",
        ),
        (" , ,permessage-deflate,", none.to_owned(), "permessage-deflate"),
    ];
    for (offer, held, taken_over) in table {
        assert_eq!(answer(&Config::DEFAULT, &[offer]), held, "{offer}");
        assert_eq!(answer(&GENEROUS, &[offer]), taken_over, "{offer}");
    }
    let lines = ["x", "permessage-deflate; server_max_window_bits=16", "permessage-deflate"];
    assert_eq!(answer(&GENEROUS, &lines), "permessage-deflate");
    assert_eq!(answer(&GENEROUS, &[]), "");
}

#[test]
fn the_configuration_bounds_windows() {
    let narrow = Config {
        server_max_window_bits: WindowBits::Eleven,
        client_max_window_bits: WindowBits::Ten,
        ..GENEROUS
    };
    let table = [
        // The client's window cannot be bounded: it must at least not be kept.
        ("", "; client_no_context_takeover; server_max_window_bits=11"),
        ("; client_max_window_bits", "; server_max_window_bits=11; client_max_window_bits=10"),
        ("; client_max_window_bits=9", "; server_max_window_bits=11; client_max_window_bits=9"),
        (
            "; server_max_window_bits=9; client_max_window_bits=15",
            "; server_max_window_bits=9; client_max_window_bits=10",
        ),
        (
            "; server_max_window_bits=12; client_max_window_bits",
            "; server_max_window_bits=11; client_max_window_bits=10",
        ),
    ];
    for (offer, expected) in table {
        let offer = format!("permessage-deflate{offer}");
        assert_eq!(answer(&narrow, &[&offer]), format!("permessage-deflate{expected}"), "{offer}");
    }
}

#[test]
fn bad_offers_are_declined() {
    let parameters = [
        "",
        "x",
        "x=1",
        "server_no_context_takeover=true",
        "server_no_context_takeover=",
        "client_no_context_takeover=\"\"",
        "server_no_context_takeover; server_no_context_takeover",
        "client_no_context_takeover; client_no_context_takeover",
        "server_max_window_bits",
        "server_max_window_bits=",
        "server_max_window_bits=7",
        "server_max_window_bits=16",
        "server_max_window_bits=08",
        "server_max_window_bits=010",
        "server_max_window_bits=+9",
        "server_max_window_bits=1 0",
        "server_max_window_bits=99999999999999999999",
        "server_max_window_bits=\"10",
        "server_max_window_bits=10\"",
        "server_max_window_bits=\"\"10\"\"",
        "server_max_window_bits=10; server_max_window_bits=10",
        "server_max_window_bits==10",
        "client_max_window_bits=",
        "client_max_window_bits=0",
        "client_max_window_bits=7",
        "client_max_window_bits=16",
        "client_max_window_bits=99",
        "client_max_window_bits=-1",
        "client_max_window_bits=a",
        "client_max_window_bits; client_max_window_bits",
        "client_max_window_bits=10; client_max_window_bits",
        // Well-formed, but our compressor has no such window.
        "server_max_window_bits=8",
    ];
    for parameter in parameters {
        let offer = format!("permessage-deflate; {parameter}");
        assert_eq!(answer(&GENEROUS, &[&offer]), "", "{offer}");
        let answered = answer(&GENEROUS, &[&offer, "permessage-deflate"]);
        assert_eq!(answered, "permessage-deflate", "{offer}");
    }
    for other in [
        "",
        ",",
        "deflate-frame",
        "permessage-deflate-x",
        "permessage deflate",
        "\"permessage-deflate\"",
        "permessage-deflate=1",
    ] {
        assert_eq!(answer(&GENEROUS, &[other]), "", "{other}");
    }
}

#[test]
fn endless_offers_are_cut() {
    let bad = "permessage-deflate; server_max_window_bits=8";
    let offers =
        |bad_ones: usize| [&vec![bad; bad_ones][..], &["permessage-deflate"]].concat().join(", ");
    assert_eq!(answer(&GENEROUS, &[&offers(OFFERS_MAX - 1)]), "permessage-deflate");
    assert_eq!(answer(&GENEROUS, &[&offers(OFFERS_MAX)]), "");
    assert_eq!(answer(&GENEROUS, &[&"permessage-deflate;".repeat(300)]), "");
    assert_eq!(answer(&GENEROUS, &[&"\"\\".repeat(3000)]), "");
}

/// A whole handshake in memory between our client and our server.
fn negotiate(config: &Config, offer: &Offer) -> (Option<Agreement>, Option<Agreement>) {
    let mut request = Vec::new();
    write_client_request_offering(&mut request, "a", "/", &[], Some(offer), NONCE);
    let Ok(Request::Upgrade(upgrade)) = read_request(&request, &Limits::DEFAULT) else {
        panic!("refused");
    };
    let ours = upgrade.agree_deflate(config);
    let mut out = Vec::new();
    upgrade.accept_with(None, ours.as_ref(), &mut out);
    let response = read_response_to(&out, Some(offer), NONCE).unwrap().unwrap();
    assert_eq!(response.head_len, out.len());
    (ours, response.deflate)
}

fn bits(from: u8) -> impl Strategy<Value = WindowBits> {
    (from..=15).prop_map(|bits| WindowBits::new(bits).unwrap())
}

proptest! {
    #[test]
    fn both_sides_read_the_same_agreement(
        flags in any::<[bool; 4]>(), windows in (bits(9), bits(8)),
        asked in (option::of(bits(8)), option::of(bits(9))),
    ) {
        let config = Config {
            server_context_takeover: flags[0], client_context_takeover: flags[1],
            server_max_window_bits: windows.0, client_max_window_bits: windows.1,
            ..Config::DEFAULT
        };
        let offer = Offer {
            server_no_context_takeover: flags[2], client_no_context_takeover: flags[3],
            server_max_window_bits: asked.0, client_max_window_bits: asked.1,
        };
        // Told to use 8 bits, our client gives up, and a server that wants that is odd.
        prop_assume!(windows.1 != WindowBits::Eight || asked.1.is_none());
        let (server, client) = negotiate(&config, &offer);
        prop_assert_eq!(server, client);
        prop_assert_eq!(server.is_none(), asked.0 == Some(WindowBits::Eight));
        if let Some(agreed) = server {
            prop_assert!(agreed.server_no_context_takeover || (flags[0] && !flags[2]));
            prop_assert!(agreed.client_no_context_takeover || (flags[1] && !flags[3]));
            prop_assert!(agreed.server_max_window_bits <= windows.0);
            prop_assert!(asked.0.is_none_or(|most| agreed.server_max_window_bits <= most));
            prop_assert!(asked.1.is_none_or(|most| agreed.client_max_window_bits <= most));
        }
    }
}

#[test]
fn answers_that_an_offer_does_not_allow() {
    let head = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
        Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n";
    let read = |offer: Option<&Offer>, value: &str| {
        let bytes = format!("{head}Sec-WebSocket-Extensions: {value}\r\n\r\n");
        read_response_to(bytes.as_bytes(), offer, NONCE).map(|r| r.unwrap().deflate)
    };
    let plain = Offer::default();
    let asking = Offer {
        server_no_context_takeover: true,
        server_max_window_bits: Some(WindowBits::Ten),
        client_max_window_bits: Some(WindowBits::Twelve),
        ..plain
    };
    let good = "permessage-deflate; server_no_context_takeover; server_max_window_bits=10";
    let agreed =
        read(Some(&asking), &format!("{good}; client_max_window_bits=9")).unwrap().unwrap();
    assert_eq!(agreed.client_max_window_bits, WindowBits::Nine);
    assert!(agreed.server_no_context_takeover && !agreed.client_no_context_takeover);
    assert!(read(Some(&plain), "permessage-deflate; server_max_window_bits=8").is_ok());
    for (offer, value) in [
        (None, "permessage-deflate"),
        (Some(&plain), ""),
        (Some(&plain), "x"),
        (Some(&plain), "permessage-deflate, x"),
        (Some(&plain), "permessage-deflate, permessage-deflate"),
        (Some(&plain), "permessage-deflate; x"),
        (Some(&plain), "permessage-deflate; server_max_window_bits"),
        (Some(&plain), "permessage-deflate; client_max_window_bits=10"),
        (Some(&asking), "permessage-deflate"),
        (Some(&asking), "permessage-deflate; server_max_window_bits=10"),
        (Some(&asking), "permessage-deflate; server_no_context_takeover"),
        (
            Some(&asking),
            "permessage-deflate; server_no_context_takeover; server_max_window_bits=11",
        ),
        (Some(&asking), &format!("{good}; client_max_window_bits")),
        (Some(&asking), &format!("{good}; client_max_window_bits=13")),
        (Some(&asking), &format!("{good}; client_max_window_bits=8")),
    ] {
        let refused = read(offer, value);
        assert!(matches!(refused, Err(ResponseError::NotAccepted(_))), "{value}: {refused:?}");
    }
}
