//! The bytes of a chunk: a version byte, then message after message. A record stands for itself, so chunks
//! are merged by putting their records one after another.
//!
//! Record: message id (8 bytes, little endian), sender, message type, client id, content; numbers and lengths
//! as LEB128.

use crate::domain::message::ClientKey;
use crate::ports::{NewMessage, StoreError};

/// First byte of every body.
const VERSION: u8 = 1;

/// A message inside a body. Its seq follows from its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Record<'a> {
    pub(super) message_id: u64,
    pub(super) sender: u64,
    pub(super) msg_type: u32,
    pub(super) client_key: &'a [u8],
    pub(super) content: &'a [u8],
}

impl Record<'_> {
    pub(super) fn client_msg_id(&self) -> Result<String, StoreError> {
        ClientKey::text(self.client_key).ok_or_else(|| damaged("a client id"))
    }
}

/// Begins a body in an empty buffer.
pub(super) fn begin(out: &mut Vec<u8>) {
    out.clear();
    out.push(VERSION);
}

/// Appends a message.
pub(super) fn push(out: &mut Vec<u8>, message: &NewMessage<'_>) {
    out.extend_from_slice(&message.message_id.to_le_bytes());
    varint(out, message.sender);
    varint(out, message.msg_type.into());
    bytes(out, message.key.as_bytes());
    bytes(out, message.content);
}

/// Appends all records of another body.
pub(super) fn extend(out: &mut Vec<u8>, body: &[u8]) -> Result<(), StoreError> {
    out.extend_from_slice(records(body)?.0);
    Ok(())
}

/// The records of a body, one after another.
pub(super) fn records(body: &[u8]) -> Result<Records<'_>, StoreError> {
    match body.split_first() {
        Some((&VERSION, rest)) => Ok(Records(rest)),
        _ => Err(damaged("the version of a chunk")),
    }
}

/// Iterates over records; the first damaged one ends it with an error.
pub(super) struct Records<'a>(&'a [u8]);

impl<'a> Iterator for Records<'a> {
    type Item = Result<Record<'a>, StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let record = read(&mut self.0);
        if record.is_none() {
            self.0 = &[];
        }
        Some(record.ok_or_else(|| damaged("a message")))
    }
}

fn read<'a>(from: &mut &'a [u8]) -> Option<Record<'a>> {
    let (id, rest) = from.split_first_chunk()?;
    *from = rest;
    Some(Record {
        message_id: u64::from_le_bytes(*id),
        sender: read_varint(from)?,
        msg_type: read_varint(from)?.try_into().ok()?,
        client_key: read_bytes(from)?,
        content: read_bytes(from)?,
    })
}

fn varint(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

fn bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

fn read_varint(from: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = from.split_first()?;
        *from = rest;
        number |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(number);
        }
    }
    None
}

fn read_bytes<'a>(from: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = usize::try_from(read_varint(from)?).ok()?;
    let (bytes, rest) = from.split_at_checked(length)?;
    *from = rest;
    Some(bytes)
}

fn damaged(what: &str) -> StoreError {
    StoreError::Corrupt(format!("{what} cannot be read"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn bodies_read_back_also_merged(messages in prop::collection::vec((any::<u64>(), any::<u64>(), any::<u32>(), "[a-z0-9]{1,64}", prop::collection::vec(any::<u8>(), 0..300)), 1..20), cut in 0usize..20) {
            let keys: Vec<ClientKey> = messages.iter().map(|m| ClientKey::parse(&m.3).unwrap()).collect();
            let new = |at: usize| {
                let (message_id, sender, msg_type, _, content) = &messages[at];
                NewMessage { message_id: *message_id, sender: *sender, msg_type: *msg_type, key: &keys[at], content }
            };
            let cut = cut.min(messages.len());
            let (mut first, mut second) = (Vec::new(), Vec::new());
            begin(&mut first);
            (0..cut).for_each(|at| push(&mut first, &new(at)));
            begin(&mut second);
            (cut..messages.len()).for_each(|at| push(&mut second, &new(at)));
            extend(&mut first, &second).unwrap();
            let read: Vec<Record<'_>> = records(&first).unwrap().collect::<Result<_, _>>().unwrap();
            prop_assert_eq!(read.len(), messages.len());
            for (record, (message_id, sender, msg_type, id, content)) in read.iter().zip(&messages) {
                prop_assert_eq!((record.message_id, record.sender, record.msg_type, record.content), (*message_id, *sender, *msg_type, &content[..]));
                prop_assert_eq!(&record.client_msg_id().unwrap(), id);
            }
        }

        #[test]
        fn damaged_bodies_are_errors_not_panics(body in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(mut records) = records(&body) {
                let _ = records.by_ref().take(1000).collect::<Result<Vec<_>, _>>();
                prop_assert!(records.next().is_none());
            }
        }
    }
}
