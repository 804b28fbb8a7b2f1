//! The door out of the shards: bounded lanes that may refuse, and never make a shard wait.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::Thread;
use std::time::{Duration, Instant};

use crossbeam_queue::ArrayQueue;
use proto::v1::{Call, UpstreamBatch};

use crate::limits::{UPLINK_CALLS, UPLINK_MESSAGES};

/// Something that counts as several entries of a lane.
pub trait Weight {
    /// How many.
    fn weight(&self) -> usize;
}

impl Weight for UpstreamBatch {
    fn weight(&self) -> usize {
        self.frames.len()
    }
}

impl Weight for Vec<Call> {
    fn weight(&self) -> usize {
        self.len()
    }
}

/// A lane of batches from all shards to one consumer thread, bounded by the sum of what the batches hold.
pub struct Lane<T> {
    queue: ArrayQueue<T>,
    held: AtomicUsize,
    capacity: usize,
    closed: AtomicBool,
    asleep: AtomicBool,
    consumer: Mutex<Option<Thread>>,
}

/// Batches, as opposed to entries, that a lane can hold.
const BATCHES: usize = 8192;

impl<T: Weight> Lane<T> {
    fn new(capacity: usize) -> Self {
        Self {
            queue: ArrayQueue::new(BATCHES),
            held: AtomicUsize::new(0),
            capacity,
            closed: AtomicBool::new(false),
            asleep: AtomicBool::new(false),
            consumer: Mutex::new(None),
        }
    }

    /// Puts a batch in.
    ///
    /// # Errors
    /// The lane is full or closed; the batch comes back.
    pub fn offer(&self, batch: T) -> Result<(), T> {
        let weight = batch.weight();
        if self.closed.load(Ordering::Acquire)
            || self.held.load(Ordering::Relaxed) + weight > self.capacity
        {
            return Err(batch);
        }
        self.held.fetch_add(weight, Ordering::Relaxed);
        self.queue.push(batch).inspect_err(|_| {
            self.held.fetch_sub(weight, Ordering::Relaxed);
        })?;
        std::sync::atomic::fence(Ordering::SeqCst);
        if self.asleep.swap(false, Ordering::AcqRel) {
            self.wake();
        }
        Ok(())
    }

    /// Whether so much waits that nobody new should be let in: three quarters of what it takes.
    pub fn is_crowded(&self) -> bool {
        self.held.load(Ordering::Relaxed) / 3 >= self.capacity / 4
    }

    /// What waits, as the batches count.
    pub fn held(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }

    fn wake(&self) {
        let consumer = self.consumer.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        consumer.iter().for_each(Thread::unpark);
    }

    fn pop(&self) -> Option<T> {
        let batch = self.queue.pop()?;
        self.held.fetch_sub(batch.weight(), Ordering::Relaxed);
        Some(batch)
    }

    /// The consumer's side: hands everything that waits to `take`, waiting for the first at most
    /// `timeout`. Always from the same thread. Returns whether there was anything; `None` when the lane
    /// is closed and empty.
    pub fn take_all(&self, timeout: Duration, mut take: impl FnMut(T)) -> Option<bool> {
        let deadline = Instant::now() + timeout;
        loop {
            let mut any = false;
            while let Some(batch) = self.pop() {
                any = true;
                take(batch);
            }
            if any {
                return Some(true);
            }
            if self.closed.load(Ordering::Acquire) && self.queue.is_empty() {
                return None;
            }
            let now = Instant::now();
            if now >= deadline {
                return Some(false);
            }
            self.sleep(deadline - now);
        }
    }

    fn sleep(&self, at_most: Duration) {
        {
            let mut consumer =
                self.consumer.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            let current = std::thread::current();
            if consumer.as_ref().is_none_or(|known| known.id() != current.id()) {
                *consumer = Some(current);
            }
        }
        self.asleep.store(true, Ordering::SeqCst);
        // A batch put in before the store above was seen by nobody: look again before sleeping.
        std::sync::atomic::fence(Ordering::SeqCst);
        if self.queue.is_empty() && !self.closed.load(Ordering::Acquire) {
            std::thread::park_timeout(at_most);
        }
        self.asleep.store(false, Ordering::SeqCst);
    }

    /// Nothing more is taken in; the consumer ends once the lane is empty.
    pub fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.wake();
    }
}

/// Both lanes out of the gateway.
pub struct Uplink {
    /// Messages, on their way to the log.
    pub messages: Lane<UpstreamBatch>,
    /// Requests that are not messages.
    pub calls: Lane<Vec<Call>>,
}

impl Uplink {
    /// Whether so much waits for the logic service that nobody new should be let in.
    pub fn is_crowded(&self) -> bool {
        self.messages.is_crowded() || self.calls.is_crowded()
    }
}

impl Default for Uplink {
    fn default() -> Self {
        Self { messages: Lane::new(UPLINK_MESSAGES), calls: Lane::new(UPLINK_CALLS) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::v1::UpstreamFrame;
    use std::sync::Arc;

    fn batch(frames: usize) -> UpstreamBatch {
        UpstreamBatch { shard: 0, frames: vec![UpstreamFrame::default(); frames] }
    }

    #[test]
    fn a_full_lane_refuses_and_gives_the_batch_back() {
        let lane = Lane::new(10);
        assert!(lane.offer(batch(10)).is_ok());
        assert_eq!(lane.offer(batch(1)).unwrap_err().frames.len(), 1);
        assert_eq!(lane.take_all(Duration::ZERO, drop), Some(true));
        assert!(lane.offer(batch(10)).is_ok());
    }

    #[test]
    fn a_lane_is_crowded_before_it_is_full() {
        let lane = Lane::new(100);
        lane.offer(batch(70)).unwrap();
        assert!(!lane.is_crowded());
        lane.offer(batch(5)).unwrap();
        assert!(lane.is_crowded());
        assert_eq!(lane.take_all(Duration::ZERO, drop), Some(true));
        assert!(!lane.is_crowded());
    }

    #[test]
    fn a_closed_lane_gives_what_it_holds_and_then_ends() {
        let lane = Lane::new(10);
        lane.offer(batch(1)).unwrap();
        lane.close();
        assert!(lane.offer(batch(1)).is_err());
        assert_eq!(lane.take_all(Duration::from_secs(10), drop), Some(true));
        assert_eq!(lane.take_all(Duration::from_secs(10), drop), None);
    }

    #[test]
    fn nothing_is_lost_and_the_consumer_wakes() {
        const TOTAL: usize = 50_000;
        let lane = Arc::new(Lane::new(64));
        let producer = std::thread::spawn({
            let lane = Arc::clone(&lane);
            move || {
                for _ in 0..TOTAL {
                    let mut next = batch(1);
                    while let Err(back) = lane.offer(next) {
                        next = back;
                        std::thread::yield_now();
                    }
                }
                lane.close();
            }
        });
        let mut got = 0;
        while let Some(any) =
            lane.take_all(Duration::from_secs(10), |batch| got += batch.frames.len())
        {
            assert!(any, "the consumer slept through a batch at {got}");
        }
        assert_eq!(got, TOTAL);
        producer.join().unwrap();
    }
}
