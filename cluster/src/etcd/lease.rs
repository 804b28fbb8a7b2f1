//! One lease of etcd, and how long it is certainly alive.

use std::time::Duration;

use etcd_client::{Error, LeaseKeepAliveStream, LeaseKeeper};
use tokio::time::timeout;

use super::EtcdError;
use super::clock::{boottime_ns, ns};
use super::pool::Pool;

/// A lease and the stream that keeps it alive.
pub(super) struct Lease {
    id: i64,
    ttl: Duration,
    /// None: to be opened by the next renewal.
    stream: Option<Stream>,
}

struct Stream {
    keeper: LeaseKeeper,
    answers: LeaseKeepAliveStream,
    /// The connection it runs over.
    generation: u64,
}

/// What a renewal brought.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Renewal {
    /// Alive at least until then ([`boottime_ns`]).
    Until(u64),
    /// etcd knows no such lease any more.
    Expired,
}

impl Lease {
    /// Asks for a new lease. Also returns until when it is certainly alive.
    pub(super) async fn grant(pool: &Pool, ttl_s: u32) -> Result<(Self, u64), EtcdError> {
        let sent_ns = boottime_ns();
        let granted = pool
            .call("asking for a lease", |mut client| async move {
                client.lease_grant(i64::from(ttl_s), None).await
            })
            .await?;
        let ttl = Duration::from_secs(u64::try_from(granted.ttl()).unwrap_or(0));
        Ok((Self { id: granted.id(), ttl, stream: None }, alive_until(sent_ns, ttl)))
    }

    pub(super) fn id(&self) -> i64 {
        self.id
    }

    /// How often to renew: several attempts fit into the time for which a renewal is good.
    pub(super) fn interval(&self) -> Duration {
        self.ttl / 5
    }

    /// How long to wait for the answer to one renewal.
    fn patience(&self, pool: &Pool) -> Duration {
        (self.ttl / 4).min(pool.request_timeout())
    }

    /// Sends one keep-alive and waits for its answer. Only one is ever under way on a stream, and a stream
    /// whose answer did not come is dropped, so an answer is always that to the request just sent.
    pub(super) async fn renew(&mut self, pool: &Pool) -> Result<Renewal, EtcdError> {
        let (_, generation) = pool.client();
        let sent_ns = boottime_ns();
        let alive = match self.stream.take().filter(|stream| stream.generation == generation) {
            Some(stream) => self.ask(pool, stream).await?,
            None => self.open(pool, generation).await?,
        };
        Ok(if alive { Renewal::Until(alive_until(sent_ns, self.ttl)) } else { Renewal::Expired })
    }

    async fn ask(&mut self, pool: &Pool, mut stream: Stream) -> Result<bool, EtcdError> {
        let what = "renewing a lease";
        let patience = self.patience(pool);
        let answer = timeout(patience, async {
            stream.keeper.keep_alive().await?;
            stream.answers.message().await
        });
        let reason = match answer.await {
            Ok(Ok(Some(answer))) => {
                self.stream = Some(stream);
                return Ok(answer.id() == self.id && answer.ttl() > 0);
            }
            Ok(Ok(None)) => "the stream ended".to_owned(),
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("no answer in {patience:?}"),
        };
        pool.give_up(stream.generation).await;
        Err(EtcdError::Unavailable { what, reason })
    }

    /// Opens a stream; that sends the first keep-alive.
    async fn open(&mut self, pool: &Pool, generation: u64) -> Result<bool, EtcdError> {
        let id = self.id;
        let opened =
            pool.call_within(self.patience(pool), "renewing a lease", |mut client| async move {
                match client.lease_keep_alive(id).await {
                    Ok(stream) => Ok(Some(stream)),
                    // Said when the lease is unknown, but not only then: ask.
                    Err(error @ Error::LeaseKeepAliveError(_)) => {
                        let left = client.lease_time_to_live(id, None).await?.ttl();
                        if left < 0 { Ok(None) } else { Err(error) }
                    }
                    Err(error) => Err(error),
                }
            });
        let Some((keeper, answers)) = opened.await? else { return Ok(false) };
        self.stream = Some(Stream { keeper, answers, generation });
        Ok(true)
    }

    /// Ends the lease, and with it every key under it. If that cannot be said to etcd, the lease runs out
    /// by itself.
    pub(super) async fn revoke(pool: &Pool, id: i64) -> Result<(), EtcdError> {
        let revoke = pool.call("ending a lease", |mut client| async move {
            match client.lease_revoke(id).await {
                Err(Error::GRpcStatus(status)) if status.code() == tonic::Code::NotFound => Ok(()),
                other => other.map(drop),
            }
        });
        revoke.await
    }
}

/// etcd counts the lease's time from when it got the request, which is after it was sent. What is left of
/// the margin covers clocks that do not run equally fast, and the time between looking at the deadline and
/// acting on it.
fn alive_until(sent_ns: u64, ttl: Duration) -> u64 {
    sent_ns + ns(ttl - ttl / 5)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_deadline_lies_well_before_the_end_of_the_lease() {
        for ttl_s in 0..=3600 {
            let ttl = Duration::from_secs(ttl_s);
            let until = alive_until(1_000, ttl);
            assert!(until <= 1_000 + ns(ttl) * 8 / 10 + 1, "{ttl_s}");
            assert!(until >= 1_000 + ns(ttl) * 7 / 10, "{ttl_s}");
        }
    }
}
