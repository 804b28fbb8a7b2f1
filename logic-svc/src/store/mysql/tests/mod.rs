//! Against a real server: each test in a database of its own.

mod backend;
mod faults;
mod log;
mod measure;
mod members;
mod pipeline;
mod proxy;
mod retention;
mod server;

use std::sync::Arc;
use std::time::Duration;

use mysql::prelude::{FromValue, Queryable};
use mysql::{Conn, Opts};

use super::*;
use crate::domain::message::ClientKey;
use crate::ports::{
    Append, AppendError, Body, ConversationStore, Ensure, MessageLog, NewMessage, Run, SendKey,
    Sent, UserStore,
};
use crate::store::appending::append_as;

/// A text as the log has it.
fn said(text: &str) -> Option<Body> {
    Some(Body { msg_type: 1, content: text.to_owned().into() })
}

const PATIENCE: Duration = Duration::from_secs(20);

/// A database that ends with the test.
pub(super) struct Database {
    pub(super) url: String,
    pub(super) name: String,
}

/// The server the tests use.
fn server_url() -> String {
    std::env::var("CORELANE_TEST_MYSQL")
        .expect("CORELANE_TEST_MYSQL names the server, see `cargo xtask servers env`")
}

impl Database {
    pub(super) fn new() -> Self {
        Self::on(server_url())
    }

    pub(super) fn on(url: String) -> Self {
        Self { url, name: format!("corelane_test_{}", uuid::Uuid::new_v4().simple()) }
    }

    /// With limits that a busy machine does not reach; what waits in vain still fails by them.
    pub(super) fn options(&self) -> Options {
        Options {
            statement_timeout: PATIENCE,
            connect_timeout: PATIENCE,
            ..Options::new(self.url.clone(), self.name.clone())
        }
    }

    pub(super) fn open(&self) -> Arc<Store> {
        Store::open(&self.options()).expect("the test server answers")
    }

    /// A connection past the store.
    pub(super) fn raw(&self) -> Conn {
        let opts = Opts::from_url(&format!("{}/{}", self.url, self.name)).expect("a good URL");
        Conn::new(opts).expect("the test server answers")
    }

    pub(super) fn ask<T: FromValue>(&self, sql: &str) -> T {
        self.raw().query_first(sql).expect("a good query").expect("a row")
    }

    pub(super) fn count(&self, table: &str) -> u64 {
        self.ask(&format!("SELECT COUNT(*) FROM {table}"))
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        let Ok(opts) = Opts::from_url(&self.url) else { return };
        if let Ok(mut connection) = Conn::new(opts) {
            let _ = connection.query_drop(format!("DROP DATABASE IF EXISTS `{}`", self.name));
        }
    }
}

/// One service: a store and its log.
pub(super) struct Fixture {
    pub(super) store: Arc<Store>,
    pub(super) log: Log,
    pub(super) users: Vec<u64>,
    /// Direct conversations of alice with bob, with herself, and of bob with himself.
    pub(super) conversations: Vec<u64>,
    next_message_id: u64,
}

impl Fixture {
    pub(super) fn new(database: &Database) -> Self {
        Self::with(&database.options(), 1 << 30)
    }

    pub(super) fn with(options: &Options, first_message_id: u64) -> Self {
        let store = Store::open(options).expect("the test server answers");
        let users = store.ensure_users(&["alice", "bob"], 1).unwrap();
        let ensure =
            |low: usize, high: usize| Ensure::Direct { low: users[low], high: users[high] };
        let made = store.ensure(&[ensure(0, 1), ensure(0, 0), ensure(1, 1)], 1).unwrap();
        let conversations = made.into_iter().map(|one| one.unwrap().no).collect();
        let log = Log::new(Arc::clone(&store));
        Self { store, log, users, conversations, next_message_id: first_message_id }
    }

    pub(super) fn ids(&mut self, count: usize) -> Vec<u64> {
        self.next_message_id += count as u64;
        (self.next_message_id - count as u64..self.next_message_id).collect()
    }

    /// One tick: (conversation, sender, content) each; client ids are the message ids.
    pub(super) fn append(
        &mut self,
        messages: &[(u64, u64, Vec<u8>)],
    ) -> Result<Vec<Sent>, AppendError> {
        let ids = self.ids(messages.len());
        let keys: Vec<String> = ids.iter().map(u64::to_string).collect();
        append_as(&mut self.log, messages, &ids, &keys)
    }
}

/// Short limits, for tests in which the server does not answer.
pub(super) fn impatient(mut options: Options) -> Options {
    options.statement_timeout = Duration::from_secs(2);
    options.connect_timeout = Duration::from_secs(2);
    options
}
