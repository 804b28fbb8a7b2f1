//! Refresh tokens, kept as hashes only.

use rusqlite::{OptionalExtension, Transaction, params};

use super::{Result, Store, int, uint};
use crate::domain::UserId;
use crate::ports::{RefreshToken, Refreshed, TokenStore};

impl TokenStore for Store {
    fn begin_session(&self, user: UserId, token: RefreshToken<'_>, now_ms: u64) -> Result<()> {
        self.write(|tx, _| {
            let sql = "DELETE FROM refresh_tokens WHERE user = ? AND expires_at_ms < ?";
            tx.prepare_cached(sql)?.execute([int(user), int(now_ms)])?;
            let sql = "SELECT coalesce(max(family), 0) + 1 FROM refresh_tokens WHERE user = ?";
            let family: i64 = tx.prepare_cached(sql)?.query_row([int(user)], |row| row.get(0))?;
            Ok(insert(tx, user, family, token)?)
        })
    }

    fn refresh_session(
        &self,
        old: &[u8; 32],
        new: RefreshToken<'_>,
        now_ms: u64,
    ) -> Result<Refreshed> {
        self.write(|tx, _| {
            let sql =
                "SELECT user, family, expires_at_ms, spent FROM refresh_tokens WHERE hash = ?";
            let found = tx
                .prepare_cached(sql)?
                .query_row([&old[..]], |row| {
                    Ok((
                        uint(row.get(0)?),
                        row.get::<_, i64>(1)?,
                        uint(row.get(2)?),
                        row.get::<_, bool>(3)?,
                    ))
                })
                .optional()?;
            let Some((user, family, expires_at_ms, spent)) = found else {
                return Ok(Refreshed::Unknown);
            };
            if spent {
                let sql = "DELETE FROM refresh_tokens WHERE user = ? AND family = ?";
                tx.prepare_cached(sql)?.execute([int(user), family])?;
                return Ok(Refreshed::Reused);
            }
            if expires_at_ms <= now_ms {
                return Ok(Refreshed::Unknown);
            }
            tx.prepare_cached("UPDATE refresh_tokens SET spent = 1 WHERE hash = ?")?
                .execute([&old[..]])?;
            insert(tx, user, family, new)?;
            Ok(Refreshed::Good(user))
        })
    }

    fn end_sessions(&self, user: UserId) -> Result<()> {
        self.write(|tx, _| {
            tx.prepare_cached("DELETE FROM refresh_tokens WHERE user = ?")?.execute([int(user)])?;
            tx.prepare_cached("UPDATE users SET token_epoch = token_epoch + 1 WHERE id = ?")?
                .execute([int(user)])?;
            Ok(())
        })
    }
}

fn insert(
    tx: &Transaction<'_>,
    user: UserId,
    family: i64,
    token: RefreshToken<'_>,
) -> rusqlite::Result<()> {
    let sql = "INSERT INTO refresh_tokens(hash, user, family, expires_at_ms) VALUES(?, ?, ?, ?)";
    tx.prepare_cached(sql)?
        .execute(params![&token.hash[..], int(user), family, int(token.expires_at_ms)])
        .map(drop)
}
