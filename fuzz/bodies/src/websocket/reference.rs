//! A second reading of RFC 6455 section 5: slow, plain, over the whole stream at once.

use codec::ws::{Limits, Role, is_valid_close_code};

use super::{Outcome, Seen};

/// A message that is open.
struct Open {
    text: bool,
    payload: Vec<u8>,
    frames: u32,
}

struct Head {
    fin: bool,
    opcode: u8,
    key: Option<[u8; 4]>,
    payload_len: usize,
    len: usize,
}

const PROTOCOL: u16 = 1002;
const NOT_UTF8: u16 = 1007;
const TOO_MANY: u16 = 1008;
const TOO_LONG: u16 = 1009;

/// What this stream must come to.
pub(super) fn read(bytes: &[u8], role: Role, limits: &Limits) -> Outcome {
    let mut seen = Vec::new();
    let mut open = None;
    let incomplete = match frames(bytes, role, limits, &mut open, &mut seen) {
        Ok(cut) => cut || open.is_some(),
        Err(code) => {
            seen.push(Seen::Fault(code));
            false
        }
    };
    let closed = matches!(seen.last(), Some(Seen::Close(_)));
    Outcome { seen, incomplete: incomplete && !closed }
}

/// Reads frame after frame. `true`: the stream stops inside one.
fn frames(
    mut bytes: &[u8],
    role: Role,
    limits: &Limits,
    open: &mut Option<Open>,
    seen: &mut Vec<Seen>,
) -> Result<bool, u16> {
    while !bytes.is_empty() {
        let Some(head) = head(bytes, role, limits, open.as_ref())? else { return Ok(true) };
        let have = head.payload_len.min(bytes.len() - head.len);
        let mut payload = bytes[head.len..head.len + have].to_vec();
        if let Some(key) = head.key {
            payload.iter_mut().zip(key.iter().cycle()).for_each(|(byte, key)| *byte ^= key);
        }
        bytes = &bytes[head.len + have..];
        let whole = have == head.payload_len;
        if head.opcode >= 8 {
            if !whole {
                return Ok(true);
            }
            seen.push(control(head.opcode, payload)?);
            if head.opcode == 8 {
                return Ok(false);
            }
        } else {
            data(&head, &payload, whole, open, seen)?;
            if !whole {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

fn data(
    head: &Head,
    payload: &[u8],
    whole: bool,
    open: &mut Option<Open>,
    seen: &mut Vec<Seen>,
) -> Result<(), u16> {
    let message =
        open.get_or_insert_with(|| Open { text: head.opcode == 1, payload: Vec::new(), frames: 0 });
    message.frames += 1;
    message.payload.extend_from_slice(payload);
    let ends = whole && head.fin;
    if message.text
        && let Err(error) = std::str::from_utf8(&message.payload)
        && (ends || error.error_len().is_some())
    {
        return Err(NOT_UTF8);
    }
    if ends && let Some(message) = open.take() {
        seen.push(match message.text {
            true => Seen::Text(String::from_utf8(message.payload).map_err(|_| NOT_UTF8)?),
            false => Seen::Binary(message.payload),
        });
    }
    Ok(())
}

fn control(opcode: u8, payload: Vec<u8>) -> Result<Seen, u16> {
    Ok(match opcode {
        9 => Seen::Ping(payload),
        10 => Seen::Pong(payload),
        _ => match &payload[..] {
            [] => Seen::Close(None),
            [_] => return Err(PROTOCOL),
            [high, low, reason @ ..] => {
                let code = u16::from_be_bytes([*high, *low]);
                if !is_valid_close_code(code) {
                    return Err(PROTOCOL);
                }
                let reason = std::str::from_utf8(reason).map_err(|_| NOT_UTF8)?;
                Seen::Close(Some((code, reason.to_owned())))
            }
        },
    })
}

/// The header at the front; every byte is judged as soon as it is there.
fn head(
    bytes: &[u8],
    role: Role,
    limits: &Limits,
    open: Option<&Open>,
) -> Result<Option<Head>, u16> {
    let (fin, opcode) = (bytes[0] & 0x80 != 0, bytes[0] & 0x0F);
    if bytes[0] & 0x70 != 0 || matches!(opcode, 3..=7 | 11..) || (opcode >= 8 && !fin) {
        return Err(PROTOCOL);
    }
    if opcode < 8 && (opcode == 0) != open.is_some() {
        return Err(PROTOCOL);
    }
    if opcode == 0 && open.is_some_and(|open| open.frames >= limits.max_fragments) {
        return Err(TOO_MANY);
    }
    let Some(&second) = bytes.get(1) else { return Ok(None) };
    let (masked, short) = (second & 0x80 != 0, second & 0x7F);
    if masked != (role == Role::Server) || (opcode >= 8 && short > 125) {
        return Err(PROTOCOL);
    }
    let Some((payload_len, mut len)) = length(bytes, short)? else { return Ok(None) };
    let before = open.map_or(0, |open| open.payload.len());
    if opcode < 8 && payload_len > limits.max_message_bytes.saturating_sub(before) as u64 {
        return Err(TOO_LONG);
    }
    let mut key = None;
    if masked {
        let Some(found) = bytes.get(len..len + 4) else { return Ok(None) };
        key = found.try_into().ok();
        len += 4;
    }
    Ok(Some(Head { fin, opcode, key, payload_len: payload_len as usize, len }))
}

fn length(bytes: &[u8], short: u8) -> Result<Option<(u64, usize)>, u16> {
    let (end, least) = match short {
        126 => (4, 126),
        127 => (10, 65_536),
        short => return Ok(Some((short.into(), 2))),
    };
    if short == 127 && bytes.get(2).is_some_and(|top| top & 0x80 != 0) {
        return Err(PROTOCOL);
    }
    let Some(digits) = bytes.get(2..end) else { return Ok(None) };
    let length = digits.iter().fold(0_u64, |length, byte| length << 8 | u64::from(*byte));
    if length < least { Err(PROTOCOL) } else { Ok(Some((length, end))) }
}
