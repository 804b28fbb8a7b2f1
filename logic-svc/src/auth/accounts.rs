//! Registering, logging in, refreshing, logging out.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use proto::error::ErrorCode;
use proto::ids::check_username;
use proto::v1::Failure;
use sha2::{Digest, Sha256};

use super::SetUpError;
use super::grant::Identity;
use super::keys::Keys;
use super::password::{self, Passwords};
use super::resume::ResumeTokens;
use super::token::{TokenError, Tokens};
use crate::config::Config;
use crate::domain::UserId;
use crate::ports::{Backend, Clock, NewUser, RefreshToken, Refreshed, User};
use crate::store::failure;

/// Longest nickname in bytes.
const NICKNAME_MAX_BYTES: usize = 128;
/// How long a resume token is good, in seconds: long enough for a train in a tunnel, not for a stolen device.
const RESUME_LIFETIME_S: u64 = 3600;
/// Random bytes in a refresh token.
const REFRESH_BYTES: usize = 32;

/// A new account as asked for.
pub(crate) struct Registration<'a> {
    /// Unique name.
    pub username: &'a str,
    /// Its password.
    pub password: &'a str,
    /// Display name; the user name if absent.
    pub nickname: Option<&'a str>,
}

/// What a login gives.
pub(crate) struct Session {
    /// Who logged in.
    pub user: UserId,
    /// The access token.
    pub access_token: String,
    /// The refresh token, good once.
    pub refresh_token: String,
    /// Seconds until the access token expires.
    pub expires_in_s: u64,
}

/// Accounts and their sessions. All methods block; those with a password for tens of milliseconds.
pub(crate) struct Accounts {
    store: Arc<dyn Backend>,
    tokens: Tokens,
    resume: ResumeTokens,
    passwords: Passwords,
    clock: Arc<dyn Clock>,
    refresh_lifetime_ms: u64,
}

impl Accounts {
    /// Accounts in this store, with tokens signed by `keys`, as the service's settings want them.
    ///
    /// # Errors
    /// Signatures or password hashes cannot be set up.
    pub(crate) fn open(
        config: &Config,
        keys: Keys,
        store: Arc<dyn Backend>,
        clock: &Arc<dyn Clock>,
    ) -> Result<Self, SetUpError> {
        let tokens = Tokens::new(
            keys,
            Arc::clone(clock),
            &config.issuer,
            &config.audience,
            config.access_token_s,
        )?;
        let passwords = Passwords::new(config.hash_memory_kib)?;
        Ok(Self::new(store, tokens, passwords, Arc::clone(clock), config.refresh_token_s))
    }

    /// Accounts in this store. Refresh tokens are good for `refresh_lifetime_s` seconds.
    #[must_use]
    fn new(
        store: Arc<dyn Backend>,
        tokens: Tokens,
        passwords: Passwords,
        clock: Arc<dyn Clock>,
        refresh_lifetime_s: u64,
    ) -> Self {
        Self {
            store,
            resume: ResumeTokens::new(tokens.secret(), RESUME_LIFETIME_S),
            tokens,
            passwords,
            clock,
            refresh_lifetime_ms: refresh_lifetime_s.saturating_mul(1000),
        }
    }

    /// The public keys as a JSON Web Key Set.
    #[must_use]
    pub(crate) fn public_keys(&self) -> serde_json::Value {
        self.tokens.public_keys()
    }

    /// The user of an access token.
    pub(crate) fn authenticate(&self, token: &str) -> Result<User, Failure> {
        let unauthenticated = |detail: String| ErrorCode::Unauthenticated.failure(detail);
        let identity =
            self.tokens.verify(token).map_err(|error| unauthenticated(error.to_string()))?;
        let user = self.store.user(identity.user).map_err(|error| failure(&error))?;
        user.filter(|user| user.token_epoch == identity.epoch).ok_or_else(revoked)
    }

    /// The users of access tokens by id and name, each for itself; the store is asked once for all of them.
    pub(crate) fn authenticate_all(
        &self,
        tokens: &[&str],
    ) -> Vec<Result<(Identity, String), Failure>> {
        let unauthenticated =
            |error: TokenError| ErrorCode::Unauthenticated.failure(error.to_string());
        let identities = self.tokens.verify_all(tokens).into_iter();
        self.identify_all(identities.map(|identity| identity.map_err(unauthenticated)).collect())
    }

    /// The users of resume tokens, like [`Accounts::authenticate_all`].
    pub(crate) fn resume_all(&self, tokens: &[&str]) -> Vec<Result<(Identity, String), Failure>> {
        let now_ms = self.clock.now_ms();
        let refused = || ErrorCode::Unauthenticated.failure("the resume token is not valid");
        let one = |token: &&str| self.resume.check(token, now_ms).ok_or_else(refused);
        self.identify_all(tokens.iter().map(one).collect())
    }

    /// A token with which this user may come back without an access token.
    pub(crate) fn resume_token(&self, identity: Identity) -> String {
        self.resume.issue(identity, self.clock.now_ms())
    }

    /// Names those who are still let in; the store is asked once for all of them.
    fn identify_all(
        &self,
        identities: Vec<Result<Identity, Failure>>,
    ) -> Vec<Result<(Identity, String), Failure>> {
        let good: Vec<UserId> = identities.iter().flatten().map(|identity| identity.user).collect();
        let users = self.store.names_and_epochs(&good).map_err(|error| failure(&error));
        let mut users = users.map(Vec::into_iter);
        let one = |identity: Result<Identity, Failure>| {
            let identity = identity?;
            let user = users.as_mut().map_err(|error| error.clone())?.next().flatten();
            let user = user.filter(|(_, epoch)| *epoch == identity.epoch);
            let (username, _) = user.ok_or_else(revoked)?;
            Ok((identity, username))
        };
        identities.into_iter().map(one).collect()
    }

    /// Makes an account.
    pub(crate) fn register(&self, new: &Registration<'_>) -> Result<User, Failure> {
        let nickname = new.nickname.filter(|name| !name.is_empty()).unwrap_or(new.username);
        check_username(new.username).map_err(|detail| ErrorCode::BadRequest.failure(detail))?;
        check_password(new.password)?;
        if nickname.len() > NICKNAME_MAX_BYTES {
            return Err(ErrorCode::TooLarge.failure("nickname is longer than 128 bytes"));
        }
        if nickname.chars().any(char::is_control) {
            return Err(ErrorCode::BadRequest.failure("nickname must not hold control characters"));
        }
        let taken = || ErrorCode::AlreadyExists.failure("this username is taken");
        if self.store.user_by_name(new.username).map_err(|error| failure(&error))?.is_some() {
            return Err(taken());
        }
        let hash = self.passwords.hash(new.password);
        let hash =
            hash.map_err(|_| ErrorCode::Internal.failure("the password could not be hashed"))?;
        let row = NewUser { username: new.username, nickname, password_hash: &hash };
        let id = self
            .store
            .create_user(&row, self.clock.now_ms())
            .map_err(|error| failure(&error))?
            .ok_or_else(taken)?;
        let (username, nickname) = (new.username.to_owned(), nickname.to_owned());
        Ok(User { id, username, nickname, password_hash: None, token_epoch: 0 })
    }

    /// Logs in. An unknown name and a wrong password look and take the same.
    pub(crate) fn login(&self, username: &str, password: &str) -> Result<Session, Failure> {
        let wrong = || ErrorCode::Unauthenticated.failure("wrong username or password");
        if password.len() > password::MAX_BYTES {
            return Err(wrong());
        }
        let user = self.store.user_by_name(username).map_err(|error| failure(&error))?;
        let hash = user.as_ref().and_then(|user| user.password_hash.as_deref());
        let right = self.passwords.verify(password, hash);
        let user = user.filter(|_| right).ok_or_else(wrong)?;
        let (refresh_token, hash) = refresh_token()?;
        let now_ms = self.clock.now_ms();
        let kept = RefreshToken {
            hash: &hash,
            expires_at_ms: now_ms.saturating_add(self.refresh_lifetime_ms),
        };
        self.store.begin_session(user.id, kept, now_ms).map_err(|error| failure(&error))?;
        self.session(&user, refresh_token)
    }

    /// Spends a refresh token for new tokens. One that was spent before voids all that descend from its login.
    pub(crate) fn refresh(&self, token: &str) -> Result<Session, Failure> {
        let refused = || ErrorCode::Unauthenticated.failure("the refresh token is not valid");
        let old = refresh_hash(token).ok_or_else(refused)?;
        let (refresh_token, hash) = refresh_token()?;
        let now_ms = self.clock.now_ms();
        let new = RefreshToken {
            hash: &hash,
            expires_at_ms: now_ms.saturating_add(self.refresh_lifetime_ms),
        };
        match self.store.refresh_session(&old, new, now_ms).map_err(|error| failure(&error))? {
            Refreshed::Good(user) => {
                let user =
                    self.store.user(user).map_err(|error| failure(&error))?.ok_or_else(refused)?;
                self.session(&user, refresh_token)
            }
            Refreshed::Reused => {
                tracing::warn!("a spent refresh token was shown again; its sessions were ended");
                Err(refused())
            }
            Refreshed::Unknown => Err(refused()),
        }
    }

    /// Voids every token of the user.
    pub(crate) fn logout(&self, user: UserId) -> Result<(), Failure> {
        self.store.end_sessions(user).map_err(|error| failure(&error))
    }

    fn session(&self, user: &User, refresh_token: String) -> Result<Session, Failure> {
        let token = self.tokens.issue(Identity { user: user.id, epoch: user.token_epoch });
        let access_token =
            token.map_err(|_| ErrorCode::Internal.failure("no token could be issued"))?;
        Ok(Session {
            user: user.id,
            access_token,
            refresh_token,
            expires_in_s: self.tokens.lifetime_s(),
        })
    }
}

/// A token whose user logged out after it was issued, or is gone.
pub(crate) fn revoked() -> Failure {
    ErrorCode::Unauthenticated.failure("the token was revoked")
}

fn check_password(password: &str) -> Result<(), Failure> {
    if password.len() < password::MIN_BYTES {
        return Err(ErrorCode::BadRequest.failure("password must have at least 8 bytes"));
    }
    if password.len() > password::MAX_BYTES {
        return Err(ErrorCode::TooLarge.failure("password is longer than 256 bytes"));
    }
    Ok(())
}

/// A fresh refresh token and the hash to keep.
fn refresh_token() -> Result<(String, [u8; 32]), Failure> {
    let mut bytes = [0; REFRESH_BYTES];
    getrandom::fill(&mut bytes).map_err(|_| ErrorCode::Internal.failure("no randomness"))?;
    Ok((URL_SAFE_NO_PAD.encode(bytes), Sha256::digest(bytes).into()))
}

fn refresh_hash(token: &str) -> Option<[u8; 32]> {
    if token.len() > 2 * REFRESH_BYTES {
        return None;
    }
    let bytes: [u8; REFRESH_BYTES] = URL_SAFE_NO_PAD.decode(token).ok()?.try_into().ok()?;
    Some(Sha256::digest(bytes).into())
}
