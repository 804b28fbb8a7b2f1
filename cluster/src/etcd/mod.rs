//! Registration, discovery, leases and dynamic configuration in etcd.
//!
//! Everything that lasts (a registration, a watched list, a worker id) has a task of its own on the
//! caller's tokio runtime, and survives restarts of etcd and its absence for any time: what was last known
//! stays, what can no longer be promised is said to be in doubt, and once etcd answers again the task goes
//! on where it was or begins anew. Streams of etcd end for good when they break, so each is opened again by
//! its task: watches from the revision after the last one seen, or by listing anew when that was compacted
//! away.
//!
//! Keys, all below the root of [`Settings`]:
//!
//! | key | value | lives as long as |
//! |---|---|---|
//! | `KIND/ID` | what the member says about itself | its lease |
//! | `workers/N` | who holds worker id `N` | its lease |
//! | `worker_marks/N` | who was given `N` last; its revision says when | for good |
//! | `config/NAME` | text | until it is removed |

mod claim;
mod clock;
mod config;
mod discovery;
mod error;
mod lease;
mod mirror;
mod names;
mod pool;
mod registration;
mod standing;
#[cfg(test)]
mod tests;
mod worker;

use std::sync::Arc;
use std::time::Duration;

use etcd_client::{DeleteOptions, GetOptions};

pub use clock::boottime_ns;
pub use discovery::{Discovery, Member};
pub use error::EtcdError;
pub use registration::Registration;
pub use standing::{Standing, State};
pub use worker::{Worker, WorkerLease};

use names::Names;
use pool::Pool;

/// Where etcd is and how long to wait for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// URLs of its members, `http://HOST:PORT`. One is used at a time; when it fails the next takes over.
    pub endpoints: Vec<String>,
    /// What all keys begin with, such as `/corelane`.
    pub root: String,
    /// Seconds after which etcd forgets a member or worker that no longer answers. etcd raises what is
    /// below its own minimum (2 with its usual election time).
    pub lease_ttl_s: u32,
    /// Longest wait for a connection.
    pub dial_timeout: Duration,
    /// Longest wait for an answer; keep-alives wait at most a quarter of the lease.
    pub request_timeout: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            endpoints: vec!["http://127.0.0.1:2379".to_owned()],
            root: "/corelane".to_owned(),
            lease_ttl_s: 5,
            dial_timeout: Duration::from_secs(2),
            request_timeout: Duration::from_secs(2),
        }
    }
}

/// A connection to etcd. Clones share it.
#[derive(Clone, Debug)]
pub struct Etcd {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    pool: Pool,
    names: Names,
    lease_ttl_s: u32,
}

impl Etcd {
    /// Connects, and asks once whether somebody answers. Must be called on a tokio runtime.
    ///
    /// # Errors
    /// [`EtcdError::Invalid`] when the settings cannot be, [`EtcdError::Unavailable`] when none of the
    /// endpoints answers in time.
    pub async fn connect(settings: &Settings) -> Result<Self, EtcdError> {
        if settings.lease_ttl_s == 0 || settings.lease_ttl_s > 3600 {
            return Err(EtcdError::Invalid(format!(
                "the lease lasts {} s but must last 1 to 3600",
                settings.lease_ttl_s
            )));
        }
        let names = Names::new(&settings.root)?;
        let pool = Pool::new(settings).await?;
        let shared = Shared { pool, names, lease_ttl_s: settings.lease_ttl_s };
        let etcd = Self { shared: Arc::new(shared) };
        etcd.somebody_answers(settings.endpoints.len()).await?;
        Ok(etcd)
    }

    /// One request an endpoint at most: a failed one makes the pool go on to the next.
    async fn somebody_answers(&self, endpoints: usize) -> Result<(), EtcdError> {
        let mut result = Ok(());
        for _ in 0..endpoints {
            result = self.answers().await;
            if result.is_ok() {
                break;
            }
        }
        result
    }

    /// Asks etcd something small, with the agreement of its majority: for health checks.
    ///
    /// # Errors
    /// [`EtcdError::Unavailable`] when no answer comes in time.
    pub async fn answers(&self) -> Result<(), EtcdError> {
        let key = self.shared.names.root().to_owned();
        let get = self.shared.pool.call("asking for the root", |mut client| async move {
            client.get(key, Some(GetOptions::new().with_count_only())).await
        });
        get.await.map(drop)
    }

    /// Removes every key below the root: for tests, and for taking a cluster down for good.
    ///
    /// # Errors
    /// [`EtcdError::Unavailable`] when no answer comes in time.
    pub async fn remove_root(&self) -> Result<(), EtcdError> {
        let prefix = format!("{}/", self.shared.names.root());
        let delete = self.shared.pool.call("removing the root", |mut client| async move {
            client.delete(prefix, Some(DeleteOptions::new().with_prefix())).await
        });
        delete.await.map(drop)
    }
}
