//! The tables, and how an older database is brought up to date.

use std::time::{Duration, Instant};

use mysql::prelude::Queryable;
use mysql::{Conn, DriverError, Opts, OptsBuilder};

use super::error::Fault;
use super::pool::connect;
use super::sql::{Work, first, run};
use super::{Result, now_ms};
use crate::ports::StoreError;

/// Each entry brings the schema one version further; `schema_version` holds how many were applied. Statements that
/// define tables commit by themselves, so a step may be met half done: each must bear being run again.
const MIGRATIONS: &[&[&str]] = &[&[
    "CREATE TABLE IF NOT EXISTS meta(
       name VARCHAR(64) NOT NULL PRIMARY KEY,
       value BIGINT UNSIGNED NOT NULL
     ) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin",
    "CREATE TABLE IF NOT EXISTS users(
       id BIGINT UNSIGNED NOT NULL AUTO_INCREMENT PRIMARY KEY,
       username VARCHAR(64) NOT NULL,
       password_hash VARCHAR(255) NULL COMMENT 'null: made by dev login, no password',
       nickname VARCHAR(255) NOT NULL,
       avatar_url VARCHAR(1024) NULL,
       token_epoch BIGINT UNSIGNED NOT NULL DEFAULT 0 COMMENT 'access tokens of older epochs are refused',
       created_at_ms BIGINT UNSIGNED NOT NULL,
       UNIQUE KEY by_name(username)
     ) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin",
    "CREATE TABLE IF NOT EXISTS refresh_tokens(
       hash BINARY(32) NOT NULL PRIMARY KEY COMMENT 'SHA-256; the token itself is nowhere',
       user_id BIGINT UNSIGNED NOT NULL,
       family BIGINT UNSIGNED NOT NULL COMMENT 'all tokens that descend from one login',
       expires_at_ms BIGINT UNSIGNED NOT NULL,
       spent BOOLEAN NOT NULL DEFAULT FALSE,
       KEY by_user(user_id, family)
     ) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin",
    "CREATE TABLE IF NOT EXISTS devices(
       user_id BIGINT UNSIGNED NOT NULL,
       device_id VARBINARY(128) NOT NULL,
       device_class VARCHAR(32) NOT NULL,
       last_seen_ms BIGINT UNSIGNED NOT NULL,
       push_token VARBINARY(4096) NULL,
       PRIMARY KEY(user_id, device_id)
     ) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin",
    "CREATE TABLE IF NOT EXISTS conversations(
       id BIGINT UNSIGNED NOT NULL AUTO_INCREMENT PRIMARY KEY,
       conversation_id VARBINARY(64) NOT NULL COMMENT 'UTF-8; trailing spaces count',
       type TINYINT UNSIGNED NOT NULL COMMENT '1 direct, 2 group',
       name VARCHAR(256) NOT NULL,
       owner_id BIGINT UNSIGNED NULL,
       member_count INT UNSIGNED NOT NULL,
       dev_made BOOLEAN NOT NULL DEFAULT FALSE,
       fanout_mode TINYINT UNSIGNED NOT NULL DEFAULT 0 COMMENT '0 write, 1 read',
       mode_since_seq BIGINT UNSIGNED NOT NULL DEFAULT 0,
       version BIGINT UNSIGNED NOT NULL DEFAULT 0 COMMENT 'counts changes of members and of the mode',
       made_id BIGINT UNSIGNED NOT NULL COMMENT 'an id taken at the making: activity while nobody has written',
       created_at_ms BIGINT UNSIGNED NOT NULL,
       UNIQUE KEY by_text(conversation_id),
       KEY by_mode(fanout_mode)
     ) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin",
    "CREATE TABLE IF NOT EXISTS conversation_members(
       conversation BIGINT UNSIGNED NOT NULL,
       user_id BIGINT UNSIGNED NOT NULL,
       role TINYINT UNSIGNED NOT NULL COMMENT '1 owner, 2 admin, 3 member',
       joined_seq BIGINT UNSIGNED NOT NULL,
       joined_at_ms BIGINT UNSIGNED NOT NULL,
       read_seq BIGINT UNSIGNED NOT NULL,
       muted_until_ms BIGINT UNSIGNED NULL,
       version BIGINT UNSIGNED NOT NULL COMMENT 'of the conversation, when this member came or went',
       left_at_ms BIGINT UNSIGNED NULL COMMENT 'null: in it',
       PRIMARY KEY(conversation, user_id),
       KEY by_user(user_id),
       KEY by_version(conversation, version)
     ) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin",
    // The primary key is the fence between two writers, `sends` the arbiter of repeated sends. With UUIDv7 as
    // client ids, `sends` grows at its right edge.
    "CREATE TABLE IF NOT EXISTS messages(
       conversation BIGINT UNSIGNED NOT NULL,
       seq BIGINT UNSIGNED NOT NULL,
       message_id BIGINT UNSIGNED NOT NULL,
       sender_id BIGINT UNSIGNED NOT NULL,
       client_msg_id VARBINARY(66) NOT NULL COMMENT '16 bytes of a UUID, or zero byte and text',
       kind INT UNSIGNED NOT NULL,
       content MEDIUMBLOB NOT NULL,
       target_seq BIGINT UNSIGNED NULL COMMENT 'what an edit, a recall or a reaction is about',
       created_at_ms BIGINT UNSIGNED GENERATED ALWAYS AS ((message_id >> 22) + 1735689600000) VIRTUAL,
       PRIMARY KEY(conversation, seq),
       UNIQUE KEY sends(client_msg_id, conversation, sender_id)
     ) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin",
    "CREATE TABLE IF NOT EXISTS outbox(
       id BIGINT UNSIGNED NOT NULL AUTO_INCREMENT PRIMARY KEY,
       topic VARCHAR(249) NOT NULL,
       payload MEDIUMBLOB NOT NULL,
       attempts INT UNSIGNED NOT NULL DEFAULT 0,
       created_at_ms BIGINT UNSIGNED NOT NULL,
       due_at_ms BIGINT UNSIGNED NOT NULL,
       KEY by_due(due_at_ms)
     ) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin",
    "CREATE TABLE IF NOT EXISTS dead_letters(
       id BIGINT UNSIGNED NOT NULL AUTO_INCREMENT PRIMARY KEY,
       topic VARCHAR(249) NOT NULL,
       partition_no INT NOT NULL,
       offset_no BIGINT NOT NULL,
       reason VARCHAR(1024) NOT NULL,
       attempts INT UNSIGNED NOT NULL,
       payload MEDIUMBLOB NOT NULL,
       created_at_ms BIGINT UNSIGNED NOT NULL,
       replayed_at_ms BIGINT UNSIGNED NULL,
       UNIQUE KEY by_place(topic, partition_no, offset_no)
     ) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin",
    "CREATE TABLE IF NOT EXISTS signing_keys(
       id INT UNSIGNED NOT NULL PRIMARY KEY,
       key_bytes VARBINARY(1024) NOT NULL,
       created_at_ms BIGINT UNSIGNED NOT NULL
     ) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin",
]];

const VERSIONS: &str = "CREATE TABLE IF NOT EXISTS schema_version(
       version INT UNSIGNED NOT NULL PRIMARY KEY,
       applied_at_ms BIGINT UNSIGNED NOT NULL
     ) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin";

/// How long another service's migration is waited for.
const MIGRATION_WAIT: Duration = Duration::from_secs(60);
/// How long one step of a migration may take: longer than any other statement.
const STEP_WAIT: Duration = Duration::from_secs(60);
/// The server's code for a database that is not there.
const UNKNOWN_DATABASE: u16 = 1049;

/// Connects to the database and makes it first if it is missing.
pub(super) fn open_database(opts: &Opts, database: &str) -> Result<Conn> {
    check_name(database)?;
    let at = format!("{}:{}", opts.get_ip_or_hostname(), opts.get_tcp_port());
    let explain = |fault: Fault| {
        let what = |text| format!("cannot open database {database} at {at}: {text}");
        if let Fault::Sql(mysql::Error::DriverError(DriverError::UnknownAuthPlugin(asked))) = &fault
        {
            return StoreError::Internal(what(denied(opts.get_user().unwrap_or(""), asked)));
        }
        match fault.into_store_error() {
            StoreError::Unavailable(text) => StoreError::Unavailable(what(text)),
            StoreError::Corrupt(text) => StoreError::Corrupt(what(text)),
            StoreError::Internal(text) => StoreError::Internal(what(text)),
        }
    };
    match connect(opts) {
        Err(Fault::Sql(mysql::Error::MySqlError(error))) if error.code == UNKNOWN_DATABASE => {
            make_database(opts, database).and_then(|()| connect(opts)).map_err(explain)
        }
        done => done.map_err(explain),
    }
}

/// MySQL does not say that a user is unknown: it asks such a one to log in by a way that is picked at random.
fn denied(user: &str, asked: &str) -> String {
    format!(
        "access denied for '{user}': the server asks for a login by {asked}, which is not spoken here; MySQL asks so \
         of users that it does not know"
    )
}

fn make_database(opts: &Opts, database: &str) -> Work<()> {
    let mut connection =
        connect(&OptsBuilder::from_opts(opts.clone()).db_name(None::<String>).into())?;
    let sql = format!(
        "CREATE DATABASE IF NOT EXISTS `{database}` CHARACTER SET utf8mb4 COLLATE utf8mb4_bin"
    );
    Ok(connection.query_drop(sql)?)
}

/// A name stands in a statement as it is, so only plain ones are taken.
fn check_name(database: &str) -> Result<()> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'$');
    if database.is_empty() || database.len() > 64 || !database.bytes().all(plain) {
        return Err(StoreError::Internal(format!(
            "the database name {database:?} must be 1 to 64 letters, digits, '_', '-' or '$'"
        )));
    }
    Ok(())
}

/// Brings the database to the newest version, one service at a time; refuses one that a newer program wrote.
pub(super) fn migrate(connection: &mut Conn, opts: &Opts) -> Work<()> {
    let known = MIGRATIONS.len() as u64;
    if applied(connection)? == Some(known) {
        return Ok(());
    }
    let patient = OptsBuilder::from_opts(opts.clone()).read_timeout(Some(STEP_WAIT));
    let mut connection = connect(&patient.into())?;
    take_turn(&mut connection)?;
    let done = migrate_alone(&mut connection, known);
    let released = connection.query_drop("DO RELEASE_LOCK(CONCAT('corelane.', MD5(DATABASE())))");
    done?;
    Ok(released?)
}

fn migrate_alone(connection: &mut Conn, known: u64) -> Work<()> {
    connection.query_drop(VERSIONS)?;
    let done = applied(connection)?.unwrap_or(0);
    if done > known {
        return Err(StoreError::Internal(format!(
            "the database has version {done}, this program knows up to {known}"
        ))
        .into());
    }
    for (version, step) in (done + 1..).zip(&MIGRATIONS[done as usize..]) {
        for statement in *step {
            connection.query_drop(statement)?;
        }
        let sql = "INSERT INTO schema_version(version, applied_at_ms) VALUES(?, ?)";
        run(connection, sql, (version, now_ms()))?;
        tracing::info!(version, "the schema of the database was brought up to date");
    }
    Ok(())
}

/// The newest version applied; `None` if there is not even the table of versions.
fn applied(connection: &mut Conn) -> Work<Option<u64>> {
    let sql = "SELECT COUNT(*) FROM information_schema.tables \
               WHERE table_schema = DATABASE() AND table_name = 'schema_version'";
    if first::<(u64,)>(connection, sql, ())? == Some((0,)) {
        return Ok(None);
    }
    let version: Option<(Option<u64>,)> =
        first(connection, "SELECT MAX(version) FROM schema_version", ())?;
    Ok(version.map(|(version,)| version.unwrap_or(0)))
}

/// Waits until no other service migrates. The lock is the connection's and ends with it.
fn take_turn(connection: &mut Conn) -> Work<()> {
    let begun = Instant::now();
    while begun.elapsed() < MIGRATION_WAIT {
        // Short waits: each must end before the connection's own time limit.
        let sql = "SELECT COALESCE(GET_LOCK(CONCAT('corelane.', MD5(DATABASE())), 1), 0)";
        if first::<(u64,)>(connection, sql, ())? == Some((1,)) {
            return Ok(());
        }
    }
    Err(StoreError::Unavailable(
        "another service has been migrating the database for a minute".to_owned(),
    )
    .into())
}

/// Control run: takes the unique key of sends away.
#[cfg(feature = "fault-injection")]
pub(super) fn allow_repeated_sends(connection: &mut Conn) -> Work<()> {
    let sql = "SELECT COUNT(*) FROM information_schema.statistics \
               WHERE table_schema = DATABASE() AND table_name = 'messages' AND index_name = 'sends'";
    if first::<(u64,)>(connection, sql, ())? != Some((0,)) {
        connection.query_drop("ALTER TABLE messages DROP INDEX sends")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_could_end_a_statement_are_refused() {
        for good in ["corelane", "corelane_test_0190a6b2-7c3d", "A$1"] {
            assert!(check_name(good).is_ok(), "{good}");
        }
        for bad in ["", "a`b", "a;b", "a b", "ä", &"x".repeat(65)] {
            assert!(check_name(bad).is_err(), "{bad}");
        }
    }
}
