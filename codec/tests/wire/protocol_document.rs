//! `PROTOCOL.md` says what the code does: its bytes, tables and examples are compared with the code and
//! with the definitions of the messages and errors.

use std::collections::BTreeMap;

use codec::binary::{self, Direction, Kind};
use codec::ws::handshake::{self, Request, read_request};
use codec::ws::{self, Opcode};

use crate::support::decode_frames;

const DOCUMENT: &str = include_str!("../../PROTOCOL.md");
const ENVELOPE: &str = include_str!("../../../proto/im/v1/envelope.proto");
const ERRORS: &str = include_str!("../../../proto/src/error.rs");
const LIMITS: &str = include_str!("../../../proto/src/limits.rs");

/// The text from a heading to the next heading of any level.
fn section(heading: &str) -> &'static str {
    let start = DOCUMENT.find(&format!("\n{heading}\n")).unwrap_or_else(|| panic!("{heading}"));
    let body = &DOCUMENT[start + heading.len() + 2..];
    let end = body.find("\n#").unwrap_or(body.len());
    &body[..end]
}

/// The rows of every table in `text` whose header line begins with `| first |`, cell by cell.
fn table<'t>(text: &'t str, first: &str) -> Vec<Vec<&'t str>> {
    let mut rows = Vec::new();
    let mut inside = false;
    for line in text.lines() {
        let Some(line) = line.strip_prefix('|') else {
            inside = false;
            continue;
        };
        let cells: Vec<&str> = line.trim_end_matches('|').split('|').map(str::trim).collect();
        match cells[0] {
            name if name == first => inside = true,
            name if name.starts_with("---") => {}
            _ if inside => rows.push(cells),
            _ => {}
        }
    }
    assert!(!rows.is_empty(), "no table {first}");
    rows
}

fn from_hex(text: &str) -> Vec<u8> {
    let text = text.trim_matches('`');
    assert!(text.len().is_multiple_of(2), "{text}");
    (0..text.len()).step_by(2).map(|i| u8::from_str_radix(&text[i..i + 2], 16).unwrap()).collect()
}

fn kind_named(name: &str) -> Kind {
    *Kind::ALL.iter().find(|k| k.name() == name).unwrap_or_else(|| panic!("{name}"))
}

/// A protobuf message written as the document writes it: `1: 7, 2: "text", 3: {1: true}, 4: h"00ff"`.
struct Fields<'t> {
    rest: &'t str,
}

impl Fields<'_> {
    fn encode(&mut self) -> Vec<u8> {
        let mut out = Vec::new();
        loop {
            let (number, rest) = self.rest.split_once(':').expect("number: value");
            self.rest = rest.trim_start();
            self.value(number.trim().parse().expect("a field number"), &mut out);
            match self.rest.trim_start().strip_prefix(',') {
                Some(rest) => self.rest = rest,
                None => return out,
            }
        }
    }

    fn value(&mut self, number: u64, out: &mut Vec<u8>) {
        if let Some(rest) = self.rest.strip_prefix('{') {
            self.rest = rest;
            let message = self.encode();
            self.rest = self.rest.trim_start().strip_prefix('}').expect("a closing brace");
            return bytes_field(number, &message, out);
        }
        if let Some(rest) = self.rest.strip_prefix("h\"") {
            let (hex, rest) = rest.split_once('"').expect("a closing quote");
            self.rest = rest;
            return bytes_field(number, &from_hex(hex), out);
        }
        if let Some(rest) = self.rest.strip_prefix('"') {
            let (text, rest) = rest.split_once('"').expect("a closing quote");
            self.rest = rest;
            return bytes_field(number, text.as_bytes(), out);
        }
        let end = self.rest.find([',', '}']).unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest;
        varint(number << 3, out);
        varint(if word == "true" { 1 } else { word.parse().expect("a number") }, out);
    }
}

fn bytes_field(number: u64, bytes: &[u8], out: &mut Vec<u8>) {
    varint(number << 3 | 2, out);
    varint(bytes.len() as u64, out);
    out.extend_from_slice(bytes);
}

fn varint(mut value: u64, out: &mut Vec<u8>) {
    while value > 0x7F {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

#[test]
fn golden_frames_are_what_the_code_makes() {
    let mut seen = Vec::new();
    for row in table(section("### Golden frames"), "name") {
        let [name, fields, frame] = row[..] else { panic!("{row:?}") };
        let kind = kind_named(name);
        let frame = from_hex(frame);
        let mut made = Vec::new();
        let body = match kind {
            Kind::Heartbeat => Vec::new(),
            _ => Fields { rest: fields.trim_matches('`') }.encode(),
        };
        match kind {
            Kind::Heartbeat => binary::encode_heartbeat(&mut made),
            _ => binary::encode(&mut made, kind, &body),
        }
        assert_eq!(made, frame, "{name}");
        let role =
            if kind.may_come_to(ws::Role::Server) { ws::Role::Server } else { ws::Role::Client };
        let limits = binary::Limits::new(role);
        for at in 0..=frame.len() {
            let (a, b) = frame.split_at(at);
            assert_eq!(decode_frames([a, b], &limits), [Ok((kind, body.clone()))], "{name} {at}");
        }
        seen.push(kind);
    }
    for kind in Kind::ALL {
        assert!(seen.contains(kind), "{kind:?} has no golden frame");
    }
}

#[test]
fn the_preface_is_the_documented_one() {
    let hex: String = binary::PREFACE.iter().map(|b| format!("{b:02x}")).collect();
    assert!(section("### Golden frames").contains(&format!("`{hex}` (preface)")));
    let spaced: Vec<String> = binary::PREFACE.iter().map(|b| format!("{b:02x}")).collect();
    assert!(section("## 4. Binary protocol").contains(&format!("`{}`", spaced.join(" "))));
}

#[test]
fn the_table_of_kinds() {
    let rows = table(DOCUMENT, "kind");
    assert_eq!(rows.len(), Kind::ALL.len());
    for (row, kind) in rows.iter().zip(Kind::ALL) {
        assert_eq!(row[0], format!("{:#04x}", *kind as u8));
        assert_eq!(row[1], kind.name());
        let sender = match kind.direction() {
            Direction::FromClient => "client",
            Direction::FromServer => "server",
            Direction::Both => "both",
        };
        assert_eq!(row[2], sender, "{kind:?}");
        let limit = match kind {
            Kind::Heartbeat => "-".to_owned(),
            _ => kind.max_body_bytes().to_string(),
        };
        assert_eq!(row[5], limit, "{kind:?}");
        if *kind != Kind::Heartbeat {
            assert!(ENVELOPE.contains(&format!("\nmessage {} {{", row[3])), "{}", row[3]);
        }
    }
}

/// `message name -> fields` of a proto file, a field as `number name type`.
fn messages_of(proto: &str) -> BTreeMap<&str, Vec<String>> {
    let mut messages = BTreeMap::new();
    let mut current = None;
    for line in proto.lines().map(str::trim) {
        if let Some(name) = line.strip_prefix("message ") {
            current = Some(name.trim_end_matches(" {"));
            messages.insert(name.trim_end_matches(" {"), Vec::new());
        } else if line == "}" {
            current = None;
        } else if let (Some(name), Some((field, number))) = (current, line.split_once(" = ")) {
            let (kind, field) = field.rsplit_once(' ').expect("type and name");
            let number = number.trim_end_matches(';');
            messages.get_mut(name).unwrap().push(format!("{number} `{field}` {kind}"));
        }
    }
    messages
}

#[test]
fn the_tables_of_fields_are_those_of_the_proto_file() {
    let mut documented = BTreeMap::new();
    for row in table(section("### Bodies"), "body") {
        documented.insert(row[0], row[1].split(';').map(|f| f.trim().to_owned()).collect());
    }
    assert_eq!(documented, messages_of(ENVELOPE));
}

#[test]
fn the_table_of_errors() {
    // `Variant = 400, "NAME", false;`
    let defined: Vec<[String; 3]> = ERRORS
        .lines()
        .filter_map(|line| line.trim().strip_suffix(';')?.split_once(" = "))
        .filter_map(|(_, rest)| {
            let mut parts = rest.split(", ");
            let (code, name, temporary) = (parts.next()?, parts.next()?, parts.next()?);
            let name = name.strip_prefix('"')?.strip_suffix('"')?;
            let temporary = if temporary == "true" { "yes" } else { "no" };
            Some([code.to_owned(), name.to_owned(), temporary.to_owned()])
        })
        .collect();
    assert!(defined.len() >= 12, "{defined:?}");
    let documented: Vec<[String; 3]> = table(section("## 5. Errors"), "code")
        .iter()
        .map(|row| [row[0].to_owned(), row[1].to_owned(), row[2].to_owned()])
        .collect();
    assert_eq!(documented, defined);
}

#[test]
fn the_table_of_close_codes() {
    // `pub const NAME: u16 = 4000;`
    let mut defined: Vec<(u16, String)> = ERRORS
        .lines()
        .filter_map(|line| line.trim().strip_prefix("pub const ")?.split_once(": u16 = "))
        .map(|(name, code)| (code.trim_end_matches(';').parse().unwrap(), name.to_owned()))
        .collect();
    let too_long = binary::Error::BodyTooLong { kind: Kind::Hello, limit: 0 };
    if !defined.iter().any(|(code, _)| *code == too_long.close_code()) {
        defined.push((too_long.close_code(), "FRAME_TOO_LARGE".to_owned()));
    }
    let documented: Vec<(u16, String)> = table(section("## 6. Close codes and GOAWAY"), "code")
        .iter()
        .map(|row| (row[0].parse().unwrap(), row[1].to_owned()))
        .collect();
    assert_eq!(documented, defined);
    assert!(documented.iter().all(|(code, _)| ws::is_valid_close_code(*code)));
    assert!(documented.iter().any(|(code, _)| *code == binary::Error::BadMagic.close_code()));
}

#[test]
fn golden_websocket_frames() {
    const KEY: [u8; 4] = [0x37, 0xFA, 0x21, 0x3D];
    let mut made: Vec<Vec<u8>> = vec![Vec::new(); 6];
    ws::encode_frame(&mut made[0], Opcode::Text, b"Hello");
    ws::encode_frame_masked(&mut made[1], Opcode::Text, b"Hello", KEY);
    ws::encode_fragment(&mut made[2], Opcode::Text, false, b"Hel", None);
    ws::encode_fragment(&mut made[2], Opcode::Continuation, true, b"lo", None);
    ws::encode_frame_masked(&mut made[3], Opcode::Ping, b"Hello", KEY);
    ws::encode_close(&mut made[4], 4000, "bye");
    ws::encode_close_masked(&mut made[5], 4000, "bye", KEY);
    let documented: Vec<Vec<u8>> =
        table(DOCUMENT, "frame").iter().map(|row| from_hex(row[1])).collect();
    assert_eq!(made, documented);
    assert!(DOCUMENT.contains("masking key `37fa213d`"));
}

#[test]
fn the_documented_handshake_is_taken_and_answered() {
    let block = section("## 2. WebSocket").split("```").nth(1).expect("an example");
    let (request, response) = block.trim().split_once("\n\n").expect("request and response");
    let request = request.replace('\n', "\r\n") + "\r\n\r\n";
    let limits = handshake::Limits::DEFAULT;
    let Ok(Request::Upgrade(upgrade)) = read_request(request.as_bytes(), &limits) else {
        panic!("refused: {request}");
    };
    assert_eq!(upgrade.path, "/ws");
    assert_eq!(upgrade.protocols().last(), Some("bearer.TOKEN"));
    let mut out = Vec::new();
    upgrade.accept(upgrade.protocols().next(), &mut out);
    assert_eq!(String::from_utf8(out).unwrap(), response.replace('\n', "\r\n") + "\r\n\r\n");
}

#[test]
fn json_examples_are_json_of_their_command() {
    let commands: Vec<(u64, &str)> = table(section("## 3. JSON protocol"), "cmd")
        .iter()
        .map(|row| (row[0].parse().unwrap(), row[1]))
        .collect();
    let mut shown = Vec::new();
    let mut heading = "";
    for line in DOCUMENT.lines() {
        if let Some(text) = line.strip_prefix("### ") {
            heading = text;
        }
        let sender = match line.get(..3) {
            Some("-> ") => "client",
            Some("<- ") => "server",
            _ => continue,
        };
        let frame: serde_json::Value = serde_json::from_str(&line[3..]).expect(line);
        let cmd = frame["cmd"].as_u64().expect(line);
        assert!(heading.contains(&format!("cmd {cmd}")), "{heading}: {line}");
        let (_, by) = commands.iter().find(|(number, _)| *number == cmd).expect(line);
        if sender == "client" || *by == "server" {
            assert_eq!(*by, sender, "{line}");
        } else {
            assert!(frame["code"].is_u64(), "an answer without code: {line}");
        }
        assert!(
            frame["error"].is_object() == (frame["code"].as_u64() > Some(0) && *by == "client")
        );
        shown.push((cmd, sender));
    }
    for (cmd, by) in &commands {
        assert!(shown.contains(&(*cmd, *by)), "cmd {cmd} has no example");
        assert!(shown.contains(&(*cmd, "server")), "cmd {cmd} has no example of the server");
    }
}

/// `pub const NAME: type = 64;`, products included.
fn limit_named(name: &str) -> u64 {
    let line = LIMITS.lines().find(|l| l.starts_with(&format!("pub const {name}:"))).expect(name);
    let (_, value) = line.split_once(" = ").expect(line);
    value.trim_end_matches(';').split(" * ").map(|factor| factor.parse::<u64>().unwrap()).product()
}

#[test]
fn the_table_of_limits() {
    let rows = table(section("## 8. Limits"), "what");
    let cell = |what: &str| rows.iter().find(|r| r[0].contains(what)).expect(what)[1];
    let contains = |what: &str, numbers: &[u64]| {
        for number in numbers {
            let words: Vec<&str> = cell(what).split(|c: char| !c.is_ascii_digit()).collect();
            assert!(words.contains(&number.to_string().as_str()), "{what}: {number}");
        }
    };
    let websocket = ws::Limits::DEFAULT;
    contains(
        "WebSocket message",
        &[websocket.max_message_bytes as u64, websocket.max_fragments.into()],
    );
    let head = handshake::Limits::DEFAULT;
    contains("HTTP head", &[head.max_head_bytes as u64, head.max_headers as u64]);
    contains("content of a message", &[limit_named("CONTENT_MAX_BYTES")]);
    contains("`conversation_id`", &[limit_named("CONVERSATION_ID_MAX_BYTES")]);
    contains("`msg_id`", &[limit_named("CLIENT_MSG_ID_MAX_BYTES")]);
    contains("access token", &[limit_named("TOKEN_MAX_BYTES")]);
    contains("`device_id`", &[limit_named("DEVICE_ID_MAX_BYTES")]);
    contains("`device_class`", &[limit_named("DEVICE_CLASS_MAX_BYTES")]);
    contains("user name", &[limit_named("USERNAME_MAX_BYTES")]);
    let pull = ["PULL_LIMIT_MAX", "PULL_LIMIT_DEFAULT", "PULL_BYTES_MAX"].map(limit_named);
    contains("messages of one pull", &pull);
    contains(
        "members of one list",
        &["MEMBERS_LIMIT_MAX", "MEMBERS_LIMIT_DEFAULT"].map(limit_named),
    );
    contains("members named by one create", &[limit_named("CREATE_MEMBERS_MAX")]);
}
