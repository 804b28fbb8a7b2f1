//! Messages as they lie in `hot_messages:{conversation}`: five numbers, the client's id with its length, the content.

use bytes::Bytes;
use proto::v1::Message;

use crate::ports::StoredMessage;

/// Bytes before the client's id.
const HEAD: usize = 8 + 8 + 8 + 4 + 2;

/// Appends a message that was delivered.
pub(super) fn encode_message(message: &Message, to: &mut Vec<u8>) {
    let numbers = [message.seq, message.message_id, message.sender_id];
    encode(numbers, message.msg_type, &message.client_msg_id, &message.content, to);
}

/// Appends a message that was read from the store.
pub(super) fn encode_stored(message: &StoredMessage, to: &mut Vec<u8>) {
    let numbers = [message.seq, message.message_id, message.sender];
    encode(numbers, message.msg_type, &message.client_msg_id, &message.content, to);
}

fn encode(numbers: [u64; 3], msg_type: u32, client_msg_id: &str, content: &[u8], to: &mut Vec<u8>) {
    numbers.iter().for_each(|number| to.extend(number.to_le_bytes()));
    to.extend(msg_type.to_le_bytes());
    // Ids have at most 64 bytes.
    to.extend(u16::try_from(client_msg_id.len()).unwrap_or(u16::MAX).to_le_bytes());
    to.extend(client_msg_id.as_bytes());
    to.extend(content);
}

/// Reads a message back; `None` if it is none.
pub(super) fn decode(bytes: &[u8]) -> Option<StoredMessage> {
    let (head, rest) = bytes.split_at_checked(HEAD)?;
    let number = |at: usize| head[at..].first_chunk().map(|bytes| u64::from_le_bytes(*bytes));
    let msg_type = u32::from_le_bytes(*head[24..].first_chunk()?);
    let id_len = u16::from_le_bytes(*head[28..].first_chunk()?);
    let (id, content) = rest.split_at_checked(id_len.into())?;
    Some(StoredMessage {
        seq: number(0)?,
        message_id: number(8)?,
        sender: number(16)?,
        msg_type,
        client_msg_id: std::str::from_utf8(id).ok()?.to_owned(),
        content: Bytes::copy_from_slice(content),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_read_back_and_others_are_none() {
        let message = Message {
            conversation_id: "dm_1_2".into(),
            seq: 7,
            message_id: u64::MAX,
            sender_id: 2,
            sender: "bob".into(),
            client_msg_id: "Grüße".into(),
            msg_type: 3,
            content: Bytes::from_static(b"\0hello"),
            created_at_ms: 9,
        };
        let mut bytes = Vec::new();
        encode_message(&message, &mut bytes);
        let stored = decode(&bytes).unwrap();
        assert_eq!((stored.seq, stored.message_id, stored.sender), (7, u64::MAX, 2));
        assert_eq!((stored.msg_type, stored.client_msg_id.as_str()), (3, "Grüße"));
        assert_eq!(&stored.content[..], b"\0hello");
        let mut again = Vec::new();
        encode_stored(&stored, &mut again);
        assert_eq!(again, bytes);
        for cut in 0..HEAD + stored.client_msg_id.len() {
            assert_eq!(decode(&bytes[..cut]), None, "{cut}");
        }
    }
}
