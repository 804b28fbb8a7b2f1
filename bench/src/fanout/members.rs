//! Opening the connections, and making members of the users behind them.

use std::os::fd::OwnedFd;

use anyhow::{Context, bail};
use codec::ws::{self, Event, Opcode, Role};

use crate::client::{Protocol, Target, open_with, receive, send_all};

/// Users that join at a time. Each join is told to the members who are online: the fewer, the
/// less is told.
const JOINING: usize = 16;
/// What a raw server sends when it has accepted a connection.
const WELCOME_BYTES: usize = 1;
/// A page of the conversation is small here: it has one message at most.
const ANSWER_BYTES: usize = 64 * 1024;

/// Opens `count` connections, the sender first. Each is known to the server before this returns.
pub(super) fn open(target: &Target, count: usize) -> anyhow::Result<Vec<OwnedFd>> {
    open_with(target, count, &mut |batch| match target.protocol {
        Protocol::Tcp => batch.iter().try_for_each(read_welcome),
        Protocol::Ws => Ok(()),
        // The login is over when the heartbeat behind it is answered.
        Protocol::Corelane => ask_all(batch, r#"{"cmd":0}"#, 0),
    })
}

/// Makes members of users `0..count` of the chat server under development login: whoever pulls a
/// group joins it. `scattered`: not in the order of their numbers, which is the one they will connect in.
///
/// # Errors
/// When the server refuses or does not answer.
pub fn join_all(
    target: &Target,
    count: usize,
    conversation: &str,
    scattered: bool,
) -> anyhow::Result<()> {
    let pull = serde_json::json!({
        "cmd": 3, "conversation_id": conversation, "cursor_seq": 0, "limit": 1,
    });
    let pull = pull.to_string();
    let joining = if scattered { 1 } else { JOINING };
    let mut firsts: Vec<usize> = (0..count).step_by(joining).collect();
    if scattered {
        firsts.sort_unstable_by_key(|number| number.wrapping_mul(0x9E37_79B9_7F4A_7C15));
    }
    for first_number in firsts {
        let target = Target { first_number, ..target.clone() };
        let joining = joining.min(count - first_number);
        open_with(&target, joining, &mut |batch| ask_all(batch, &pull, 3))
            .with_context(|| format!("members from {first_number}"))?;
    }
    Ok(())
}

fn read_welcome(socket: &OwnedFd) -> anyhow::Result<()> {
    let mut bytes = [0; WELCOME_BYTES + 1];
    match receive(socket, &mut bytes)? {
        WELCOME_BYTES => Ok(()),
        more => bail!("{more} bytes came where {WELCOME_BYTES} was expected"),
    }
}

/// Sends a request on each connection, then waits for all answers.
fn ask_all(batch: &[OwnedFd], request: &str, cmd: u64) -> anyhow::Result<()> {
    let mut frame = Vec::new();
    ws::encode_frame_masked(&mut frame, Opcode::Text, request.as_bytes(), [7, 77, 177, 27]);
    batch.iter().try_for_each(|socket| send_all(socket, &frame))?;
    batch.iter().try_for_each(|socket| read_answer(socket, cmd))
}

/// Reads frames until the answer to `cmd`, which must be a good one.
fn read_answer(socket: &OwnedFd, cmd: u64) -> anyhow::Result<()> {
    let mut decoder = ws::Decoder::new();
    let limits = ws::Limits { max_message_bytes: ANSWER_BYTES, ..ws::Limits::default() };
    let mut buffer = vec![0; ANSWER_BYTES];
    loop {
        let received = receive(socket, &mut buffer)?;
        let mut rest = &mut buffer[..received];
        while let Some(event) =
            decoder.next(&mut rest, Role::Client, &limits).context("malformed frames")?
        {
            match event {
                Event::Text(text) => {
                    let answer: serde_json::Value =
                        serde_json::from_str(text).with_context(|| format!("no JSON: {text}"))?;
                    match (answer["cmd"].as_u64(), answer["code"].as_u64()) {
                        (Some(number), Some(0)) if number == cmd => return Ok(()),
                        (Some(number), _) if number == cmd => bail!("refused: {text}"),
                        _ => {}
                    }
                }
                Event::Close(close) => bail!("the server closed: {close:?}"),
                Event::Binary(_) | Event::Ping(_) | Event::Pong(_) => {}
            }
        }
    }
}
