//! What a message must be before it gets a place, and the form its client id is kept in.

use proto::error::ErrorCode;
use proto::ids::check_client_msg_id;
use smallvec::SmallVec;

use super::reject::Reject;

/// Plain text; must be UTF-8. Also what an absent type means.
pub const TYPE_TEXT: u32 = 1;
/// First type number that belongs to applications.
pub const TYPE_APPLICATION_MIN: u32 = 100;

/// The type in force for the number a client gave.
pub fn message_type(given: u32) -> Result<u32, Reject> {
    match given {
        0 => Ok(TYPE_TEXT),
        1..=3 | TYPE_APPLICATION_MIN.. => Ok(given),
        _ => Err(Reject::new(ErrorCode::BadRequest, "msg_type must be 1, 2, 3 or at least 100")),
    }
}

/// Checks a message's content against its type and the limit in bytes.
pub fn check_content(msg_type: u32, content: &[u8], max_bytes: usize) -> Result<(), Reject> {
    if content.len() > max_bytes {
        return Err(Reject::new(ErrorCode::TooLarge, "content is longer than the limit"));
    }
    if msg_type == TYPE_TEXT && std::str::from_utf8(content).is_err() {
        return Err(Reject::new(ErrorCode::BadRequest, "text content must be UTF-8"));
    }
    Ok(())
}

/// A client message id as it is stored and compared: the 16 bytes of a UUID in canonical text form, any
/// other text behind a zero byte. Different texts never share a form: UUIDs alone are 16 bytes long (a text of
/// 15 bytes gets a second zero), and no text holds a zero byte itself.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClientKey(SmallVec<[u8; 16]>);

/// The one text length whose form with a single zero byte would look like a UUID.
const TEXT_BYTES_LIKE_UUID: usize = 15;

impl ClientKey {
    /// Reads the id a client sent.
    pub fn parse(id: &str) -> Result<Self, Reject> {
        if let Some(uuid) = canonical_uuid(id.as_bytes()) {
            return Ok(Self(SmallVec::from_buf(uuid)));
        }
        check_client_msg_id(id).map_err(|detail| Reject::new(ErrorCode::BadRequest, detail))?;
        let zeros = if id.len() == TEXT_BYTES_LIKE_UUID { 2 } else { 1 };
        let mut bytes = SmallVec::with_capacity(zeros + id.len());
        bytes.resize(zeros, 0);
        bytes.extend_from_slice(id.as_bytes());
        Ok(Self(bytes))
    }

    /// No id at all; stands where one is not known yet or was moved away.
    #[must_use]
    pub fn empty() -> Self {
        Self(SmallVec::new())
    }

    /// The first bytes as a number, in the order of the keys: orders most of them without a look at the rest.
    #[must_use]
    pub fn prefix(&self) -> u64 {
        let mut first = [0; 8];
        let known = self.0.len().min(8);
        first[..known].copy_from_slice(&self.0[..known]);
        u64::from_be_bytes(first)
    }

    /// The stored form.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The text that a stored form stands for; `None` if the bytes are no stored form.
    #[must_use]
    pub fn text(stored: &[u8]) -> Option<String> {
        if let Ok(uuid) = <[u8; 16]>::try_from(stored) {
            return Some(uuid::Uuid::from_bytes(uuid).hyphenated().to_string());
        }
        let text = stored.strip_prefix(&[0])?;
        let text = if stored.len() == TEXT_BYTES_LIKE_UUID + 2 {
            text.strip_prefix(&[0]).unwrap_or(text)
        } else {
            text
        };
        String::from_utf8(text.to_vec()).ok()
    }
}

/// Reads `8-4-4-4-12` lower-case hexadecimal digits and nothing else, so that the text can be made again.
fn canonical_uuid(text: &[u8]) -> Option<[u8; 16]> {
    const HYPHENS: [usize; 4] = [8, 13, 18, 23];
    let text: &[u8; 36] = text.try_into().ok()?;
    if HYPHENS.iter().any(|&at| text[at] != b'-') {
        return None;
    }
    const STARTS: [usize; 16] = [0, 2, 4, 6, 9, 11, 14, 16, 19, 21, 24, 26, 28, 30, 32, 34];
    let mut uuid = [0; 16];
    let mut bad = 0;
    for (byte, &at) in uuid.iter_mut().zip(&STARTS) {
        let (high, low) = (HEX[usize::from(text[at])], HEX[usize::from(text[at + 1])]);
        bad |= high | low;
        *byte = (high << 4) | (low & 0x0f);
    }
    (bad & 0xf0 == 0).then_some(uuid)
}

/// Value of a lower-case hexadecimal digit; 0xf0 for every other byte.
const HEX: [u8; 256] = {
    let mut table = [0xf0; 256];
    let mut digit = 0;
    while digit < 16 {
        table[b"0123456789abcdef"[digit] as usize] = digit as u8;
        digit += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn types_have_their_ranges() {
        for (given, want) in [
            (0, Some(1)),
            (1, Some(1)),
            (3, Some(3)),
            (4, None),
            (99, None),
            (100, Some(100)),
            (u32::MAX, Some(u32::MAX)),
        ] {
            assert_eq!(message_type(given).ok(), want, "{given}");
        }
    }

    #[test]
    fn content_is_checked_by_type_and_size() {
        assert!(check_content(1, "Grüße \u{1F600} \0 '; DROP TABLE".as_bytes(), 4096).is_ok());
        assert_eq!(check_content(1, &[0xff], 4096).map_err(|r| r.code), Err(ErrorCode::BadRequest));
        assert!(check_content(100, &[0xff], 4096).is_ok());
        assert!(check_content(1, &[b'x'; 4096], 4096).is_ok());
        assert_eq!(
            check_content(1, &[b'x'; 4097], 4096).map_err(|r| r.code),
            Err(ErrorCode::TooLarge)
        );
    }

    #[test]
    fn canonical_uuids_take_sixteen_bytes_and_no_other_text_does() {
        let id = "0190a6b2-7c3d-7e4f-8a9b-0c1d2e3f4a5b";
        assert_eq!(ClientKey::parse(id).unwrap().as_bytes().len(), 16);
        for other in [
            id.to_uppercase(),
            id.replace('-', ""),
            format!("{{{id}}}"),
            id.replace("a5b", "a5g"),
            "x".repeat(15),
            "x".repeat(16),
        ] {
            let key = ClientKey::parse(&other).unwrap();
            assert_ne!(key.as_bytes().len(), 16, "{other}");
            assert_eq!(ClientKey::text(key.as_bytes()).as_deref(), Some(other.as_str()));
        }
    }

    #[test]
    fn bad_ids_are_refused() {
        for bad in [String::new(), "x".repeat(65), "a\nb".into(), "a\0".into()] {
            assert!(ClientKey::parse(&bad).is_err(), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn every_id_reads_back(id in "[ -~äöü]{1,20}|[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-fA-F]{12}|.{15,17}") {
            if let Ok(key) = ClientKey::parse(&id) {
                prop_assert_eq!(ClientKey::text(key.as_bytes()), Some(id));
            }
        }
    }
}
