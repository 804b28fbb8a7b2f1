//! The signing keys: Ed25519, in a file only the owner may read, published as a JSON Web Key Set (RFC 7517, 8037).

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use curve25519_dalek::scalar::{Scalar, clamp_integer};
use ed25519_dalek::{SigningKey, VerifyingKey};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256, Sha512};
use subtle::ConstantTimeEq;

use super::SetUpError;

/// Name of the key file in the data folder.
const FILE: &str = "signing-keys.json";

/// A pair of keys and its name.
pub(super) struct Key {
    pub(super) kid: String,
    pub(super) signing: SigningKey,
    /// The secret scalar: the first half of the key's hash.
    secret: Scalar,
    /// The second half of the key's hash, from which each message's nonce is derived (RFC 8032 5.1.5, 5.1.6).
    prefix: [u8; 32],
}

impl Key {
    fn new(signing: SigningKey) -> Self {
        let hash: [u8; 64] = Sha512::digest(signing.as_bytes()).into();
        let (mut half, mut prefix) = ([0; 32], [0; 32]);
        half.copy_from_slice(&hash[..32]);
        prefix.copy_from_slice(&hash[32..]);
        let secret = Scalar::from_bytes_mod_order(clamp_integer(half));
        Self { kid: thumbprint(&signing.verifying_key()), signing, secret, prefix }
    }

    /// Whether `shown` is our own signature of the message.
    ///
    /// RFC 8032 5.1.6 makes it of R and S = r + k a, where a is the secret scalar, r is derived from message and
    /// secret, and k from R, public key and message. Who knows a and r can check that equation as it stands, which
    /// takes no operation on the curve, unlike R = r B: two hashes and one product of scalars. Nobody else can
    /// fulfil it. Of a message that we never signed, r is as good as random to others, and S with it; of one that we
    /// did sign, a second pair of R and S that passes would give away a, the logarithm of the public key.
    pub(super) fn has_signed(&self, message: &[u8], shown: &[u8]) -> bool {
        let Some((point, sum)) = shown.split_at_checked(32) else { return false };
        let public = self.signing.verifying_key();
        let nonce = scalar(&[&self.prefix, message]);
        let challenge = scalar(&[point, public.as_bytes(), message]);
        let right = nonce + challenge * self.secret;
        // In constant time: how far a guess was right must not show, or S could be found byte by byte.
        right.as_bytes().as_slice().ct_eq(sum).into()
    }
}

/// The hash of the parts as a number (RFC 8032 5.1.6).
fn scalar(parts: &[&[u8]]) -> Scalar {
    let mut hash = Sha512::new();
    parts.iter().for_each(|part| hash.update(part));
    Scalar::from_bytes_mod_order_wide(&hash.finalize().into())
}

/// All keys. The first signs; all of them verify, so that a new one can be put in front while tokens of the
/// old one are still about.
pub(crate) struct Keys(Vec<Key>);

#[derive(Serialize, Deserialize)]
struct KeyFile {
    keys: Vec<PrivateJwk>,
}

#[derive(Serialize, Deserialize)]
struct PrivateJwk {
    kty: String,
    crv: String,
    x: String,
    d: String,
}

/// A published key.
#[derive(Serialize)]
struct PublicJwk<'a> {
    kty: &'a str,
    crv: &'a str,
    x: String,
    kid: &'a str,
    r#use: &'a str,
    alg: &'a str,
}

impl Keys {
    /// Reads the key file of a data folder; makes it at first start.
    pub(crate) fn load(data_dir: &Path) -> Result<Self, SetUpError> {
        let path = data_dir.join(FILE);
        let fault =
            |reason: String| SetUpError::KeyFile { path: path.display().to_string(), reason };
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                create(&path).map_err(|error| fault(error.to_string()))?
            }
            Err(error) => return Err(fault(error.to_string())),
        };
        // The parser's own message could quote the key.
        let file: KeyFile = serde_json::from_slice(&text)
            .map_err(|_| fault("is no JSON Web Key Set".to_owned()))?;
        let keys: Option<Vec<Key>> = file.keys.iter().map(read_key).collect();
        match keys {
            Some(keys) if !keys.is_empty() => Ok(Self(keys)),
            _ => Err(fault("holds no usable Ed25519 key".to_owned())),
        }
    }

    /// Keys made of seeds, as several services share them; the first signs. `None` without any.
    #[cfg(feature = "cluster")]
    pub(crate) fn of_seeds(seeds: &[[u8; 32]]) -> Option<Self> {
        let key = |seed: &[u8; 32]| Key::new(SigningKey::from_bytes(seed));
        let keys: Vec<Key> = seeds.iter().map(key).collect();
        (!keys.is_empty()).then_some(Self(keys))
    }

    /// The key that signs.
    pub(super) fn signing(&self) -> &Key {
        &self.0[0]
    }

    /// The key of this name.
    pub(super) fn find(&self, kid: &str) -> Option<&Key> {
        self.0.iter().find(|key| key.kid == kid)
    }

    /// The public halves as a JSON Web Key Set.
    #[must_use]
    pub(crate) fn public(&self) -> serde_json::Value {
        let keys: Vec<PublicJwk<'_>> = self.0.iter().map(public).collect();
        serde_json::json!({ "keys": keys })
    }
}

fn public(key: &Key) -> PublicJwk<'_> {
    let x = URL_SAFE_NO_PAD.encode(key.signing.verifying_key().as_bytes());
    PublicJwk { kty: "OKP", crv: "Ed25519", x, kid: &key.kid, r#use: "sig", alg: "EdDSA" }
}

fn create(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).map_err(std::io::Error::other)?;
    let key = SigningKey::from_bytes(&seed);
    let jwk = PrivateJwk {
        kty: "OKP".to_owned(),
        crv: "Ed25519".to_owned(),
        x: URL_SAFE_NO_PAD.encode(key.verifying_key().as_bytes()),
        d: URL_SAFE_NO_PAD.encode(seed),
    };
    let text = serde_json::to_vec_pretty(&KeyFile { keys: vec![jwk] })?;
    // Written beside and renamed, so that a stop in between leaves no half of a key.
    let beside = path.with_extension("new");
    let mut file =
        OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
    file.write_all(&text)?;
    file.sync_all()?;
    fs::rename(&beside, path)?;
    Ok(text)
}

fn read_key(jwk: &PrivateJwk) -> Option<Key> {
    let seed: [u8; 32] = URL_SAFE_NO_PAD.decode(&jwk.d).ok()?.try_into().ok()?;
    let signing = SigningKey::from_bytes(&seed);
    let x = URL_SAFE_NO_PAD.encode(signing.verifying_key().as_bytes());
    let whole = jwk.kty == "OKP" && jwk.crv == "Ed25519" && jwk.x == x;
    whole.then(|| Key::new(signing))
}

/// Name of a key: its RFC 7638 thumbprint.
fn thumbprint(key: &VerifyingKey) -> String {
    let x = URL_SAFE_NO_PAD.encode(key.as_bytes());
    URL_SAFE_NO_PAD.encode(Sha256::digest(format!(r#"{{"crv":"Ed25519","kty":"OKP","x":"{x}"}}"#)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use ed25519_dalek::Signer;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn the_thumbprint_is_that_of_rfc_8037() {
        // RFC 8037, appendix A.2 and A.3.
        let x = URL_SAFE_NO_PAD.decode("11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo").unwrap();
        let key = VerifyingKey::from_bytes(&x.try_into().unwrap()).unwrap();
        assert_eq!(thumbprint(&key), "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k");
    }

    #[test]
    fn a_signature_is_known_and_nothing_like_it() {
        let key = |seed| Key::new(SigningKey::from_bytes(&[seed; 32]));
        let (ours, other) = (key(1), key(2));
        for length in [0, 1, 47, 48, 111, 112, 300] {
            let (message, next) = (vec![b'm'; length], vec![b'm'; length + 1]);
            let signature = ours.signing.sign(&message).to_bytes();
            assert!(ours.has_signed(&message, &signature), "{length} bytes");
            assert!(!ours.has_signed(&next, &signature) && !other.has_signed(&message, &signature));
            // Parts of good signatures, and every single bit, are no signature.
            let (_, sum) = signature.split_at(32);
            let mixed = [&ours.signing.sign(&next).to_bytes()[..32], sum].concat();
            assert!(!ours.has_signed(&message, &mixed));
            for bit in 0..512 {
                let mut changed = signature;
                changed[bit / 8] ^= 1 << (bit % 8);
                assert!(!ours.has_signed(&message, &changed), "bit {bit}");
            }
            for cut in [0, 1, 31, 32, 33, 63] {
                assert!(!ours.has_signed(&message, &signature[..cut]), "{cut} bytes");
            }
            assert!(!ours.has_signed(&message, &[&signature[..], &[0]].concat()));
        }
    }

    /// S is smaller than the group's order: adding the order makes another number for the same sum, which a lax
    /// check would take for a second signature of the same message.
    #[test]
    fn a_signature_has_one_form() {
        const ORDER: [u8; 32] = [
            0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9,
            0xde, 0x14, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
        ];
        let key = Key::new(SigningKey::from_bytes(&[3; 32]));
        let mut signature = key.signing.sign(b"m").to_bytes();
        let mut carry = 0;
        for (byte, more) in signature[32..].iter_mut().zip(ORDER) {
            carry += u16::from(*byte) + u16::from(more);
            *byte = carry.to_le_bytes()[0];
            carry >>= 8;
        }
        assert!(!key.has_signed(b"m", &signature));
    }

    #[test]
    fn the_key_is_made_once_and_only_for_its_owner() {
        let dir = tempfile::tempdir().unwrap();
        let first = Keys::load(dir.path()).unwrap().public();
        assert_eq!(Keys::load(dir.path()).unwrap().public(), first);
        let mode = fs::metadata(dir.path().join(FILE)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(!first.to_string().contains("\"d\""), "the private half is not published");
    }

    #[test]
    fn a_damaged_file_is_named_and_its_content_is_not() {
        let dir = tempfile::tempdir().unwrap();
        for text in [
            "{",
            r#"{"keys":[]}"#,
            r#"{"keys":[{"kty":"OKP","crv":"Ed25519","x":"AAAA","d":"c2VjcmV0LXNlY3JldA"}]}"#,
        ] {
            fs::write(dir.path().join(FILE), text).unwrap();
            let Err(error) = Keys::load(dir.path()) else { panic!("{text} was taken") };
            let shown = format!("{error} {error:?}");
            assert!(shown.contains(FILE) && !shown.contains("c2VjcmV0"), "{shown}");
        }
    }
}
