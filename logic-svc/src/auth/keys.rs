//! The signing keys: Ed25519, in a file only the owner may read, published as a JSON Web Key Set (RFC 7517, 8037).

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ed25519_dalek::{SigningKey, VerifyingKey};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::SetUpError;

/// Name of the key file in the data folder.
const FILE: &str = "signing-keys.json";

/// A pair of keys and its name.
pub(super) struct Key {
    pub(super) kid: String,
    pub(super) signing: SigningKey,
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
    whole.then(|| Key { kid: thumbprint(&signing.verifying_key()), signing })
}

/// Name of a key: its RFC 7638 thumbprint.
fn thumbprint(key: &VerifyingKey) -> String {
    let x = URL_SAFE_NO_PAD.encode(key.as_bytes());
    URL_SAFE_NO_PAD.encode(Sha256::digest(format!(r#"{{"crv":"Ed25519","kty":"OKP","x":"{x}"}}"#)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn the_thumbprint_is_that_of_rfc_8037() {
        // RFC 8037, appendix A.2 and A.3.
        let x = URL_SAFE_NO_PAD.decode("11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo").unwrap();
        let key = VerifyingKey::from_bytes(&x.try_into().unwrap()).unwrap();
        assert_eq!(thumbprint(&key), "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k");
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
