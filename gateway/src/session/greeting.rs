//! The first bytes: what protocol this is, and the WebSocket handshake.

use codec::detect::{Detected, detect};
use codec::ws::deflate::Agreement;
use codec::ws::handshake::{Rejection, Request, Upgrade, read_request};
use proto::error::close_code;
use proto::v1::Hello;

use super::rules::{Access, Mode};
use super::{Buffer, Cause, Context, Form, Phase, Session, Transport, Verdict};

const JSON_PROTOCOL: &str = "corelane.json.v1";
const BINARY_PROTOCOL: &str = "corelane.bin.v1";
const TOKEN_PREFIX: &str = "bearer.";

/// When whoever found no room may come back.
const NO_ROOM_DELAY_MS: u32 = 5_000;

/// What a handshake leads to.
struct Accepted {
    form: Form,
    login: Option<Hello>,
    head_len: usize,
    deflate: Option<Agreement>,
}

impl Session {
    pub(super) fn greet(&mut self, cx: &mut Context<'_>, input: &mut [u8]) {
        if let Buffer::Head(mut head) = std::mem::replace(&mut self.buffer, Buffer::Nothing) {
            head.extend_from_slice(input);
            return self.greet_whole(cx, &mut head);
        }
        self.greet_whole(cx, input);
    }

    fn greet_whole(&mut self, cx: &mut Context<'_>, bytes: &mut [u8]) {
        match detect(bytes) {
            Detected::NeedMore => self.keep_head(bytes),
            Detected::Http => self.greet_http(cx, bytes),
            Detected::Binary if cx.rules.mode != Mode::Echo => self.greet_binary(cx, bytes),
            // TLS is not spoken here, and an alert would need it.
            Detected::Tls => self.end(cx),
            Detected::Binary | Detected::Unknown => self.reject(
                cx,
                &Rejection { status: 400, reason: "neither HTTP nor the Corelane preface" },
            ),
        }
    }

    fn keep_head(&mut self, bytes: &[u8]) {
        self.buffer = Buffer::Head(Box::new(bytes.to_vec()));
    }

    fn greet_binary(&mut self, cx: &mut Context<'_>, bytes: &mut [u8]) {
        match codec::binary::read_preface(bytes) {
            Ok(false) => self.keep_head(bytes),
            Ok(true) if cx.out.no_room => self.no_room_for_stream(cx),
            Ok(true) => {
                self.phase = Phase::Anonymous;
                self.transport = Transport::Tcp;
                self.form = Form::Binary;
                self.on_bytes(cx, &mut bytes[codec::binary::PREFACE.len()..]);
            }
            Err(error) => {
                super::answer::goaway(
                    &mut cx.out.bytes,
                    super::Wire::BinaryStream,
                    error.close_code(),
                    0,
                    &error.to_string(),
                );
                self.end(cx);
            }
        }
    }

    fn no_room_for_stream(&mut self, cx: &mut Context<'_>) {
        cx.out.cause = Some(Cause::NoRoom);
        super::answer::goaway(
            &mut cx.out.bytes,
            super::Wire::BinaryStream,
            close_code::OVERLOADED,
            NO_ROOM_DELAY_MS,
            "the server has no room now",
        );
        self.end(cx);
    }

    fn greet_http(&mut self, cx: &mut Context<'_>, bytes: &mut [u8]) {
        let answer_at = cx.out.bytes.len();
        let accepted = match read_request(bytes, &cx.rules.head) {
            Ok(Request::NeedMore) => return self.keep_head(bytes),
            Ok(Request::Http) if cx.rules.mode == Mode::Echo => {
                Err(Rejection { status: 426, reason: "this server echoes WebSocket messages" })
            }
            Ok(Request::Http) => {
                cx.out.handed_over.extend_from_slice(bytes);
                cx.out.verdict = Verdict::HandOver;
                self.phase = Phase::Ended;
                return;
            }
            Ok(Request::Upgrade(_)) if cx.out.no_room => {
                cx.out.cause = Some(Cause::NoRoom);
                Err(Rejection { status: 503, reason: "the server has no room now" })
            }
            Ok(Request::Upgrade(upgrade)) => accept(cx, &upgrade),
            Err(rejection) => Err(rejection),
        };
        match accepted {
            Ok(accepted) => self.upgraded(cx, accepted, bytes, answer_at),
            Err(rejection) => self.reject(cx, &rejection),
        }
    }

    /// The 101 is at the end of the output, from `answer_at` on.
    fn upgraded(
        &mut self,
        cx: &mut Context<'_>,
        accepted: Accepted,
        bytes: &mut [u8],
        answer_at: usize,
    ) {
        self.transport = Transport::WebSocket;
        self.form = accepted.form;
        self.phase = if cx.rules.mode == Mode::Echo { Phase::Echo } else { Phase::Anonymous };
        if let Some(agreement) = &accepted.deflate {
            self.begin_deflate(agreement);
        }
        if let Some(hello) = accepted.login {
            self.begin_login(cx, hello, None);
            self.hold_upgrade(cx, answer_at);
        }
        // Frames may come right behind the handshake.
        self.on_bytes(cx, &mut bytes[accepted.head_len..]);
    }

    fn reject(&mut self, cx: &mut Context<'_>, rejection: &Rejection) {
        rejection.write(&mut cx.out.bytes);
        self.end(cx);
    }
}

/// Decides on an upgrade and answers it.
fn accept(cx: &mut Context<'_>, upgrade: &Upgrade<'_>) -> Result<Accepted, Rejection> {
    let Mode::Serve(access) = &cx.rules.mode else {
        return Ok(answer(cx, upgrade, Form::Undecided, None, None));
    };
    if upgrade.path != "/ws" {
        return Err(Rejection { status: 404, reason: "WebSocket lives at /ws" });
    }
    if !access.allows_origin(upgrade.origin, upgrade.host) {
        return Err(Rejection { status: 403, reason: "this origin may not connect" });
    }
    let (form, protocol) = choose_protocol(upgrade);
    let login = login_of(access, upgrade);
    Ok(answer(cx, upgrade, form, protocol, login))
}

/// Writes the 101.
fn answer(
    cx: &mut Context<'_>,
    upgrade: &Upgrade<'_>,
    form: Form,
    protocol: Option<&'static str>,
    login: Option<Hello>,
) -> Accepted {
    let deflate = cx.rules.deflate.as_ref().and_then(|config| upgrade.agree_deflate(config));
    upgrade.accept_with(protocol, deflate.as_ref(), &mut cx.out.bytes);
    Accepted { form, login, head_len: upgrade.head_len, deflate }
}

fn choose_protocol(upgrade: &Upgrade<'_>) -> (Form, Option<&'static str>) {
    for offered in upgrade.protocols() {
        match offered {
            JSON_PROTOCOL => return (Form::Json, Some(JSON_PROTOCOL)),
            BINARY_PROTOCOL => return (Form::Binary, Some(BINARY_PROTOCOL)),
            _ => {}
        }
    }
    (Form::Undecided, None)
}

/// A login that came with the handshake: by subprotocol, or in the query where that is switched on.
fn login_of(access: &Access, upgrade: &Upgrade<'_>) -> Option<Hello> {
    let token = upgrade
        .protocols()
        .find_map(|offered| offered.strip_prefix(TOKEN_PREFIX))
        .map(str::to_owned);
    let query = |key: &str| query_value(upgrade.query?, key);
    let token = token.or_else(|| access.query_token.then(|| query("token")).flatten());
    let device_id = || query("device_id").unwrap_or_default();
    if let Some(token) = token {
        return Some(Hello { token, device_id: device_id(), ..Hello::default() });
    }
    let dev_user = access.dev_login.then(|| query("user_id")).flatten()?;
    Some(Hello { dev_user, device_id: device_id(), ..Hello::default() })
}

/// The first value of `key` in a query, percent-decoded.
fn query_value(query: &str, key: &str) -> Option<String> {
    query.split('&').find_map(|pair| {
        let (name, value) = pair.split_once('=')?;
        (name == key).then(|| percent_decode(value))
    })
}

fn percent_decode(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let hex = tail.get(..2).and_then(|hex| std::str::from_utf8(hex).ok());
        match hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) if *first == b'%' => {
                bytes.push(byte);
                rest = &tail[2..];
            }
            _ => {
                bytes.push(if *first == b'+' { b' ' } else { *first });
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn query_values_are_found_and_decoded() {
        assert_eq!(
            query_value("a=1&user_id=al%69ce+b&user_id=x", "user_id").as_deref(),
            Some("alice b")
        );
        assert_eq!(query_value("user_id", "user_id"), None);
        assert_eq!(query_value("user_id=%zz%4", "user_id").as_deref(), Some("%zz%4"));
        assert_eq!(query_value("user_id=%ff", "user_id").as_deref(), Some("\u{fffd}"));
    }
}
