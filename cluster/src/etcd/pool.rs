//! The connection to one member of etcd at a time, and going on to the next one.

use std::future::Future;
use std::sync::{PoisonError, RwLock};
use std::time::Duration;

use etcd_client::{Client, ConnectOptions};
use tokio::sync::watch;
use tokio::time::timeout;

use super::{EtcdError, Settings};

/// etcd closes connections whose pings come more often than every 5 s.
const PING_INTERVAL: Duration = Duration::from_secs(10);
const PING_TIMEOUT: Duration = Duration::from_secs(5);

/// A connection that is replaced when it fails. The client's own balancing keeps asking members that are
/// gone, and a connection whose packets are swallowed looks alive until its pings run out, so every failed
/// request brings a new connection, to the next endpoint.
#[derive(Debug)]
pub(super) struct Pool {
    endpoints: Vec<String>,
    options: ConnectOptions,
    request_timeout: Duration,
    current: RwLock<Current>,
    generations: watch::Sender<u64>,
}

struct Current {
    client: Client,
    generation: u64,
}

impl std::fmt::Debug for Current {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Current").field("generation", &self.generation).finish_non_exhaustive()
    }
}

impl Pool {
    /// Connects lazily; asks nobody.
    pub(super) async fn new(settings: &Settings) -> Result<Self, EtcdError> {
        let options = ConnectOptions::new()
            .with_connect_timeout(settings.dial_timeout)
            .with_keep_alive(PING_INTERVAL, PING_TIMEOUT)
            .with_tcp_keepalive(PING_INTERVAL)
            // A member without its majority must say so, or its watches would be silent for good.
            .with_require_leader(true);
        for endpoint in &settings.endpoints {
            if !endpoint.starts_with("http://") {
                return Err(EtcdError::Invalid(format!(
                    "\"{endpoint}\" is no endpoint of etcd: it must be of the form http://HOST:PORT"
                )));
            }
            connect(endpoint, &options).await?;
        }
        let first = settings
            .endpoints
            .first()
            .ok_or_else(|| EtcdError::Invalid("no endpoint of etcd is given".to_owned()))?;
        Ok(Self {
            current: RwLock::new(Current {
                client: connect(first, &options).await?,
                generation: 0,
            }),
            endpoints: settings.endpoints.clone(),
            options,
            request_timeout: settings.request_timeout,
            generations: watch::Sender::new(0),
        })
    }

    pub(super) fn request_timeout(&self) -> Duration {
        self.request_timeout
    }

    /// Changes when a connection was given up: streams on it should be opened again.
    pub(super) fn generations(&self) -> watch::Receiver<u64> {
        self.generations.subscribe()
    }

    /// The connection in use, and its number for [`Pool::give_up`].
    pub(super) fn client(&self) -> (Client, u64) {
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        (current.client.clone(), current.generation)
    }

    /// Makes one request.
    pub(super) async fn call<T, F>(
        &self,
        what: &'static str,
        request: impl FnOnce(Client) -> F,
    ) -> Result<T, EtcdError>
    where
        F: Future<Output = Result<T, etcd_client::Error>>,
    {
        self.call_within(self.request_timeout, what, request).await
    }

    /// Makes one request that may take `limit`.
    pub(super) async fn call_within<T, F>(
        &self,
        limit: Duration,
        what: &'static str,
        request: impl FnOnce(Client) -> F,
    ) -> Result<T, EtcdError>
    where
        F: Future<Output = Result<T, etcd_client::Error>>,
    {
        let (client, generation) = self.client();
        let error = match timeout(limit, request(client)).await {
            Ok(Ok(answer)) => return Ok(answer),
            Ok(Err(error)) => EtcdError::of(what, &error),
            Err(_) => EtcdError::Unavailable { what, reason: format!("no answer in {limit:?}") },
        };
        if matches!(error, EtcdError::Unavailable { .. }) {
            self.give_up(generation).await;
        }
        Err(error)
    }

    /// Replaces the connection with that number by one to the next endpoint, unless somebody did already.
    pub(super) async fn give_up(&self, generation: u64) {
        let next = generation + 1;
        let index = usize::try_from(next).unwrap_or(0) % self.endpoints.len();
        // Endpoints were tried in `new`; this only builds a client, it asks nobody.
        let Ok(client) = connect(&self.endpoints[index], &self.options).await else { return };
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        if current.generation == generation {
            *current = Current { client, generation: next };
            self.generations.send_replace(next);
        }
    }
}

async fn connect(endpoint: &str, options: &ConnectOptions) -> Result<Client, EtcdError> {
    Client::connect([endpoint], Some(options.clone())).await.map_err(|error| {
        EtcdError::Invalid(format!("\"{endpoint}\" is no endpoint of etcd: {error}"))
    })
}
