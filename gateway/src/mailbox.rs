//! The door into a shard: a lane for orders and answers, a lane for deliveries, both bounded, and one
//! wake for however many are put in before the shard looks.

mod all;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crossbeam_queue::ArrayQueue;
use proto::v1::{CallReply, DeliveryBatch, EventDelivery};
use rustix::event::{EventfdFlags, eventfd};

use crate::limits::{MAILBOX_BATCHES, MAILBOX_ORDERS};
use crate::session::bucket::Rate;
pub use all::{Mailboxes, close};

/// What others may ask of a shard, one connection or all of them.
#[derive(Debug)]
pub enum Order {
    /// The answer to a request.
    Reply(Box<CallReply>),
    /// A conversation event for some connections.
    Event(Box<EventDelivery>),
    /// End one connection with a close code and a reason.
    Close {
        /// Its slot.
        slot: u32,
        /// Its generation.
        generation: u32,
        /// Close code, 4000-4999.
        code: u16,
        /// For the client's developer.
        reason: String,
    },
    /// From now on connections may send messages at this rate.
    MessageRate(Rate),
    /// Stop accepting, answer what is under way, say GOAWAY, end.
    Drain,
    /// Panic, to see what a fault of ours does.
    #[cfg(test)]
    Panic,
}

/// The door into one shard.
pub struct Mailbox {
    orders: ArrayQueue<Order>,
    deliveries: ArrayQueue<DeliveryBatch>,
    /// Set by the first to put something in, cleared by the shard before it looks.
    notified: AtomicBool,
    /// Cleared when the shard has ended: then what is put in is dropped, and nobody waits.
    open: AtomicBool,
    wake: OwnedFd,
}

/// How long somebody who found the mailbox full waits before looking again.
const FULL_WAIT: Duration = Duration::from_micros(200);

impl Mailbox {
    /// An open, empty mailbox.
    ///
    /// # Errors
    /// The process is out of descriptors.
    pub fn new() -> std::io::Result<Self> {
        Ok(Self {
            orders: ArrayQueue::new(MAILBOX_ORDERS),
            deliveries: ArrayQueue::new(MAILBOX_BATCHES),
            notified: AtomicBool::new(false),
            open: AtomicBool::new(true),
            wake: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
        })
    }

    /// Puts an order in; waits while the lane is full. Must not be called on a shard's thread.
    pub fn order(&self, order: Order) {
        self.put(&self.orders, order);
    }

    /// Puts orders in one after another, with one wake for all of them; waits while the lane is full.
    /// Must not be called on a shard's thread.
    pub fn order_all(&self, orders: impl IntoIterator<Item = Order>) {
        for order in orders {
            self.push(&self.orders, order);
        }
        self.notify();
    }

    /// Puts a batch of deliveries in; waits while the lane is full, which is how a shard that cannot
    /// keep up slows the pipeline. Must not be called on a shard's thread.
    pub fn deliver(&self, batch: DeliveryBatch) {
        self.put(&self.deliveries, batch);
    }

    fn put<T>(&self, lane: &ArrayQueue<T>, item: T) {
        self.push(lane, item);
        self.notify();
    }

    fn push<T>(&self, lane: &ArrayQueue<T>, mut item: T) {
        while self.open.load(Ordering::Acquire) {
            match lane.push(item) {
                Ok(()) => return,
                Err(back) => item = back,
            }
            // Nobody may have told the shard yet of what fills the lane.
            self.notify();
            std::thread::sleep(FULL_WAIT);
        }
    }

    /// Wakes the shard, unless it is about to look anyway.
    pub fn notify(&self) {
        if !self.notified.swap(true, Ordering::AcqRel) {
            // Only a counter of 2^64 - 2 unread wakes could refuse this.
            let _ = rustix::io::write(&self.wake, &1_u64.to_ne_bytes());
        }
    }

    /// The shard's side: from here on a new entry wakes again. Call it before looking.
    pub fn acknowledge(&self) {
        let mut count = [0; 8];
        let _ = rustix::io::read(&self.wake, &mut count);
        self.notified.store(false, Ordering::Release);
        // Entries put in before the store must be seen by the looks after it.
        std::sync::atomic::fence(Ordering::SeqCst);
    }

    /// The shard's side: the next order.
    pub fn next_order(&self) -> Option<Order> {
        self.orders.pop()
    }

    /// The shard's side: the next batch of deliveries.
    pub fn next_delivery(&self) -> Option<DeliveryBatch> {
        self.deliveries.pop()
    }

    /// Whether anything waits.
    pub fn is_empty(&self) -> bool {
        self.orders.is_empty() && self.deliveries.is_empty()
    }

    /// The shard has ended; whoever waits for room goes on.
    pub fn close(&self) {
        self.open.store(false, Ordering::Release);
    }
}

impl AsFd for Mailbox {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    fn drain() -> Order {
        Order::Drain
    }

    #[test]
    fn many_entries_make_one_wake() {
        let mailbox = Mailbox::new().unwrap();
        mailbox.order(drain());
        mailbox.deliver(DeliveryBatch::default());
        let mut count = [0; 8];
        rustix::io::read(&mailbox.wake, &mut count).unwrap();
        assert_eq!(u64::from_ne_bytes(count), 1);
    }

    #[test]
    fn nothing_is_lost_between_looks() {
        const TOTAL: usize = 100_000;
        let mailbox = Arc::new(Mailbox::new().unwrap());
        let writer = std::thread::spawn({
            let mailbox = Arc::clone(&mailbox);
            move || {
                (0..TOTAL).for_each(|shard| {
                    mailbox.deliver(DeliveryBatch { shard: shard as u32, ..Default::default() })
                })
            }
        });
        let mut next = 0;
        while next < TOTAL {
            let mut poll = [rustix::event::PollFd::new(&*mailbox, rustix::event::PollFlags::IN)];
            let timeout = rustix::event::Timespec { tv_sec: 10, tv_nsec: 0 };
            assert_eq!(
                rustix::event::poll(&mut poll, Some(&timeout)).unwrap(),
                1,
                "a wake was lost at {next}"
            );
            mailbox.acknowledge();
            while let Some(batch) = mailbox.next_delivery() {
                assert_eq!(batch.shard as usize, next);
                next += 1;
            }
        }
        writer.join().unwrap();
    }

    #[test]
    fn orders_put_in_together_make_one_wake_and_may_be_more_than_the_lane_holds() {
        let mailbox = Arc::new(Mailbox::new().unwrap());
        let close = |slot: usize| Order::Close {
            slot: slot as u32,
            generation: 0,
            code: 4000,
            reason: String::new(),
        };
        mailbox.order_all((0..100).map(close));
        let mut count = [0; 8];
        rustix::io::read(&mailbox.wake, &mut count).unwrap();
        assert_eq!(u64::from_ne_bytes(count), 1);
        mailbox.acknowledge();
        (0..100).for_each(|_| drop(mailbox.next_order().unwrap()));

        const TOTAL: usize = 3 * MAILBOX_ORDERS;
        let writer = std::thread::spawn({
            let mailbox = Arc::clone(&mailbox);
            move || mailbox.order_all((0..TOTAL).map(close))
        });
        let mut next = 0;
        while next < TOTAL {
            let mut poll = [rustix::event::PollFd::new(&*mailbox, rustix::event::PollFlags::IN)];
            let timeout = rustix::event::Timespec { tv_sec: 10, tv_nsec: 0 };
            let ready = rustix::event::poll(&mut poll, Some(&timeout)).unwrap();
            assert_eq!(ready, 1, "a wake was lost at {next}");
            mailbox.acknowledge();
            while let Some(order) = mailbox.next_order() {
                assert!(matches!(order, Order::Close { slot, .. } if slot as usize == next));
                next += 1;
            }
        }
        writer.join().unwrap();
    }

    #[test]
    fn nobody_waits_for_a_shard_that_has_ended() {
        let mailbox = Mailbox::new().unwrap();
        (0..MAILBOX_BATCHES).for_each(|_| mailbox.deliver(DeliveryBatch::default()));
        mailbox.close();
        mailbox.deliver(DeliveryBatch::default());
    }
}
