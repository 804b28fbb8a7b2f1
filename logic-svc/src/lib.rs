//! Gives every message its place in its conversation, stores it and routes it back.
//!
//! The embedded form: one process, SQLite, no broker. `README.md` draws the rooms of this crate.

pub mod config;
pub mod gateways;
pub mod ports;
pub mod snowflake;

pub mod domain;

mod api;
mod auth;
pub mod egress;
mod ingest;
mod ops;
pub mod pipeline;
mod rpc;
#[cfg(feature = "cluster")]
pub mod service;
pub mod store;
#[cfg(feature = "cluster")]
mod tasks;

use std::sync::{Arc, Mutex, PoisonError};

use auth::accounts::Accounts;
use auth::keys::Keys;
use config::Config;
use egress::router::Egress;
use ops::Operations;
use pipeline::Pipeline;
use ports::{
    Backend, CallSource, Clock, DeliverySink, HistoryStore, IdSource, Notifier, StoreError,
    UpstreamSource,
};
use snowflake::{Snowflake, SystemClock};
use store::presence::LocalPresence;
use store::sqlite::{Directory, Log, Maintenance, MergeLimits, Options, Store};

pub use auth::SetUpError;

/// Name of the database file in the data folder.
const DATABASE_FILE: &str = "corelane.db";

/// Why the service could not start.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The data folder cannot be made or written.
    #[error("data folder {path}: {source}")]
    DataDir {
        /// The folder.
        path: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// A setting is out of range.
    #[error("{key} is {value}; {allowed}")]
    Config {
        /// The setting.
        key: &'static str,
        /// What it is set to.
        value: String,
        /// What is allowed.
        allowed: &'static str,
    },
    /// The database cannot be opened or read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Keys, hashes or tokens could not be set up.
    #[error(transparent)]
    Auth(#[from] SetUpError),
}

/// The running service. Clones share everything.
#[derive(Clone)]
pub struct Service(Arc<Inner>);

struct Inner {
    config: Config,
    sink: Arc<dyn DeliverySink>,
    store: Arc<Store>,
    pipeline: Mutex<Pipeline<Log, Directory, Egress<LocalPresence>>>,
    operations: Arc<Operations>,
    maintenance: Mutex<Maintenance>,
    _news: News,
}

/// The thread that tells of users who come and go; ends with this.
struct News {
    presence: Arc<LocalPresence>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl News {
    fn start(presence: Arc<LocalPresence>, operations: Arc<Operations>) -> Result<Self, OpenError> {
        let seen = Arc::clone(&presence);
        let tell = move || {
            while let Some(turned) = seen.turned() {
                operations.tell_presence(turned);
            }
        };
        let thread = std::thread::Builder::new().name("presence".to_owned()).spawn(tell);
        let thread = thread.map_err(|error| StoreError::Unavailable(error.to_string()))?;
        Ok(Self { presence, thread: Some(thread) })
    }
}

impl Drop for News {
    fn drop(&mut self) {
        self.presence.end();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Service {
    /// Opens the store in `config.data_dir` and makes what is missing there.
    pub fn open(config: Config, sink: Arc<dyn DeliverySink>) -> Result<Self, OpenError> {
        check(&config)?;
        std::fs::create_dir_all(&config.data_dir).map_err(|source| OpenError::DataDir {
            path: config.data_dir.display().to_string(),
            source,
        })?;
        let store = Store::open(&store_options(&config))?;
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let used_until_ms = snowflake::time_ms(store.newest_id()?);
        let ids: Arc<dyn IdSource> =
            Arc::new(Snowflake::new(SystemClock, config.worker_id, used_until_ms));
        let presence = Arc::new(LocalPresence::new(&config.device_policy, Arc::clone(&clock)));
        let keys = Keys::load(&config.data_dir)?;
        let accounts = Accounts::open(&config, keys, store.clone(), &clock)?;
        let backend: Arc<dyn Backend> = store.clone();
        let maintenance = Maintenance::start(Arc::clone(&store), merge_limits(&config))?;
        let pipeline = Pipeline::new(
            Log::new(Arc::clone(&store)),
            Directory::new(Arc::clone(&store)),
            Egress::new(Arc::clone(&presence)),
            Arc::clone(&ids),
            pipeline::Settings::of(&config),
        );
        let settings = ops::Settings {
            dev_login: config.dev_login,
            heartbeat_ms: config.heartbeat_ms,
            max_connections_per_user: config.max_connections_per_user,
            logouts_elsewhere: false,
            event_members_max: config.event_members_max,
        };
        let notifier: Arc<dyn Notifier> = Arc::new(egress::local::ToShards(Arc::clone(&sink)));
        let operations =
            Operations::new(backend, presence.clone(), accounts, notifier, clock, ids, settings);
        let operations = Arc::new(operations);
        let news = News::start(presence, Arc::clone(&operations))?;
        Ok(Self(Arc::new(Inner {
            config,
            sink,
            store,
            pipeline: Mutex::new(pipeline),
            operations,
            maintenance: Mutex::new(maintenance),
            _news: news,
        })))
    }

    /// Takes messages from `source` until it is closed: a blocking loop for a thread of its own.
    pub fn run_ingest(&self, mut source: impl UpstreamSource) {
        let Inner { pipeline, sink, config, .. } = &*self.0;
        ingest::direct::run(pipeline, &**sink, &mut source, config.tick_max_messages);
    }

    /// Answers calls from `source` until it is closed: a blocking loop for one or more threads of its own.
    pub fn run_calls(&self, mut source: impl CallSource) {
        rpc::run(&self.0.operations, &*self.0.sink, &mut source);
    }

    /// The REST interface, `/healthz`, `/readyz` and `/.well-known/jwks.json`.
    pub fn router(&self) -> axum::Router {
        api::router(Arc::clone(&self.0.operations), self.0.config.hash_threads)
    }

    /// Stops background work and brings the database file up to date. Everything acknowledged is durable already.
    pub fn close(self) {
        self.0.maintenance.lock().unwrap_or_else(PoisonError::into_inner).stop();
        if let Err(error) = self.0.store.checkpoint_all() {
            tracing::warn!(%error, "the write-ahead log was not copied back; the next start does it");
        }
    }
}

fn check(config: &Config) -> Result<(), OpenError> {
    let refuse = |key, value: &dyn ToString, allowed| {
        Err(OpenError::Config { key, value: value.to_string(), allowed })
    };
    if config.worker_id > snowflake::WORKER_MAX {
        return refuse("worker_id", &config.worker_id, "0 to 1023 is allowed");
    }
    if config.content_max_bytes == 0 || config.content_max_bytes > 1024 * 1024 {
        return refuse("content_max_bytes", &config.content_max_bytes, "1 to 1048576 is allowed");
    }
    if config.tick_max_messages == 0 {
        return refuse("tick_max_messages", &config.tick_max_messages, "at least 1 is allowed");
    }
    if config.access_token_s == 0 || config.refresh_token_s == 0 {
        return refuse("access_token_s, refresh_token_s", &0, "at least 1 is allowed");
    }
    Ok(())
}

fn store_options(config: &Config) -> Options {
    Options {
        path: config.data_dir.join(DATABASE_FILE),
        read_connections: config.read_connections,
        wal_bytes: config.wal_checkpoint_bytes,
        #[cfg(feature = "fault-injection")]
        unique_sends: config.fault != Some(config::Fault::NoUniqueKey),
        #[cfg(not(feature = "fault-injection"))]
        unique_sends: true,
    }
}

fn merge_limits(config: &Config) -> MergeLimits {
    MergeLimits {
        backlog_rows: config.merge_backlog_rows as u64,
        hard_rows: config.merge_backlog_hard_rows as u64,
        wal_bytes: config.wal_checkpoint_bytes,
    }
}
