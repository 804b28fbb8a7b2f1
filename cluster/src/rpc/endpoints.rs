//! The endpoints of one service, and which of them is asked next.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};

use ::metrics::gauge;
use tokio::runtime::Handle;
use tonic::transport::{Channel, Endpoint as Target};

use super::breaker::{Breaker, BreakerState, Outcome, Permit};
use super::liveness::{Liveness, Mark};
use super::prober;
use super::settings::EndpointsSettings;

/// The endpoints could not be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EndpointsError {
    /// Channels live on a Tokio runtime.
    #[error("gRPC endpoints need a Tokio runtime")]
    NoRuntime,
}

/// One endpoint as seen from outside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointView {
    /// Its address.
    pub uri: String,
    /// Whether it answers.
    pub liveness: Liveness,
    /// Whether its breaker lets calls through.
    pub breaker: BreakerState,
}

/// The endpoints of one service. Clones share everything; dropping the last one ends the probing.
#[derive(Clone, Debug)]
pub struct Endpoints {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    service: String,
    settings: EndpointsSettings,
    runtime: Handle,
    born: Instant,
    all: RwLock<Arc<Vec<Arc<Endpoint>>>>,
    next: AtomicUsize,
}

/// One endpoint: its channel connects when it is first needed, and anew after it broke.
#[derive(Debug)]
pub(crate) struct Endpoint {
    uri: String,
    service: String,
    channel: Channel,
    breaker: Mutex<Breaker>,
    mark: Arc<Mark>,
    prober: tokio::task::AbortHandle,
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        self.prober.abort();
        self.show(0.0, BreakerState::Closed);
    }
}

impl Endpoint {
    pub(crate) fn channel(&self) -> Channel {
        self.channel.clone()
    }

    pub(crate) fn uri(&self) -> &str {
        &self.uri
    }

    /// A call has found it gone: nobody else needs to find out the same way.
    pub(crate) fn doubt(&self, liveness: Liveness) {
        self.mark.set(liveness);
        self.mark.doubt.notify_one();
    }

    pub(crate) fn end(&self, now: Duration, permit: Permit, outcome: Outcome) {
        let mut breaker = self.breaker();
        let before = breaker.state(now);
        breaker.end(now, permit, outcome);
        let after = breaker.state(now);
        drop(breaker);
        if before != after {
            tracing::info!(endpoint = self.uri, service = self.service, ?after, "circuit breaker");
            self.show(f64::from(u8::from(self.mark.get() == Liveness::Alive)), after);
        }
    }

    fn breaker(&self) -> MutexGuard<'_, Breaker> {
        self.breaker.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn show(&self, alive: f64, breaker: BreakerState) {
        let breaker = match breaker {
            BreakerState::Closed => 0.0,
            BreakerState::HalfOpen => 1.0,
            BreakerState::Open => 2.0,
        };
        gauge!("corelane_rpc_breaker_state", "service" => self.service.clone(),
            "endpoint" => self.uri.clone())
        .set(breaker);
        prober::show(&self.service, &self.uri, alive);
    }
}

/// Nobody can be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Nobody {
    /// There is none, or all are dead.
    There,
    /// All that are there have an open breaker.
    Permitted,
}

impl Endpoints {
    /// No endpoints yet. `service` names them in logs and metrics. Call it on the Tokio runtime
    /// that shall carry the connections.
    ///
    /// # Errors
    /// Without a runtime.
    pub fn new(service: &str, settings: EndpointsSettings) -> Result<Endpoints, EndpointsError> {
        let runtime = Handle::try_current().map_err(|_| EndpointsError::NoRuntime)?;
        let shared = Shared {
            service: service.to_owned(),
            settings,
            runtime,
            born: Instant::now(),
            all: RwLock::default(),
            next: AtomicUsize::new(0),
        };
        Ok(Endpoints { shared: Arc::new(shared) })
    }

    /// Says who is there: `host:port` or `http://host:port` each. Endpoints that stay keep their
    /// channel and their breaker. What is no address is left out and logged. Any thread may call.
    pub fn set_endpoints(&self, endpoints: Vec<String>) {
        let shared = &*self.shared;
        let mut all = shared.all.write().unwrap_or_else(PoisonError::into_inner);
        let mut known: BTreeMap<&str, &Arc<Endpoint>> = BTreeMap::new();
        for endpoint in all.iter() {
            known.insert(&endpoint.uri, endpoint);
        }
        let mut fresh: BTreeMap<String, Arc<Endpoint>> = BTreeMap::new();
        for address in endpoints {
            let uri = if address.contains("://") { address } else { format!("http://{address}") };
            if fresh.contains_key(&uri) {
                continue;
            }
            let kept = known.get(uri.as_str()).map(|kept| Arc::clone(kept));
            if let Some(endpoint) = kept.or_else(|| shared.open(&uri)) {
                fresh.insert(uri, endpoint);
            }
        }
        let fresh: Vec<Arc<Endpoint>> = fresh.into_values().collect();
        tracing::info!(service = shared.service, endpoints = fresh.len(), "gRPC endpoints");
        gauge!("corelane_rpc_endpoints", "service" => shared.service.clone())
            .set(fresh.len() as f64);
        *all = Arc::new(fresh);
    }

    /// All endpoints as they are now.
    #[must_use]
    pub fn view(&self) -> Vec<EndpointView> {
        let now = self.now();
        let view = |endpoint: &Arc<Endpoint>| EndpointView {
            uri: endpoint.uri.clone(),
            liveness: endpoint.mark.get(),
            breaker: endpoint.breaker().state(now),
        };
        self.all().iter().map(view).collect()
    }

    /// Whether somebody is known to answer.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.all().iter().any(|endpoint| endpoint.mark.get() == Liveness::Alive)
    }

    pub(crate) fn settings(&self) -> &EndpointsSettings {
        &self.shared.settings
    }

    pub(crate) fn service(&self) -> &str {
        &self.shared.service
    }

    pub(crate) fn now(&self) -> Duration {
        self.shared.born.elapsed()
    }

    fn all(&self) -> Arc<Vec<Arc<Endpoint>>> {
        Arc::clone(&self.shared.all.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The next in turn: of those that answer, then of those that may; those that were `tried`
    /// already last.
    pub(crate) fn pick(&self, tried: &[String]) -> Result<(Arc<Endpoint>, Permit), Nobody> {
        let (all, now) = (self.all(), self.now());
        let start = self.shared.next.fetch_add(1, Ordering::Relaxed);
        let mut in_turn: Vec<&Arc<Endpoint>> = (0..all.len())
            .map(|at| &all[(start + at) % all.len()])
            .filter(|endpoint| endpoint.mark.get() != Liveness::Dead)
            .collect();
        if in_turn.is_empty() {
            return Err(Nobody::There);
        }
        in_turn.sort_by_key(|endpoint| {
            let suspect = endpoint.mark.get() == Liveness::Suspect;
            (suspect, tried.contains(&endpoint.uri))
        });
        for endpoint in in_turn {
            if let Some(permit) = endpoint.breaker().permit(now) {
                return Ok((Arc::clone(endpoint), permit));
            }
        }
        Err(Nobody::Permitted)
    }
}

impl Shared {
    fn open(&self, uri: &str) -> Option<Arc<Endpoint>> {
        let target = match Target::from_shared(uri.to_owned()) {
            Ok(target) if target.uri().host().is_some() => target,
            _ => {
                tracing::warn!(uri, service = self.service, "no address of a gRPC endpoint");
                return None;
            }
        };
        let settings = self.settings;
        // Channels and their workers belong to the runtime, whoever calls.
        let _entered = self.runtime.enter();
        let channel = target
            .connect_timeout(Duration::from_millis(settings.connect_timeout_ms))
            .tcp_nodelay(true)
            .http2_keep_alive_interval(Duration::from_millis(settings.keepalive_interval_ms))
            .keep_alive_timeout(Duration::from_millis(settings.keepalive_timeout_ms))
            .keep_alive_while_idle(true)
            .connect_lazy();
        let mark = Arc::new(Mark::default());
        let probing = prober::run(
            channel.clone(),
            Arc::clone(&mark),
            settings,
            self.service.clone(),
            uri.to_owned(),
        );
        let prober = self.runtime.spawn(probing).abort_handle();
        Some(Arc::new(Endpoint {
            uri: uri.to_owned(),
            service: self.service.clone(),
            channel,
            breaker: Mutex::new(Breaker::new(settings.breaker)),
            mark,
            prober,
        }))
    }
}
