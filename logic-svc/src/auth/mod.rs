//! Who a client is: passwords, access tokens, refresh tokens.
//!
//! Knows: the store's users and sessions. Must not know: REST, queues. Nothing in here logs a secret.

pub(crate) mod accounts;
mod grant;
pub(crate) mod keys;
pub(crate) mod password;
mod resume;
pub(crate) mod token;
mod verified;

pub(crate) use grant::Identity;

/// Why the parts of this room could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum SetUpError {
    /// The key file cannot be read, written or understood.
    #[error("signing key {path}: {reason}")]
    KeyFile {
        /// The file.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The cost of password hashes is out of range.
    #[error("hash_memory_kib: {0}")]
    HashCost(String),
    /// The system gives no random bytes.
    #[error("the system gives no random bytes")]
    Randomness,
    /// Another part of the process set up signatures in its own way.
    #[error("another provider of token signatures is installed already")]
    Provider,
}
