//! Sends records; every one that is taken is accounted for exactly once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};

use super::acks::Token;
use super::context::ProducerSide;
use super::error::{DeliveryError, SendError, SetupError};
use super::health::Health;
use super::in_flight::InFlight;
use super::native::add_brokers;
use super::settings::Settings;
use super::trace::{Headers, TRACEPARENT};

/// How long the thread of deliveries sleeps when nothing happens: bounds how long a drop takes.
const POLL: Duration = Duration::from_millis(50);

/// An idempotent producer (`acks=all`) with a bounded queue. Any thread may send; deliveries are
/// told on a thread of the producer's own.
///
/// Dropping it does not wait for records under way: they come back as
/// [`DeliveryError::Closed`]. Call [`Producer::flush`] before, if they matter.
#[must_use = "a producer that is dropped delivers nothing"]
pub struct Producer {
    inner: Arc<BaseProducer<ProducerSide>>,
    health: Arc<Health>,
    in_flight: Arc<InFlight>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Producer {
    /// Makes a producer; it connects in the background. `on_delivery` is called once for every
    /// record that [`Producer::send`] took, in the order of their acknowledgement. It must be
    /// quick: while it runs no other delivery is told.
    ///
    /// # Errors
    /// A property that librdkafka does not take. An unreachable broker is no error here.
    pub fn new(
        settings: &Settings,
        on_delivery: impl Fn(Token, Result<(), DeliveryError>) + Send + Sync + 'static,
    ) -> Result<Producer, SetupError> {
        let health = Arc::new(Health::new("producer", false));
        let in_flight = Arc::new(InFlight::default());
        let side = ProducerSide {
            health: Arc::clone(&health),
            in_flight: Arc::clone(&in_flight),
            on_delivery: Box::new(on_delivery),
        };
        let inner: Arc<BaseProducer<ProducerSide>> =
            Arc::new(settings.producer()?.create_with_context(side)?);
        let stop = Arc::new(AtomicBool::new(false));
        let thread = std::thread::Builder::new()
            .name("kafka-deliveries".to_owned())
            .spawn({
                let (inner, stop) = (Arc::clone(&inner), Arc::clone(&stop));
                let brokers = settings.brokers.clone();
                move || serve(&inner, &brokers, &stop)
            })
            .map_err(|error| SetupError::Client(format!("no thread for deliveries: {error}")))?;
        Ok(Producer { inner, health, in_flight, stop, thread: Some(thread) })
    }

    /// Takes one record, without waiting. Records of one partition stay in order.
    ///
    /// # Errors
    /// The record was not taken, and its delivery will not be told.
    pub fn send(
        &self,
        topic: &str,
        partition: u32,
        key: Option<&[u8]>,
        payload: &[u8],
        headers: &Headers,
        token: Token,
    ) -> Result<(), SendError> {
        let partition = i32::try_from(partition).map_err(|_| SendError::UnknownTopic)?;
        let token = usize::try_from(token)
            .map_err(|_| SendError::Other("a token of this machine has fewer bits".to_owned()))?;
        let mut record: BaseRecord<'_, [u8], [u8], usize> =
            BaseRecord::with_opaque_to(topic, token).partition(partition).payload(payload);
        if let Some(key) = key {
            record = record.key(key);
        }
        if let Some(context) = headers.traceparent {
            let text = context.to_string();
            let header = Header { key: TRACEPARENT, value: Some(&text) };
            record = record.headers(OwnedHeaders::new_with_capacity(1).insert(header));
        }
        self.in_flight.add();
        self.inner.send(record).map_err(|(error, _)| {
            self.in_flight.remove();
            self.health.count_error(error.rdkafka_error_code());
            SendError::from(&error)
        })
    }

    /// Asks the broker for a topic that was not there, so that records for it are taken if it is there by now. Blocks
    /// for `limit` at most.
    pub fn look_for(&self, topic: &str, limit: Duration) {
        // The answer is taken in by the client itself; without one the topic stays as it was.
        let _ = self.inner.client().fetch_metadata(Some(topic), limit);
    }

    /// Records taken whose delivery has not been told yet.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.in_flight.count()
    }

    /// Waits until the delivery of everything taken so far is told; false: it was not in time.
    #[must_use]
    pub fn flush(&self, limit: Duration) -> bool {
        self.in_flight.wait(limit)
    }

    /// Whether a broker is connected.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.health.is_up()
    }

    /// The state of this client, for other threads to watch.
    #[must_use]
    pub fn health(&self) -> Arc<Health> {
        Arc::clone(&self.health)
    }
}

impl Drop for Producer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A delivery callback may own the last handle: then it is the thread itself.
            if thread.thread().id() != std::thread::current().id() {
                let _ = thread.join();
            }
        }
    }
}

impl std::fmt::Debug for Producer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Producer")
            .field("in_flight", &self.in_flight())
            .field("is_up", &self.is_up())
            .finish_non_exhaustive()
    }
}

fn serve(producer: &BaseProducer<ProducerSide>, brokers: &str, stop: &AtomicBool) {
    let health = &producer.context().health;
    while !stop.load(Ordering::Relaxed) {
        producer.poll(POLL);
        if health.take_brokerless() {
            add_brokers(producer.client(), brokers);
        }
        if health.fatal().is_none()
            && let Some((code, reason)) = producer.client().fatal_error()
        {
            health.set_fatal(format!("{code}: {reason}"));
        }
    }
}
