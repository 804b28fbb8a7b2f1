//! A local copy of all keys below a prefix, kept by listing once and watching from there.

use std::collections::BTreeMap;

use etcd_client::{Event, GetOptions, KeyValue, WatchOptions, WatchResponse};
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval_at};

use super::claim::epoch_of;
use super::clock::Backoff;
use super::{Etcd, EtcdError};

/// One key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) value: String,
    /// The revision at which the key was made.
    pub(super) epoch: u64,
}

/// Keys without the prefix.
pub(super) type Entries = BTreeMap<String, Entry>;

/// What the copy is shown as, and whether it may be behind.
pub(super) struct Shown<T> {
    pub(super) value: watch::Receiver<T>,
    pub(super) in_doubt: watch::Receiver<bool>,
}

/// Why following came to an end.
#[derive(Debug, PartialEq, Eq)]
enum End {
    /// The stream broke or fell silent.
    Broken(String),
    /// The connection was given up by somebody else.
    Reopen,
    /// What happened since the last revision seen cannot be had any more.
    Behind,
}

struct Mirror<T> {
    etcd: Etcd,
    prefix: String,
    view: fn(&Entries) -> T,
    shown: watch::Sender<T>,
    in_doubt: watch::Sender<bool>,
    entries: Entries,
    /// The revision to go on from.
    next: i64,
}

/// Lists what is below the prefix, and keeps a copy until nobody looks at it any more.
pub(super) async fn start<T>(
    etcd: &Etcd,
    prefix: String,
    view: fn(&Entries) -> T,
) -> Result<Shown<T>, EtcdError>
where
    T: PartialEq + Send + Sync + 'static,
{
    let (entries, revision) = list(etcd, &prefix).await?;
    let (shown, value) = watch::channel(view(&entries));
    let (in_doubt, doubt) = watch::channel(false);
    let etcd = etcd.clone();
    let mut mirror =
        Mirror { etcd, prefix, view, shown: shown.clone(), in_doubt, entries, next: revision + 1 };
    tokio::spawn(async move {
        tokio::select! {
            () = shown.closed() => (),
            () = mirror.run() => (),
        }
    });
    Ok(Shown { value, in_doubt: doubt })
}

impl<T: PartialEq> Mirror<T> {
    async fn run(&mut self) {
        let mut backoff = Backoff::new();
        loop {
            let before = self.next;
            let mut created = false;
            match self.follow(&mut created).await {
                End::Reopen => continue,
                End::Broken(reason) => {
                    if !self.in_doubt.send_replace(true) {
                        tracing::warn!(prefix = self.prefix, reason, "watch of etcd broken");
                    }
                }
                End::Behind => {
                    tracing::info!(prefix = self.prefix, from = before, "listing anew");
                    self.relist().await;
                }
            }
            if created {
                backoff = Backoff::new();
            }
            backoff.wait().await;
        }
    }

    /// Follows one stream to its end; `created` becomes true once it works.
    async fn follow(&mut self, created: &mut bool) -> End {
        let etcd = self.etcd.clone();
        let pool = &etcd.shared.pool;
        let mut generations = pool.generations();
        let (_, generation) = pool.client();
        let (prefix, next) = (self.prefix.clone(), self.next);
        let opening = pool.call("opening a watch", |mut client| async move {
            let options = WatchOptions::new().with_prefix().with_start_revision(next);
            client.watch(prefix, Some(options)).await
        });
        let (mut requests, mut answers) = match opening.await {
            Ok(stream) => stream.split(),
            Err(error) => return End::Broken(error.to_string()),
        };
        // A stream over a connection that swallows packets looks like one on which nothing happens, so
        // it has to say something now and then.
        let mut probe =
            interval_at(Instant::now() + pool.request_timeout(), pool.request_timeout());
        probe.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut asked = false;
        loop {
            tokio::select! {
                answer = answers.message() => {
                    asked = false;
                    match answer {
                        Ok(Some(answer)) => {
                            *created |= answer.created();
                            if let Err(end) = self.take(&answer) { return end }
                        }
                        Ok(None) => return End::Broken("the stream ended".to_owned()),
                        Err(error) => return End::Broken(error.to_string()),
                    }
                }
                _ = generations.changed() => return End::Reopen,
                _ = probe.tick() => {
                    if asked || requests.request_progress().await.is_err() {
                        pool.give_up(generation).await;
                        return End::Broken("silent".to_owned());
                    }
                    asked = true;
                }
            }
        }
    }

    fn take(&mut self, answer: &WatchResponse) -> Result<(), End> {
        if answer.canceled() {
            return Err(if answer.compact_revision() > 0 {
                End::Behind
            } else {
                End::Broken(answer.cancel_reason().to_owned())
            });
        }
        if answer.created() {
            // A store younger than what was seen of it is another one: restored from a copy, or emptied.
            let revision = answer.header().map_or(0, etcd_client::ResponseHeader::revision);
            if revision + 1 < self.next {
                return Err(End::Behind);
            }
            self.in_doubt.send_replace(false);
        }
        // Only events move `next`: answers to progress requests may overtake events still on their way.
        for event in answer.events() {
            self.apply(event);
        }
        if !answer.events().is_empty() {
            self.show();
        }
        Ok(())
    }

    fn apply(&mut self, event: &Event) {
        let Some(kv) = event.kv() else { return };
        self.next = self.next.max(kv.mod_revision() + 1);
        let Some((name, entry)) = entry_of(kv, &self.prefix) else { return };
        // A key that was deleted has no versions.
        if kv.version() == 0 {
            self.entries.remove(&name);
        } else {
            self.entries.insert(name, entry);
        }
    }

    async fn relist(&mut self) {
        let mut backoff = Backoff::new();
        loop {
            match list(&self.etcd, &self.prefix).await {
                Ok((entries, revision)) => {
                    (self.entries, self.next) = (entries, revision + 1);
                    return self.show();
                }
                Err(error) => {
                    self.in_doubt.send_replace(true);
                    tracing::debug!(%error, prefix = self.prefix, "not listed yet");
                }
            }
            backoff.wait().await;
        }
    }

    fn show(&self) {
        let new = (self.view)(&self.entries);
        self.shown.send_if_modified(|shown| {
            let changed = *shown != new;
            *shown = new;
            changed
        });
    }
}

/// All keys below the prefix, and the revision of the store at that moment.
async fn list(etcd: &Etcd, prefix: &str) -> Result<(Entries, i64), EtcdError> {
    let key = prefix.to_owned();
    let get = etcd.shared.pool.call("listing", |mut client| async move {
        client.get(key, Some(GetOptions::new().with_prefix())).await
    });
    let got = get.await?;
    let revision = got.header().map_or(0, etcd_client::ResponseHeader::revision);
    Ok((got.kvs().iter().filter_map(|kv| entry_of(kv, prefix)).collect(), revision))
}

fn entry_of(kv: &KeyValue, prefix: &str) -> Option<(String, Entry)> {
    let name = std::str::from_utf8(kv.key()).ok()?.strip_prefix(prefix)?.to_owned();
    let value = String::from_utf8_lossy(kv.value()).into_owned();
    Some((name, Entry { value, epoch: epoch_of(kv) }))
}
