//! The binary form, inbound: one frame is one request. The bodies are those of `im/v1/envelope.proto`.

use codec::binary::{Frame, Kind};
use prost::Message;
use proto::error::ErrorCode;
use proto::v1::call;

use super::answer::Refusal;
use super::command::{Command, Login};

/// Reads one frame.
///
/// # Errors
/// The body is not what its kind asks for, or the kind is not a client's to send.
pub fn decode(frame: &Frame<'_>) -> Result<Command, Refusal> {
    let body = frame.body;
    macro_rules! call {
        ($variant:ident) => {{
            let request = parse(body)?;
            let request_id = id(&request)?;
            Ok(Command::Call { request_id, request: call::Request::$variant(request) })
        }};
    }
    match frame.kind {
        Kind::Heartbeat => Ok(Command::Heartbeat { request_id: 0 }),
        Kind::Hello => Ok(Command::Login(Login { request_id: 0, hello: parse(body)? })),
        Kind::Send => {
            let send = parse(body)?;
            id(&send)?;
            Ok(Command::Send(send))
        }
        Kind::Pull => call!(Pull),
        Kind::Sync => call!(Sync),
        Kind::CreateConversation => call!(Create),
        Kind::Join => call!(Join),
        Kind::Leave => call!(Leave),
        Kind::ListMembers => call!(Members),
        Kind::Read => call!(Read),
        Kind::PresenceQuery => call!(Presence),
        kind => Err(Refusal {
            failure: ErrorCode::UnknownCommand.failure(format!("{kind:?} is not a client's frame")),
            ..Refusal::default()
        }),
    }
}

fn parse<T: Message + Default>(body: &[u8]) -> Result<T, Refusal> {
    T::decode(body).map_err(|error| {
        super::command::malformed(format!("the frame's body cannot be read: {error}"))
    })
}

/// Requests that carry an id.
trait Identified {
    fn request_id(&self) -> u32;
}

/// The id of a request. 0 is that of pushes, so no request may carry it.
fn id(request: &impl Identified) -> Result<u32, Refusal> {
    match request.request_id() {
        0 => Err(super::command::malformed("request_id must be 1 or above")),
        id => Ok(id),
    }
}

macro_rules! identified {
    ($($name:ident),*) => {$(
        impl Identified for proto::v1::$name {
            fn request_id(&self) -> u32 { self.request_id }
        }
    )*};
}

identified!(Send, Pull, Sync, CreateConversation, Membership, ListMembers, Read, PresenceQuery);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_without_an_id_is_refused() {
        let body = proto::v1::Sync { limit: 5, ..Default::default() }.encode_to_vec();
        let refusal = decode(&Frame { kind: Kind::Sync, body: &body }).unwrap_err();
        assert!(refusal.failure.detail.contains("request_id"));
    }

    #[test]
    fn bodies_are_read_and_bad_ones_refused() {
        let pull =
            proto::v1::Pull { request_id: 9, conversation_id: "c".into(), ..Default::default() };
        let body = pull.encode_to_vec();
        let command = decode(&Frame { kind: Kind::Pull, body: &body });
        assert_eq!(
            command,
            Ok(Command::Call { request_id: 9, request: call::Request::Pull(pull) })
        );
        for body in
            [&[0xff, 0xff, 0xff][..], &[0x0a, 0x05, b'x'][..], &[0x12, 0x02, 0xff, 0xfe][..]]
        {
            assert_eq!(
                decode(&Frame { kind: Kind::Send, body }).unwrap_err().failure.name,
                "BAD_REQUEST"
            );
        }
        assert_eq!(
            decode(&Frame { kind: Kind::Push, body: &[] }).unwrap_err().failure.name,
            "UNKNOWN_COMMAND"
        );
    }
}
