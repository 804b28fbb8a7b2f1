//! Taking a key under a lease, keeping it, and taking it anew after a loss.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use etcd_client::{
    Compare, CompareOp, GetOptions, GetResponse, KeyValue, PutOptions, Txn, TxnOp, TxnOpResponse,
    TxnResponse,
};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::clock::Backoff;
use super::lease::{Lease, Renewal};
use super::standing::Board;
use super::{Etcd, EtcdError};

/// What is to be held.
#[derive(Debug)]
pub(super) enum Target {
    /// One key, with a value that may change.
    Member { key: String, value: Arc<Mutex<String>> },
    /// Any free worker id from 0 to `max`.
    Worker { max: u16, who: String },
}

/// What is held.
struct Held {
    lease: Lease,
    key: String,
    /// The revision at which the key was made. No other key under this name ever has the same.
    epoch: u64,
    worker: Option<u16>,
    good_until_ns: u64,
}

/// A key once made.
struct Placed {
    key: String,
    epoch: u64,
    worker: Option<u16>,
}

/// Something held, with the task that keeps it. Dropping it ends the keep-alives: others may take it
/// once the lease has run out.
#[derive(Debug)]
pub(super) struct Holding {
    pub(super) board: Board,
    etcd: Etcd,
    lease_id: Arc<AtomicI64>,
    task: JoinHandle<()>,
}

impl Holding {
    /// Takes the target and starts to keep it. Tries for as long as a lease of a predecessor that died may
    /// still last; `overrule` takes a member's key from whoever has it instead.
    pub(super) async fn take(
        etcd: &Etcd,
        target: Target,
        overrule: bool,
    ) -> Result<Self, EtcdError> {
        let claim = Claim { etcd: etcd.clone(), target, lease_id: Arc::default() };
        let held = claim.take_within(overrule).await?;
        let board = Board::new(held.epoch, held.worker, held.good_until_ns);
        let lease_id = Arc::clone(&claim.lease_id);
        let task = tokio::spawn(claim.keep(held, board.clone()));
        Ok(Self { board, etcd: etcd.clone(), lease_id, task })
    }

    pub(super) fn etcd(&self) -> &Etcd {
        &self.etcd
    }

    /// Gives it back at once, so that others need not wait for the lease to run out.
    pub(super) async fn release(mut self) -> Result<(), EtcdError> {
        self.board.lost();
        self.task.abort();
        // Only once the task has ended does nobody take the target anew.
        let _ = (&mut self.task).await;
        self.board.lost();
        Lease::revoke(&self.etcd.shared.pool, self.lease_id.load(Ordering::Acquire)).await
    }
}

impl Drop for Holding {
    fn drop(&mut self) {
        self.task.abort();
        self.board.lost();
    }
}

struct Claim {
    etcd: Etcd,
    target: Target,
    /// The lease in use, for whoever ends it.
    lease_id: Arc<AtomicI64>,
}

impl Claim {
    async fn take_within(&self, overrule: bool) -> Result<Held, EtcdError> {
        let shared = &self.etcd.shared;
        let limit = Duration::from_secs(u64::from(shared.lease_ttl_s.max(2)) + 3);
        let (start, mut backoff) = (Instant::now(), Backoff::new());
        loop {
            match self.take(overrule).await {
                Err(error) if error.is_temporary() && start.elapsed() < limit => {
                    tracing::debug!(%error, "not taken yet");
                    backoff.wait().await;
                }
                result => return result,
            }
        }
    }

    async fn take(&self, overrule: bool) -> Result<Held, EtcdError> {
        let pool = &self.etcd.shared.pool;
        if let (Target::Member { key, .. }, false) = (&self.target, overrule)
            && let Some(kv) = self.get(key).await?
        {
            // Spares a lease for every attempt while somebody else has the key.
            return Err(taken(key, &kv));
        }
        let (lease, good_until_ns) = Lease::grant(pool, self.etcd.shared.lease_ttl_s).await?;
        self.lease_id.store(lease.id(), Ordering::Release);
        let placed = match &self.target {
            Target::Member { key, value } => self.place_member(key, value, &lease, overrule).await,
            Target::Worker { max, who } => self.place_worker(*max, who, &lease).await,
        };
        match placed {
            Ok(Placed { key, epoch, worker }) => {
                Ok(Held { lease, key, epoch, worker, good_until_ns })
            }
            Err(error) => {
                // Perhaps it was done and only the answer got lost: then this takes it back.
                let _ = Lease::revoke(pool, lease.id()).await;
                Err(error)
            }
        }
    }

    async fn place_member(
        &self,
        key: &str,
        value: &Mutex<String>,
        lease: &Lease,
        overrule: bool,
    ) -> Result<Placed, EtcdError> {
        let value = value.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for _ in 0..8 {
            let under = PutOptions::new().with_lease(lease.id());
            let txn = Txn::new()
                .when([is_free(key)])
                .and_then([TxnOp::put(key, value.as_str(), Some(under))])
                .or_else([TxnOp::get(key, None)]);
            let answer = self.transact("registering", txn).await?;
            if answer.succeeded() {
                return Ok(Placed { key: key.to_owned(), epoch: revision(&answer), worker: None });
            }
            let Some(kv) = first_get(answer).and_then(|got| got.kvs().first().cloned()) else {
                continue;
            };
            if !overrule {
                return Err(taken(key, &kv));
            }
            // Removed first, so that the key is made anew and its epoch rises.
            let same = Compare::create_revision(key, CompareOp::Equal, kv.create_revision());
            let remove = Txn::new().when([same]).and_then([TxnOp::delete(key, None)]);
            self.transact("taking a registration over", remove).await?;
        }
        Err(EtcdError::Taken { key: key.to_owned(), holder: "others in turn".to_owned() })
    }

    async fn place_worker(&self, max: u16, who: &str, lease: &Lease) -> Result<Placed, EtcdError> {
        let names = &self.etcd.shared.names;
        let (workers, marks) = (names.workers(), names.worker_marks());
        let below = |prefix: &str| {
            let options = GetOptions::new().with_prefix().with_keys_only();
            TxnOp::get(prefix, Some(options))
        };
        let both = Txn::new().and_then([below(&workers), below(&marks)]);
        let answer = self.transact("looking for a free worker id", both).await?;
        let mut lists = answer.op_responses().into_iter().filter_map(as_get);
        let mut next = |prefix: &str| numbers(lists.next(), prefix);
        let (held, marked) = (next(&workers), next(&marks));
        for id in candidates(max, &held.into_keys().collect(), &marked) {
            let (key, mark) = (format!("{workers}{id}"), format!("{marks}{id}"));
            let under = PutOptions::new().with_lease(lease.id());
            let txn = Txn::new().when([is_free(&key)]).and_then([
                TxnOp::put(key.as_str(), who, Some(under)),
                TxnOp::put(mark, who, None),
            ]);
            let answer = self.transact("taking a worker id", txn).await?;
            if answer.succeeded() {
                return Ok(Placed { key, epoch: revision(&answer), worker: Some(id) });
            }
        }
        Err(EtcdError::NoWorkerFree { max })
    }

    /// Keeps what is held for good.
    async fn keep(self, mut held: Held, board: Board) {
        let mut backoff = Backoff::new();
        let mut wait = held.lease.interval();
        loop {
            tokio::time::sleep(wait).await;
            match self.renew(&mut held).await {
                Ok(true) => {
                    board.held(held.epoch, held.worker, held.good_until_ns);
                    (backoff, wait) = (Backoff::new(), held.lease.interval());
                }
                Ok(false) => {
                    board.lost();
                    tracing::warn!(
                        key = held.key,
                        epoch = held.epoch,
                        "lost in etcd, taking it anew"
                    );
                    let _ = Lease::revoke(&self.etcd.shared.pool, held.lease.id()).await;
                    held = self.take_anew().await;
                    tracing::info!(key = held.key, epoch = held.epoch, "taken anew in etcd");
                    board.held(held.epoch, held.worker, held.good_until_ns);
                    (backoff, wait) = (Backoff::new(), held.lease.interval());
                }
                Err(error) => {
                    if board.unanswered() {
                        tracing::warn!(%error, key = held.key, "in doubt: its lease may have run out");
                    }
                    wait = backoff.next().min(held.lease.interval());
                }
            }
        }
    }

    /// Renews the lease and makes sure that the key is still the one that was made; `Ok(false)` if either
    /// is gone for sure.
    async fn renew(&self, held: &mut Held) -> Result<bool, EtcdError> {
        let Renewal::Until(until) = held.lease.renew(&self.etcd.shared.pool).await? else {
            return Ok(false);
        };
        // The lease can be alive and its key not ours: overruled, or removed by hand.
        let ours = self.get(&held.key).await?.is_some_and(|kv| epoch_of(&kv) == held.epoch);
        if ours {
            held.good_until_ns = until;
        }
        Ok(ours)
    }

    /// Never overrules: whoever has it now has it rightly.
    async fn take_anew(&self) -> Held {
        let mut backoff = Backoff::new();
        loop {
            match self.take(false).await {
                Ok(held) => return held,
                Err(error) => tracing::debug!(%error, "not taken anew yet"),
            }
            backoff.wait().await;
        }
    }

    async fn get(&self, key: &str) -> Result<Option<KeyValue>, EtcdError> {
        let key = key.to_owned();
        let get =
            self.etcd.shared.pool.call("looking at a registration", |mut client| async move {
                client.get(key, None).await
            });
        Ok(get.await?.kvs().first().cloned())
    }

    async fn transact(&self, what: &'static str, txn: Txn) -> Result<TxnResponse, EtcdError> {
        let pool = &self.etcd.shared.pool;
        pool.call(what, |mut client| async move { client.txn(txn).await }).await
    }
}

fn is_free(key: &str) -> Compare {
    Compare::create_revision(key, CompareOp::Equal, 0)
}

fn taken(key: &str, kv: &KeyValue) -> EtcdError {
    let holder = String::from_utf8_lossy(kv.value()).into_owned();
    EtcdError::Taken { key: key.to_owned(), holder }
}

pub(super) fn epoch_of(kv: &KeyValue) -> u64 {
    u64::try_from(kv.create_revision()).unwrap_or(0)
}

fn revision(answer: &TxnResponse) -> u64 {
    answer.header().map_or(0, |header| u64::try_from(header.revision()).unwrap_or(0))
}

fn as_get(answer: TxnOpResponse) -> Option<GetResponse> {
    match answer {
        TxnOpResponse::Get(got) => Some(got),
        _ => None,
    }
}

fn first_get(answer: TxnResponse) -> Option<GetResponse> {
    answer.op_responses().into_iter().find_map(as_get)
}

/// The numbers that keys end with, and the revisions of the keys.
fn numbers(got: Option<GetResponse>, prefix: &str) -> HashMap<u16, i64> {
    let number = |kv: &KeyValue| {
        let id = std::str::from_utf8(kv.key()).ok()?.strip_prefix(prefix)?.parse().ok()?;
        Some((id, kv.mod_revision()))
    };
    got.iter().flat_map(|got| got.kvs()).filter_map(number).collect()
}

/// Free ids, those never given out first, then those whose last holder is longest gone: an id comes back
/// only after all others were given out, so that the clocks of two who had it after one another may differ
/// by a lot without their snowflakes ever meeting.
fn candidates(max: u16, held: &HashSet<u16>, marked: &HashMap<u16, i64>) -> Vec<u16> {
    let mut free: Vec<u16> = (0..=max).filter(|id| !held.contains(id)).collect();
    free.sort_by_key(|id| marked.get(id).copied().unwrap_or(0));
    free
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn worker_ids_come_back_in_the_order_they_were_left() {
        let marked = HashMap::from([(0, 50), (1, 20), (3, 10)]);
        assert_eq!(candidates(4, &HashSet::new(), &marked), [2, 4, 3, 1, 0]);
        assert_eq!(candidates(4, &HashSet::from([2, 3]), &marked), [4, 1, 0]);
        assert_eq!(candidates(0, &HashSet::from([0]), &marked), [0; 0]);
        assert_eq!(candidates(1023, &HashSet::new(), &HashMap::new()).len(), 1024);
    }
}
