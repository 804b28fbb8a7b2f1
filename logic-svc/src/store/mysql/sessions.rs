//! Refresh tokens, kept as hashes only, and the key that signs access tokens.

use mysql::Conn;

use super::error::Fault;
use super::sql::{Work, first, run};
use super::{Result, Store, now_ms};
use crate::domain::UserId;
use crate::ports::{RefreshToken, Refreshed, TokenStore};

impl TokenStore for Store {
    fn begin_session(&self, user: UserId, token: RefreshToken<'_>, now_ms: u64) -> Result<()> {
        self.write(|connection| {
            // Two logins of one user at once would take the same family.
            let sql = "SELECT id FROM users WHERE id = ? FOR UPDATE";
            first::<(UserId,)>(connection, sql, (user,))?;
            let sql = "DELETE FROM refresh_tokens WHERE user_id = ? AND expires_at_ms < ?";
            run(connection, sql, (user, now_ms))?;
            let sql = "SELECT COALESCE(MAX(family), 0) + 1 FROM refresh_tokens WHERE user_id = ?";
            let family = first::<(u64,)>(connection, sql, (user,))?.map_or(1, |(family,)| family);
            insert(connection, user, family, token)
        })
    }

    fn refresh_session(
        &self,
        old: &[u8; 32],
        new: RefreshToken<'_>,
        now_ms: u64,
    ) -> Result<Refreshed> {
        self.write(|connection| refresh(connection, old, new, now_ms))
    }

    fn end_sessions(&self, user: UserId) -> Result<()> {
        self.write(|connection| {
            let sql = "UPDATE users SET token_epoch = token_epoch + 1 WHERE id = ?";
            run(connection, sql, (user,))?;
            run(connection, "DELETE FROM refresh_tokens WHERE user_id = ?", (user,))
        })
    }
}

fn refresh(
    connection: &mut Conn,
    old: &[u8; 32],
    new: RefreshToken<'_>,
    now_ms: u64,
) -> Work<Refreshed> {
    let sql = "SELECT user_id, family, expires_at_ms, spent FROM refresh_tokens WHERE hash = ? FOR UPDATE";
    let found: Option<(UserId, u64, u64, bool)> = first(connection, sql, (&old[..],))?;
    let Some((user, family, expires_at_ms, spent)) = found else { return Ok(Refreshed::Unknown) };
    if spent {
        let sql = "DELETE FROM refresh_tokens WHERE user_id = ? AND family = ?";
        run(connection, sql, (user, family))?;
        return Ok(Refreshed::Reused);
    }
    if expires_at_ms <= now_ms {
        return Ok(Refreshed::Unknown);
    }
    run(connection, "UPDATE refresh_tokens SET spent = TRUE WHERE hash = ?", (&old[..],))?;
    insert(connection, user, family, new)?;
    Ok(Refreshed::Good(user))
}

fn insert(connection: &mut Conn, user: UserId, family: u64, token: RefreshToken<'_>) -> Work<()> {
    let sql = "INSERT INTO refresh_tokens(hash, user_id, family, expires_at_ms) VALUES(?, ?, ?, ?)";
    run(connection, sql, (&token.hash[..], user, family, token.expires_at_ms))
}

/// The one key there is for now; its number leaves room for a successor.
const SIGNING_KEY: u32 = 1;

impl Store {
    /// The key that signs access tokens, the same for all services: the first one to offer one wins.
    pub(crate) fn signing_key(&self, make: impl FnOnce() -> Vec<u8>) -> Result<Vec<u8>> {
        if let Some(key) = self.read(stored_key)? {
            return Ok(key);
        }
        let offer = make();
        self.write(|connection| {
            let sql = "INSERT INTO signing_keys(id, key_bytes, created_at_ms) VALUES(?, ?, ?) \
                       ON DUPLICATE KEY UPDATE id = id";
            run(connection, sql, (SIGNING_KEY, &offer, now_ms()))?;
            stored_key(connection)?.ok_or_else(|| Fault::corrupt("the signing key is gone"))
        })
    }
}

fn stored_key(connection: &mut Conn) -> Work<Option<Vec<u8>>> {
    let sql = "SELECT key_bytes FROM signing_keys WHERE id = ?";
    Ok(first::<(Vec<u8>,)>(connection, sql, (SIGNING_KEY,))?.map(|(key,)| key))
}
