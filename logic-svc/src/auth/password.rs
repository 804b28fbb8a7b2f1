//! Password hashes: argon2id with a random salt, in the PHC string format.

use argon2::password_hash::{PasswordHash, PasswordHasher, PasswordVerifier, SaltString};
use argon2::{Algorithm, Argon2, Params, Version};

use super::SetUpError;

/// Shortest password in bytes.
pub(crate) const MIN_BYTES: usize = 8;
/// Longest password in bytes; bounds the work of one hash.
pub(crate) const MAX_BYTES: usize = 256;

/// Makes and checks hashes. Each takes tens of milliseconds: never on a thread that others wait for.
pub(crate) struct Passwords {
    argon: Argon2<'static>,
    /// Checked when there is no user, so that an unknown name takes as long as a wrong password.
    dummy: String,
}

impl Passwords {
    /// Hashes with this much memory each, two passes.
    pub(crate) fn new(memory_kib: u32) -> Result<Self, SetUpError> {
        let fault = |error: &dyn std::fmt::Display| SetUpError::HashCost(error.to_string());
        let params = Params::new(memory_kib, 2, 1, None).map_err(|error| fault(&error))?;
        let argon = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
        let mut passwords = Self { argon, dummy: String::new() };
        passwords.dummy =
            passwords.hash("no user has this password").map_err(|error| fault(&error))?;
        Ok(passwords)
    }

    /// The hash to store.
    pub(crate) fn hash(&self, password: &str) -> Result<String, argon2::password_hash::Error> {
        let mut salt = [0; 16];
        getrandom::fill(&mut salt).map_err(|_| argon2::password_hash::Error::Crypto)?;
        let salt = SaltString::encode_b64(&salt)?;
        Ok(self.argon.hash_password(password.as_bytes(), &salt)?.to_string())
    }

    /// Whether the password belongs to the hash. Without a hash: no, after the same time.
    #[must_use]
    pub(crate) fn verify(&self, password: &str, hash: Option<&str>) -> bool {
        let stored = PasswordHash::new(hash.unwrap_or(&self.dummy));
        let right = stored
            .is_ok_and(|stored| self.argon.verify_password(password.as_bytes(), &stored).is_ok());
        right && hash.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_fits_its_hash_and_no_other() {
        let passwords = Passwords::new(64).unwrap();
        let hash = passwords.hash("correct horse").unwrap();
        assert!(hash.starts_with("$argon2id$v=19$m=64,t=2,p=1$"), "{hash}");
        assert!(passwords.verify("correct horse", Some(&hash)));
        assert!(!passwords.verify("correct horsf", Some(&hash)));
        assert!(!passwords.verify("correct horse", Some("not a hash")));
        assert_ne!(passwords.hash("correct horse").unwrap(), hash, "the salt differs");
    }

    #[test]
    fn no_user_is_never_right() {
        let passwords = Passwords::new(64).unwrap();
        assert!(!passwords.verify("no user has this password", None));
    }

    #[test]
    fn a_senseless_cost_is_named() {
        assert!(matches!(Passwords::new(1), Err(SetUpError::HashCost(_))));
    }
}
