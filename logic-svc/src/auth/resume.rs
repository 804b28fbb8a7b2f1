//! Resume tokens: what a client shows to come back without its access token, at any gateway.
//!
//! `version, user, token epoch, end of life in seconds` and the HMAC-SHA-256 of them, in base64url: 53 bytes, made
//! and checked in about a microsecond, so that every login can have one.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, Mac};
use sha2::{Digest, Sha256};

use super::grant::Identity;

const VERSION: u8 = 1;
const BODY_BYTES: usize = 1 + 8 + 8 + 4;
/// What is kept of the HMAC.
const TAG_BYTES: usize = 16;

/// Makes and checks resume tokens.
pub(crate) struct ResumeTokens {
    key: [u8; 32],
    lifetime_s: u64,
}

impl ResumeTokens {
    /// Tokens of a key derived from `secret`, which all logic services share; good for `lifetime_s` seconds.
    #[must_use]
    pub(crate) fn new(secret: &[u8], lifetime_s: u64) -> Self {
        let key = Sha256::new().chain_update(b"corelane resume token 1").chain_update(secret);
        Self { key: key.finalize().into(), lifetime_s }
    }

    /// A token for a user who has just logged in.
    #[must_use]
    pub(crate) fn issue(&self, identity: Identity, now_ms: u64) -> String {
        let ends_s = u32::try_from(now_ms / 1000 + self.lifetime_s).unwrap_or(u32::MAX);
        let mut bytes = Vec::with_capacity(BODY_BYTES + TAG_BYTES);
        bytes.push(VERSION);
        bytes.extend(identity.user.to_be_bytes());
        bytes.extend(identity.epoch.to_be_bytes());
        bytes.extend(ends_s.to_be_bytes());
        let tag = self.mac(&bytes).finalize().into_bytes();
        bytes.extend(&tag[..TAG_BYTES]);
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// Whose token it is; `None`: nobody's, or its time is over. Whether the user has logged out since is for the
    /// caller to look up.
    #[must_use]
    pub(crate) fn check(&self, token: &str, now_ms: u64) -> Option<Identity> {
        let bytes: [u8; BODY_BYTES + TAG_BYTES] =
            URL_SAFE_NO_PAD.decode(token).ok()?.try_into().ok()?;
        let (body, tag) = bytes.split_at(BODY_BYTES);
        self.mac(body).verify_truncated_left(tag).ok()?;
        let number = |at: usize| body[at..].first_chunk().map(|bytes| u64::from_be_bytes(*bytes));
        let ends_s = u32::from_be_bytes(*body[17..].first_chunk()?);
        let good = body[0] == VERSION && now_ms / 1000 < u64::from(ends_s);
        good.then_some(Identity { user: number(1)?, epoch: number(9)? })
    }

    fn mac(&self, body: &[u8]) -> Hmac<Sha256> {
        // A key of any length is fine for HMAC.
        let mac = Hmac::<Sha256>::new_from_slice(&self.key);
        mac.unwrap_or_else(|_| unreachable!("HMAC takes keys of any length")).chain_update(body)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW_MS: u64 = 1_800_000_000_000;

    #[test]
    fn a_token_is_good_for_its_user_until_its_time_is_over() {
        let tokens = ResumeTokens::new(b"secret", 600);
        let identity = Identity { user: 7, epoch: 3 };
        let token = tokens.issue(identity, NOW_MS);
        let check = |tokens: &ResumeTokens, text: &str, at_ms| {
            tokens.check(text, at_ms).map(|identity| (identity.user, identity.epoch))
        };
        assert_eq!(check(&tokens, &token, NOW_MS), Some((7, 3)));
        assert_eq!(check(&tokens, &token, NOW_MS + 599_000), Some((7, 3)));
        assert_eq!(check(&tokens, &token, NOW_MS + 600_000), None);
        assert_eq!(check(&ResumeTokens::new(b"secret", 9), &token, NOW_MS), Some((7, 3)));
        assert_eq!(check(&ResumeTokens::new(b"another", 600), &token, NOW_MS), None);
    }

    #[test]
    fn every_changed_or_missing_byte_voids_it() {
        let tokens = ResumeTokens::new(b"secret", 600);
        let token = tokens.issue(Identity { user: u64::MAX, epoch: 0 }, NOW_MS);
        let good = URL_SAFE_NO_PAD.decode(&token).unwrap();
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 1;
            assert!(tokens.check(&URL_SAFE_NO_PAD.encode(bad), NOW_MS).is_none(), "byte {at}");
            assert!(tokens.check(&URL_SAFE_NO_PAD.encode(&good[..at]), NOW_MS).is_none());
        }
        for text in ["", "!", "AAAA", &format!("{token}A"), &format!("{token}=="), "ä"] {
            assert!(tokens.check(text, NOW_MS).is_none(), "{text}");
        }
    }
}
