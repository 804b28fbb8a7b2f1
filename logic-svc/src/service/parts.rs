//! The parts of the service, each made once.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use cluster::etcd::Worker;

use super::ids::LeasedIds;
use super::reports::RedisReports;
use super::settings::Settings;
use super::watched::Watched;
use super::{Result, ServiceError, patiently};
use crate::auth::accounts::Accounts;
use crate::auth::keys::Keys;
use crate::egress::cluster::{CrowdWatch, Orders, Outbox, Threshold, ToGateways, Topics};
use crate::gateways::Gateways;
use crate::ingest::patience::{Patience, Patient};
use crate::ops::{self, Operations};
use crate::pipeline::Pipeline;
use crate::ports::{
    Backend, Clock, Crowds, DeadLetters, HistoryStore, IdSource, Notifier, PushOut, Reports,
    Retention, Sessions, TaskOut,
};
use crate::snowflake::{self, SystemClock};
use crate::store::mysql::{Directory, Log, Options as MysqlOptions, Store};
use crate::store::redis::{
    Cached, Client, Options as RedisOptions, RouteSettings, SessionTable, Warm, WarmSettings,
};
use crate::tasks::{Keeper, Rule};

/// How messages are worked in this form.
pub(super) type ClusterPipeline =
    Pipeline<Patient<Log>, Patient<Watched<Directory>>, ToGateways<Warm>>;

/// What the service is made of; shared by its threads.
pub(super) struct Parts {
    pub(super) gateways: Arc<Gateways>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) outbox: Arc<Outbox>,
    pub(super) crowds: Arc<dyn Crowds>,
    pub(super) letters: Arc<dyn DeadLetters>,
    pub(super) reports: Arc<dyn Reports>,
    pub(super) watch: CrowdWatch,
    pub(super) threshold: Threshold,
    pub(super) operations: Arc<Operations>,
    /// Who is connected where.
    pub(super) sessions: Arc<SessionTable>,
    /// Whether etcd answered when last asked.
    pub(super) etcd_up: AtomicBool,
    retention: Arc<dyn Retention>,
    store: Arc<Store>,
    redis: Client,
    ids: Arc<dyn IdSource>,
}

impl Parts {
    /// Opens the database, which is waited for until then; everything else connects in the background.
    pub(super) fn open(
        settings: &Settings,
        topics: Topics,
        worker: Worker,
        until: Instant,
    ) -> Result<Self> {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let gateways = Arc::new(Gateways::default());
        let store = patiently(until, "the database", || Store::open(&mysql_options(settings)))?;
        let newest = patiently(until, "the database", || store.newest_id())?;
        let ids: Arc<dyn IdSource> =
            Arc::new(LeasedIds::new(worker, Arc::clone(&clock), snowflake::time_ms(newest)));
        let outbox = Outbox::new(settings.kafka.clone(), topics, Arc::clone(&gateways));
        let outbox = Arc::new(outbox.map_err(|error| ServiceError(error.to_string()))?);
        let redis = redis(settings)?;
        let table = Arc::new(SessionTable::new(
            redis.clone(),
            Arc::clone(&gateways),
            Arc::clone(&clock),
            RouteSettings {
                classes: settings.config.device_policy.clone(),
                ..RouteSettings::default()
            },
        ));
        let crowds: Arc<dyn Crowds> = store.clone();
        let threshold = Threshold::new(settings.fanout_switch_members);
        let reports: Arc<dyn Reports> = Arc::new(RedisReports::new(
            Arc::clone(&table),
            redis.clone(),
            Arc::clone(&crowds),
            threshold.clone(),
        ));
        let sessions: Arc<dyn Sessions> = table.clone();
        let push: Arc<dyn PushOut> = outbox.clone();
        let watch = CrowdWatch::new(
            Arc::clone(&gateways),
            Arc::clone(&crowds),
            Arc::clone(&push),
            Arc::clone(&outbox) as Arc<dyn TaskOut>,
            Arc::clone(&sessions),
            Arc::clone(&reports),
            threshold.clone(),
        );
        let notifier: Arc<dyn Notifier> =
            Arc::new(Orders::new(Arc::clone(&gateways), push, watch.clone()));
        let cached = Arc::new(Cached::new(Arc::clone(&store), redis.clone()));
        let retention: Arc<dyn Retention> = cached.clone();
        let operations = Operations::new(
            cached as Arc<dyn Backend>,
            sessions,
            accounts(settings, &store, &clock, until)?,
            notifier,
            Arc::clone(&clock),
            Arc::clone(&ids),
            operation_settings(settings),
        );
        let operations = Arc::new(operations.sharing(Arc::new(redis.clone())));
        let letters: Arc<dyn DeadLetters> = store.clone();
        Ok(Self {
            gateways,
            clock,
            outbox,
            crowds,
            letters,
            reports,
            watch,
            threshold,
            operations,
            sessions: table,
            etcd_up: AtomicBool::new(true),
            retention,
            store,
            redis,
            ids,
        })
    }

    /// Deletes old messages by this rule.
    pub(super) fn keeper(&self, rule: Rule) -> Keeper {
        Keeper::new(rule, Arc::clone(&self.retention), Arc::clone(&self.clock))
    }

    /// A pipeline with nothing at hand.
    pub(super) fn pipeline(&self, settings: &Settings) -> ClusterPipeline {
        let patience = Patience::new(settings.store_patience);
        let directory = Directory::new(Arc::clone(&self.store));
        let warm = Warm::new(
            self.redis.clone(),
            Arc::clone(&self.gateways),
            Arc::clone(&self.clock),
            WarmSettings {
                inbox: settings.inbox_window,
                inbox_messages: settings.inbox_messages,
                sends: settings.redis_sends,
                ..WarmSettings::default()
            },
        );
        Pipeline::new(
            Patient::new(Log::new(Arc::clone(&self.store)), patience.clone()),
            Patient::new(Watched::new(directory, self.watch.clone()), patience),
            ToGateways::new(warm, Arc::clone(&self.gateways)),
            Arc::clone(&self.ids),
            crate::pipeline::Settings::of(&settings.config),
        )
    }
}

fn operation_settings(settings: &Settings) -> ops::Settings {
    ops::Settings {
        dev_login: settings.config.dev_login,
        heartbeat_ms: settings.config.heartbeat_ms,
        max_connections_per_user: settings.config.max_connections_per_user,
        logouts_elsewhere: true,
        event_members_max: settings.config.event_members_max,
    }
}

fn redis(settings: &Settings) -> Result<Client> {
    let mut options = RedisOptions::new(&settings.redis, &settings.redis_prefix)
        .map_err(|error| ServiceError::of("redis", error))?;
    options.tick_timeout = settings.redis_tick_timeout;
    Ok(Client::new(options))
}

fn mysql_options(settings: &Settings) -> MysqlOptions {
    MysqlOptions {
        read_connections: settings.mysql_read_connections,
        write_connections: settings.mysql_write_connections,
        #[cfg(feature = "fault-injection")]
        unique_sends: settings.config.fault != Some(crate::config::Fault::NoUniqueKey),
        ..MysqlOptions::new(settings.mysql.clone(), settings.database.clone())
    }
}

/// Accounts whose tokens all services sign with the same key: the first service makes it.
fn accounts(
    settings: &Settings,
    store: &Arc<Store>,
    clock: &Arc<dyn Clock>,
    until: Instant,
) -> Result<Accounts> {
    let config = &settings.config;
    let mut offer = [0; 32];
    getrandom::fill(&mut offer)
        .map_err(|error| ServiceError::of("the system gives no random bytes", error))?;
    let seed = patiently(until, "the signing key", || store.signing_key(|| offer.to_vec()))?;
    let seed: [u8; 32] = seed
        .try_into()
        .map_err(|_| ServiceError("the signing key in the database is damaged".to_owned()))?;
    let keys = Keys::of_seeds(&[seed])
        .ok_or_else(|| ServiceError("the signing key in the database is damaged".to_owned()))?;
    Accounts::open(config, keys, store.clone(), clock)
        .map_err(|error| ServiceError(error.to_string()))
}
