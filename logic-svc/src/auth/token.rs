//! Access tokens: JWTs (RFC 7519) signed with EdDSA (RFC 8037), and nothing else.
//!
//! Signing goes through `jsonwebtoken` with a provider of our own that knows Ed25519 only. Checking knows no other
//! algorithm either: whether a signature is ours is asked of the private key ([`super::keys::Key::has_signed`]). That
//! takes a tenth of the time of the check with the public key, which is left to those who have only that one, and a
//! forged token costs no more than a good one.

use std::sync::{Arc, OnceLock};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ed25519_dalek::ed25519::signature::{self, Signer};
use ed25519_dalek::{Signature, SigningKey};
use jsonwebtoken::crypto::{CryptoProvider, JwtSigner, JwtVerifier, KeyUtils};
use jsonwebtoken::errors::{ErrorKind, Result as JwtResult};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header};
use proto::limits::TOKEN_MAX_BYTES;
use serde::{Deserialize, Serialize};

use super::SetUpError;
use super::grant::{Grant, Identity};
use super::keys::Keys;
use super::verified::Verified;
use crate::domain::UserId;
use crate::ports::Clock;

/// How far clocks may be apart, in seconds.
const LEEWAY_S: u64 = 30;

/// What a token says.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
struct Claims {
    iss: String,
    aud: String,
    /// User id in decimal digits.
    sub: String,
    iat: u64,
    nbf: u64,
    exp: u64,
    /// The user's epoch at issue; "log out everywhere" moves on to the next.
    epoch: u64,
}

/// Why a token is refused. One sentence for all cases of a kind; never the token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TokenError {
    /// Longer than any token of ours; not even parsed.
    #[error("the token is too long")]
    TooLong,
    /// Not a token of this service, or tampered with.
    #[error("the token is not valid")]
    Invalid,
    /// Its time is over.
    #[error("the token has expired")]
    Expired,
    /// Its time has not come.
    #[error("the token is not valid yet")]
    NotYet,
}

/// Issues and checks access tokens.
pub(crate) struct Tokens {
    keys: Keys,
    clock: Arc<dyn Clock>,
    issuer: String,
    audience: String,
    lifetime_s: u64,
    verified: Verified,
}

impl Tokens {
    /// Tokens signed by `keys`, good for `lifetime_s` seconds.
    pub(crate) fn new(
        keys: Keys,
        clock: Arc<dyn Clock>,
        issuer: &str,
        audience: &str,
        lifetime_s: u64,
    ) -> Result<Self, SetUpError> {
        install_provider()?;
        let (issuer, audience) = (issuer.to_owned(), audience.to_owned());
        let verified = Verified::new()?;
        Ok(Self { keys, clock, issuer, audience, lifetime_s, verified })
    }

    /// How long a fresh token is good, in seconds.
    #[must_use]
    pub(crate) fn lifetime_s(&self) -> u64 {
        self.lifetime_s
    }

    /// What only services that sign tokens know; for keys derived from it.
    pub(super) fn secret(&self) -> &[u8] {
        self.keys.signing().signing.as_bytes()
    }

    /// The public keys as a JSON Web Key Set.
    #[must_use]
    pub(crate) fn public_keys(&self) -> serde_json::Value {
        self.keys.public()
    }

    /// A fresh token. It is known as good from here on.
    pub(crate) fn issue(&self, identity: Identity) -> Result<String, TokenError> {
        let now_s = self.now_s();
        let grant = Grant { identity, from_s: now_s, until_s: now_s + self.lifetime_s };
        let claims = Claims {
            iss: self.issuer.clone(),
            aud: self.audience.clone(),
            sub: identity.user.to_string(),
            iat: now_s,
            nbf: now_s,
            exp: grant.until_s,
            epoch: identity.epoch,
        };
        let key = self.keys.signing();
        let mut header = Header::new(Algorithm::EdDSA);
        header.kid = Some(key.kid.clone());
        let secret = EncodingKey::from_ed_der(key.signing.as_bytes());
        let token = jsonwebtoken::encode(&header, &claims, &secret);
        let token = token.map_err(|_| TokenError::Invalid)?;
        self.verified.remember([(self.verified.name(&token), grant)]);
        Ok(token)
    }

    /// Whose token this is.
    pub(crate) fn verify(&self, token: &str) -> Result<Identity, TokenError> {
        self.verify_all(&[token]).pop().unwrap_or(Err(TokenError::Invalid))
    }

    /// Whose tokens these are, each for itself.
    pub(crate) fn verify_all(&self, tokens: &[&str]) -> Vec<Result<Identity, TokenError>> {
        let now_s = self.now_s();
        let fits = |token: &&str| token.len() <= TOKEN_MAX_BYTES;
        let names: Vec<_> =
            tokens.iter().map(|token| fits(token).then(|| self.verified.name(token))).collect();
        let known = self.verified.look_up(&names);
        let mut found = Vec::new();
        let all = tokens.iter().zip(names).zip(known);
        let verdicts = all.map(|((token, name), known)| {
            let name = name.ok_or(TokenError::TooLong)?;
            let grant = known.map_or_else(|| self.check(token), Ok)?;
            grant.check_times(now_s)?;
            if known.is_none() {
                found.push((name, grant));
            }
            Ok(grant.identity)
        });
        let verdicts = verdicts.collect();
        if !found.is_empty() {
            self.verified.remember(found);
        }
        verdicts
    }

    /// Whether a token is ours, and what it says; its time is not looked at.
    fn check(&self, token: &str) -> Result<Grant, TokenError> {
        let claims = self.signed_claims(token).ok_or(TokenError::Invalid)?;
        let user: UserId = claims.sub.parse().map_err(|_| TokenError::Invalid)?;
        let ours = claims.iss == self.issuer && claims.aud == self.audience;
        if !ours || user.to_string() != claims.sub {
            return Err(TokenError::Invalid);
        }
        Ok(Grant {
            identity: Identity { user, epoch: claims.epoch },
            from_s: claims.nbf.max(claims.iat),
            until_s: claims.exp,
        })
    }

    /// The claims of a token that one of our keys signed. Nothing but the header is parsed before that is certain.
    fn signed_claims(&self, token: &str) -> Option<Claims> {
        let (message, signature) = token.rsplit_once('.')?;
        let (_, claims) = message.split_once('.')?;
        let header = jsonwebtoken::decode_header(token).ok()?;
        if header.alg != Algorithm::EdDSA {
            return None;
        }
        let key = self.keys.find(header.kid.as_deref()?)?;
        let shown: Vec<u8> = URL_SAFE_NO_PAD.decode(signature).ok()?;
        if !key.has_signed(message.as_bytes(), &shown) {
            return None;
        }
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims).ok()?).ok()
    }

    fn now_s(&self) -> u64 {
        self.clock.now_ms() / 1000
    }
}

impl Grant {
    fn check_times(&self, now_s: u64) -> Result<(), TokenError> {
        if self.until_s.saturating_add(LEEWAY_S) <= now_s {
            return Err(TokenError::Expired);
        }
        if self.from_s > now_s + LEEWAY_S {
            return Err(TokenError::NotYet);
        }
        Ok(())
    }
}

/// Installs the provider once a process.
fn install_provider() -> Result<(), SetUpError> {
    static INSTALLED: OnceLock<bool> = OnceLock::new();
    let installed = INSTALLED.get_or_init(|| PROVIDER.install_default().is_ok());
    if *installed { Ok(()) } else { Err(SetUpError::Provider) }
}

static PROVIDER: CryptoProvider = CryptoProvider {
    signer_factory: signer,
    verifier_factory: no_verifier,
    key_utils: KeyUtils::new_unimplemented(),
};

fn signer(algorithm: &Algorithm, key: &EncodingKey) -> JwtResult<Box<dyn JwtSigner>> {
    let seed = key.as_bytes().try_into().map_err(|_| ErrorKind::InvalidEddsaKey)?;
    match algorithm {
        Algorithm::EdDSA => Ok(Box::new(EdSigner(SigningKey::from_bytes(seed)))),
        _ => Err(ErrorKind::InvalidAlgorithm.into()),
    }
}

/// Tokens are checked by [`Tokens::verify_all`] and in no other way.
fn no_verifier(_: &Algorithm, _: &DecodingKey) -> JwtResult<Box<dyn JwtVerifier>> {
    Err(ErrorKind::InvalidAlgorithm.into())
}

struct EdSigner(SigningKey);

impl Signer<Vec<u8>> for EdSigner {
    fn try_sign(&self, message: &[u8]) -> Result<Vec<u8>, signature::Error> {
        let signature: Signature = self.0.try_sign(message)?;
        Ok(signature.to_bytes().to_vec())
    }
}

impl JwtSigner for EdSigner {
    fn algorithm(&self) -> Algorithm {
        Algorithm::EdDSA
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD as B64;
    use serde_json::{Value, json};
    use sha2::{Digest, Sha256};
    use std::sync::atomic::{AtomicU64, Ordering};

    struct Moved(AtomicU64);

    impl Clock for Moved {
        fn now_ms(&self) -> u64 {
            self.0.load(Ordering::Relaxed)
        }
    }

    const NOW_S: u64 = 1_800_000_000;

    struct Fixture {
        tokens: Tokens,
        clock: Arc<Moved>,
        _dir: tempfile::TempDir,
    }

    fn fixture() -> Fixture {
        let dir = tempfile::tempdir().unwrap();
        let clock = Arc::new(Moved(AtomicU64::new(NOW_S * 1000)));
        let keys = Keys::load(dir.path()).unwrap();
        let tokens = Tokens::new(keys, clock.clone(), "corelane", "corelane", 900).unwrap();
        Fixture { tokens, clock, _dir: dir }
    }

    fn claims() -> Value {
        json!({"iss":"corelane","aud":"corelane","sub":"7","iat":NOW_S,"nbf":NOW_S,"exp":NOW_S+900,"epoch":0})
    }

    impl Fixture {
        fn kid(&self) -> String {
            self.tokens.keys.signing().kid.clone()
        }

        /// A token with any header and claims, signed with the real key.
        fn sign(&self, header: &Value, claims: &Value) -> String {
            let message =
                format!("{}.{}", B64.encode(header.to_string()), B64.encode(claims.to_string()));
            let signature = self.tokens.keys.signing().signing.sign(message.as_bytes());
            format!("{message}.{}", B64.encode(signature.to_bytes()))
        }

        fn verify_claims(&self, claims: &Value) -> Result<Identity, TokenError> {
            self.tokens
                .verify(&self.sign(&json!({"alg":"EdDSA","typ":"JWT","kid":self.kid()}), claims))
        }
    }

    #[test]
    fn an_issued_token_is_good_until_it_expires() {
        let f = fixture();
        let identity = Identity { user: u64::MAX, epoch: 3 };
        let token = f.tokens.issue(identity).unwrap();
        assert_eq!(f.tokens.verify(&token), Ok(identity));
        f.clock.0.fetch_add((900 + LEEWAY_S) * 1000, Ordering::Relaxed);
        assert_eq!(f.tokens.verify(&token), Err(TokenError::Expired));
        f.clock.0.store((NOW_S - LEEWAY_S - 1) * 1000, Ordering::Relaxed);
        assert_eq!(f.tokens.verify(&token), Err(TokenError::NotYet));
    }

    #[test]
    fn a_remembered_token_keeps_to_its_times_and_its_bytes() {
        let f = fixture();
        let header = json!({"alg":"EdDSA","typ":"JWT","kid":f.kid()});
        let token = f.sign(&header, &claims());
        let seven = Ok(Identity { user: 7, epoch: 0 });
        let mut other = f.sign(&header, &claims());
        other.replace_range(other.len() - 4.., "AAAA");
        let long = "a".repeat(1024 * 1024);
        let batch = [token.as_str(), &other, &long, &token];
        let want = [seven, Err(TokenError::Invalid), Err(TokenError::TooLong), seven];
        assert_eq!(f.tokens.verify_all(&batch), want);
        assert_eq!(f.tokens.verify_all(&batch), want, "the first is remembered now");
        f.clock.0.fetch_add((900 + LEEWAY_S) * 1000, Ordering::Relaxed);
        assert_eq!(f.tokens.verify(&token), Err(TokenError::Expired));
        f.clock.0.store((NOW_S - LEEWAY_S - 1) * 1000, Ordering::Relaxed);
        assert_eq!(f.tokens.verify(&token), Err(TokenError::NotYet));
    }

    #[test]
    fn a_token_is_good_by_the_public_key_too() {
        let f = fixture();
        let token = f.tokens.issue(Identity { user: 7, epoch: 0 }).unwrap();
        let (message, signature) = token.rsplit_once('.').unwrap();
        let signature = Signature::from_slice(&B64.decode(signature).unwrap()).unwrap();
        let public = f.tokens.keys.signing().signing.verifying_key();
        public.verify_strict(message.as_bytes(), &signature).unwrap();
    }

    #[test]
    fn hand_made_claims_pass_only_as_they_should_be() {
        let f = fixture();
        assert_eq!(f.verify_claims(&claims()), Ok(Identity { user: 7, epoch: 0 }));
        let bad = [
            ("exp", json!((NOW_S + 900).to_string())),
            ("exp", json!(null)),
            ("exp", json!(-1)),
            ("exp", json!(1e30)),
            ("exp", json!(NOW_S - LEEWAY_S)),
            ("nbf", json!(NOW_S + LEEWAY_S + 1)),
            ("nbf", json!("0")),
            ("iat", json!(NOW_S + 1000)),
            ("iss", json!("somebody")),
            ("iss", json!(["somebody"])),
            ("iss", json!(null)),
            ("aud", json!("others")),
            ("aud", json!(["corelane", "others"])),
            ("sub", json!("alice")),
            ("sub", json!("")),
            ("sub", json!("+7")),
            ("sub", json!("07")),
            ("sub", json!(7)),
            ("sub", json!("99999999999999999999999")),
            ("epoch", json!("0")),
        ];
        for (name, value) in bad {
            let mut changed = claims();
            changed[name] = value.clone();
            assert!(f.verify_claims(&changed).is_err(), "{name} = {value}");
        }
        for name in ["exp", "nbf", "iat", "iss", "aud", "sub", "epoch"] {
            let mut changed = claims();
            changed.as_object_mut().unwrap().remove(name);
            assert!(f.verify_claims(&changed).is_err(), "without {name}");
        }
    }

    #[test]
    fn only_our_algorithm_and_our_key_count() {
        let f = fixture();
        let kid = f.kid();
        for alg in ["none", "None", "NONE", "HS256", "RS256", "ES256", "eddsa", ""] {
            assert!(
                f.tokens.verify(&f.sign(&json!({"alg":alg,"kid":kid}), &claims())).is_err(),
                "{alg}"
            );
        }
        for kid in ["../../../../etc/passwd", "' OR 1=1 --", "", "\u{0}", "http://127.0.0.1/key"] {
            assert!(
                f.tokens.verify(&f.sign(&json!({"alg":"EdDSA","kid":kid}), &claims())).is_err(),
                "{kid}"
            );
        }
        assert!(f.tokens.verify(&f.sign(&json!({"alg":"EdDSA"}), &claims())).is_err(), "no kid");
        let other = fixture();
        let forged = other.sign(&json!({"alg":"EdDSA","kid":kid}), &claims());
        assert_eq!(f.tokens.verify(&forged), Err(TokenError::Invalid));
    }

    #[test]
    fn a_token_without_signature_is_refused() {
        let f = fixture();
        let message = format!(
            "{}.{}",
            B64.encode(json!({"alg":"none","kid":f.kid()}).to_string()),
            B64.encode(claims().to_string())
        );
        for token in [format!("{message}."), message.clone(), format!("{message}.AAAA")] {
            assert_eq!(f.tokens.verify(&token), Err(TokenError::Invalid), "{token}");
        }
    }

    #[test]
    fn a_mac_made_with_the_public_key_is_refused() {
        let f = fixture();
        let public = f.tokens.keys.signing().signing.verifying_key();
        let message = format!(
            "{}.{}",
            B64.encode(json!({"alg":"HS256","kid":f.kid()}).to_string()),
            B64.encode(claims().to_string())
        );
        let token =
            format!("{message}.{}", B64.encode(hmac_sha256(public.as_bytes(), message.as_bytes())));
        assert_eq!(f.tokens.verify(&token), Err(TokenError::Invalid));
    }

    /// RFC 2104 for keys of at most 64 bytes.
    fn hmac_sha256(key: &[u8], message: &[u8]) -> Vec<u8> {
        let pad = |with: u8| -> Vec<u8> {
            (0..64).map(|at| key.get(at).copied().unwrap_or(0) ^ with).collect()
        };
        let inner = Sha256::new().chain_update(pad(0x36)).chain_update(message).finalize();
        Sha256::new().chain_update(pad(0x5c)).chain_update(inner).finalize().to_vec()
    }

    #[test]
    fn every_changed_byte_voids_the_token() {
        let f = fixture();
        let token = f.tokens.issue(Identity { user: 7, epoch: 0 }).unwrap();
        for at in 0..token.len() {
            let mut bytes = token.clone().into_bytes();
            bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(bytes).unwrap();
            assert!(f.tokens.verify(&changed).is_err(), "byte {at}");
        }
    }

    #[test]
    fn long_and_senseless_input_is_refused() {
        let f = fixture();
        assert_eq!(f.tokens.verify(&"a".repeat(1024 * 1024)), Err(TokenError::TooLong));
        assert_eq!(f.tokens.verify(&"a".repeat(TOKEN_MAX_BYTES)), Err(TokenError::Invalid));
        for token in ["", ".", "..", "...", "a.b.c", "ä.ö.ü", "\0.\0.\0"] {
            assert_eq!(f.tokens.verify(token), Err(TokenError::Invalid), "{token:?}");
        }
    }
}
