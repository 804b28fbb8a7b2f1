//! Ids and the rules for their text form.

use crate::limits::{CLIENT_MSG_ID_MAX_BYTES, CONVERSATION_ID_MAX_BYTES, USERNAME_MAX_BYTES};

/// Id of the direct conversation of two users: the same for both, whoever starts it.
#[must_use]
pub fn direct_conversation_id(a: u64, b: u64) -> String {
    format!("dm_{}_{}", a.min(b), a.max(b))
}

/// The two users of a direct conversation id in canonical form, else `None`.
#[must_use]
pub fn direct_conversation_users(id: &str) -> Option<(u64, u64)> {
    let (low, high) = id.strip_prefix("dm_")?.split_once('_')?;
    let users = (low.parse().ok()?, high.parse().ok()?);
    (users.0 <= users.1 && direct_conversation_id(users.0, users.1) == id).then_some(users)
}

/// Why an id was refused, as a sentence for the client's developer.
pub type Refusal = &'static str;

/// Checks a conversation id: 1 to 64 bytes of UTF-8 without control characters.
pub fn check_conversation_id(id: &str) -> Result<(), Refusal> {
    check(
        id,
        CONVERSATION_ID_MAX_BYTES,
        "conversation_id must be 1 to 64 bytes without control characters",
    )
}

/// Checks a client message id: 1 to 64 bytes of UTF-8 without control characters.
pub fn check_client_msg_id(id: &str) -> Result<(), Refusal> {
    check(id, CLIENT_MSG_ID_MAX_BYTES, "msg_id must be 1 to 64 bytes without control characters")
}

fn check(id: &str, max: usize, refusal: Refusal) -> Result<(), Refusal> {
    let fits = !id.is_empty() && id.len() <= max && !id.chars().any(char::is_control);
    if fits { Ok(()) } else { Err(refusal) }
}

/// Checks a user name: 1 to 32 bytes of letters, digits, `_`, `-` and `.`.
pub fn check_username(name: &str) -> Result<(), Refusal> {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.');
    if !name.is_empty() && name.len() <= USERNAME_MAX_BYTES && name.bytes().all(allowed) {
        Ok(())
    } else {
        Err("username must be 1 to 32 of the characters a-z, A-Z, 0-9, '_', '-' and '.'")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_direct_id_is_the_same_for_both_and_reads_back() {
        assert_eq!(direct_conversation_id(7, 3), "dm_3_7");
        assert_eq!(direct_conversation_users("dm_3_7"), Some((3, 7)));
    }

    #[test]
    fn only_the_canonical_direct_id_is_one() {
        for id in ["dm_7_3", "dm_03_7", "dm_3", "dm_3_7_9", "dm_-3_7", "group_101", "dm_3_x"] {
            assert_eq!(direct_conversation_users(id), None, "{id}");
        }
    }

    #[test]
    fn ids_have_bounds() {
        assert!(check_conversation_id("group_101").is_ok());
        assert!(check_conversation_id("").is_err());
        assert!(check_conversation_id(&"x".repeat(65)).is_err());
        assert!(check_conversation_id("Küche 1").is_ok());
        assert!(check_client_msg_id("a\0b").is_err());
        assert!(check_username("alice.b-c_1").is_ok());
        assert!(check_username("al ice").is_err());
        assert!(check_username(&"x".repeat(33)).is_err());
    }
}
