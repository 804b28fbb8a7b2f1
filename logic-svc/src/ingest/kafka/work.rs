//! One tick of records: decoded, worked together, and those that cannot be worked set apart.

use std::panic::{AssertUnwindSafe, catch_unwind};

use cluster::kafka::Record;
use prost::Message as _;
use proto::v1::{UpstreamBatch, UpstreamRecord};

use crate::domain::delivery::GatewayNo;
use crate::gateways::Gateways;
use crate::ingest::faults;
use crate::pipeline::Pipeline;
use crate::ports::{Members, MessageLog, Publisher};

/// What works batches.
pub(crate) trait Handle {
    /// What a tick gives.
    type Out;
    /// Works all of it as one tick.
    fn tick(&mut self, batches: Vec<(GatewayNo, UpstreamBatch)>) -> Self::Out;
    /// The members of these conversations changed, as of this place in the log.
    fn changed(&mut self, ids: &[String]);
    /// Nothing at hand is to be relied on.
    fn forget(&mut self);
}

impl<L: MessageLog, M: Members, O: Publisher> Handle for Pipeline<L, M, O> {
    type Out = O::Out;

    fn tick(&mut self, batches: Vec<(GatewayNo, UpstreamBatch)>) -> O::Out {
        batches.iter().for_each(|(_, batch)| faults::look_at(batch));
        Pipeline::tick(self, batches)
    }

    fn changed(&mut self, ids: &[String]) {
        Pipeline::changed(self, ids);
    }

    fn forget(&mut self) {
        Pipeline::forget(self);
    }
}

/// A record that came.
pub(super) struct Arrived {
    pub(super) record: Record,
    /// `Err`: why it cannot be read.
    value: Result<UpstreamRecord, String>,
}

impl Arrived {
    pub(super) fn new(record: Record) -> Self {
        let value =
            UpstreamRecord::decode(record.payload.clone()).map_err(|error| error.to_string());
        let value = value.and_then(|value| match &value.gateway {
            Some(gateway) if !gateway.id.is_empty() => Ok(value),
            None if value.batches.is_empty() && !value.changed.is_empty() => Ok(value),
            _ => Err("it names no gateway".to_owned()),
        });
        Self { record, value }
    }

    /// How many messages it holds.
    pub(super) fn messages(&self) -> usize {
        let count = |value: &UpstreamRecord| value.batches.iter().map(|b| b.frames.len()).sum();
        self.value.as_ref().map_or(0, count)
    }

    /// The conversations that it tells to have changed.
    fn changed(&self) -> &[String] {
        self.value.as_ref().map_or(&[], |value| &value.changed)
    }

    fn batches(&self, gateways: &Gateways, into: &mut Vec<(GatewayNo, UpstreamBatch)>) {
        let Ok(value) = &self.value else { return };
        let Some(gateway) = &value.gateway else { return };
        let no = gateways.number_of(&gateway.id, gateway.epoch);
        into.extend(value.batches.iter().map(|batch| (no, batch.clone())));
    }
}

/// A record that cannot be worked.
pub(super) struct Poisoned {
    pub(super) record: Record,
    pub(super) reason: String,
    pub(super) attempts: u32,
}

/// What became of a tick.
pub(super) struct Worked<T> {
    pub(super) out: Vec<T>,
    pub(super) poisoned: Vec<Poisoned>,
}

/// Works records as one tick. If that panics, each is worked alone, and one that panics alone `attempts` times is set
/// apart.
pub(super) fn work<H: Handle>(
    handle: &mut H,
    gateways: &Gateways,
    arrived: &[Arrived],
    attempts: u32,
) -> Worked<H::Out> {
    let mut worked = Worked { out: Vec::new(), poisoned: Vec::new() };
    for one in arrived {
        if let Err(reason) = &one.value {
            let reason = format!("the record cannot be read: {reason}");
            worked.poisoned.push(Poisoned { record: one.record.clone(), reason, attempts: 1 });
        }
    }
    // Before all messages of the tick, also those that came before: they may know more, never less.
    for changed in arrived.iter().map(Arrived::changed).filter(|changed| !changed.is_empty()) {
        handle.changed(changed);
    }
    let mut batches = Vec::new();
    arrived.iter().for_each(|one| one.batches(gateways, &mut batches));
    if batches.is_empty() {
        return worked;
    }
    match guarded(handle, batches) {
        Ok(out) => worked.out.push(out),
        Err(reason) => {
            tracing::error!(
                reason,
                records = arrived.len(),
                "a tick panicked; its records are worked one by one"
            );
            for one in arrived.iter().filter(|one| one.value.is_ok()) {
                alone(handle, gateways, one, attempts, &mut worked);
            }
        }
    }
    worked
}

fn alone<H: Handle>(
    handle: &mut H,
    gateways: &Gateways,
    one: &Arrived,
    attempts: u32,
    worked: &mut Worked<H::Out>,
) {
    let mut reason = String::new();
    for _ in 0..attempts.max(1) {
        let mut batches = Vec::new();
        one.batches(gateways, &mut batches);
        match guarded(handle, batches) {
            Ok(out) => return worked.out.push(out),
            Err(panic) => reason = format!("the handler panicked: {panic}"),
        }
    }
    worked.poisoned.push(Poisoned { record: one.record.clone(), reason, attempts });
}

/// A tick whose panic leaves nothing behind: what is at hand is dropped and read anew.
fn guarded<H: Handle>(
    handle: &mut H,
    batches: Vec<(GatewayNo, UpstreamBatch)>,
) -> Result<H::Out, String> {
    catch_unwind(AssertUnwindSafe(|| handle.tick(batches))).map_err(|panic| {
        handle.forget();
        metrics::counter!("corelane_logic_panics_total").increment(1);
        let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
        text.or_else(|| panic.downcast_ref::<String>().cloned())
            .unwrap_or_else(|| "no reason given".to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use proto::v1::{GatewayRef, Send, UpstreamFrame};
    use std::sync::Arc;

    /// Panics on a slot; gives the slots of a tick.
    #[derive(Default)]
    struct Fragile {
        slot: u32,
        /// Panics so often, then no more.
        times: u32,
        forgets: u32,
        changed: Vec<String>,
    }

    impl Handle for Fragile {
        type Out = Vec<u32>;

        fn tick(&mut self, batches: Vec<(GatewayNo, UpstreamBatch)>) -> Vec<u32> {
            let slots: Vec<u32> =
                batches.iter().flat_map(|(_, b)| &b.frames).map(|frame| frame.slot).collect();
            if slots.contains(&self.slot) && self.times > 0 {
                self.times -= 1;
                panic!("slot {}", self.slot);
            }
            slots
        }

        fn changed(&mut self, ids: &[String]) {
            self.changed.extend_from_slice(ids);
        }

        fn forget(&mut self) {
            self.forgets += 1;
        }
    }

    fn record(offset: i64, payload: Vec<u8>) -> Arrived {
        Arrived::new(Record {
            topic: Arc::from("t"),
            partition: 3,
            offset,
            payload: Bytes::from(payload),
            key: None,
            headers: cluster::kafka::Headers::default(),
            timestamp_ms: 0,
        })
    }

    fn with_slot(offset: i64, slot: u32) -> Arrived {
        let frame = UpstreamFrame { slot, send: Some(Send::default()), ..Default::default() };
        let gateway = Some(GatewayRef { id: "gw".to_owned(), epoch: 1 });
        let batches = vec![UpstreamBatch { shard: 0, frames: vec![frame] }];
        record(offset, UpstreamRecord { gateway, batches, changed: Vec::new() }.encode_to_vec())
    }

    fn run(fragile: &mut Fragile, arrived: &[Arrived]) -> (Vec<u32>, Vec<(i64, u32, String)>) {
        let worked = work(fragile, &Gateways::default(), arrived, 3);
        let poisoned = worked.poisoned.into_iter();
        (
            worked.out.into_iter().flatten().collect(),
            poisoned.map(|p| (p.record.offset, p.attempts, p.reason)).collect(),
        )
    }

    #[test]
    fn good_records_are_one_tick() {
        let mut fragile = Fragile { slot: 99, times: 9, ..Fragile::default() };
        let arrived = [with_slot(1, 1), with_slot(2, 2)];
        let worked = work(&mut fragile, &Gateways::default(), &arrived, 3);
        assert_eq!(worked.out, [vec![1, 2]]);
        assert!(worked.poisoned.is_empty() && fragile.forgets == 0);
        assert_eq!(arrived.iter().map(Arrived::messages).sum::<usize>(), 2);
    }

    #[test]
    fn a_record_that_panics_alone_is_set_apart_and_the_others_are_worked() {
        let mut fragile = Fragile { slot: 2, times: u32::MAX, ..Fragile::default() };
        let (out, poisoned) =
            run(&mut fragile, &[with_slot(1, 1), with_slot(2, 2), with_slot(3, 3)]);
        assert_eq!(out, [1, 3]);
        assert_eq!(poisoned.len(), 1);
        assert_eq!((poisoned[0].0, poisoned[0].1), (2, 3));
        assert!(poisoned[0].2.contains("slot 2"), "{}", poisoned[0].2);
        assert_eq!(fragile.forgets, 4, "once together, three times alone");
    }

    #[test]
    fn a_panic_that_does_not_come_again_costs_nothing() {
        let mut fragile = Fragile { slot: 2, times: 3, ..Fragile::default() };
        let (out, poisoned) = run(&mut fragile, &[with_slot(1, 1), with_slot(2, 2)]);
        assert_eq!(out, [1, 2]);
        assert!(poisoned.is_empty());
    }

    #[test]
    fn what_cannot_be_read_is_set_apart_at_once() {
        let mut fragile = Fragile { slot: 99, times: 0, ..Fragile::default() };
        let nameless = UpstreamRecord::default().encode_to_vec();
        let (out, poisoned) =
            run(&mut fragile, &[record(1, vec![0xff; 20]), with_slot(2, 7), record(3, nameless)]);
        assert_eq!(out, [7]);
        assert_eq!(poisoned.iter().map(|p| (p.0, p.1)).collect::<Vec<_>>(), [(1, 1), (3, 1)]);
    }

    #[test]
    fn changes_are_told_before_the_tick_and_are_no_messages() {
        let mut fragile = Fragile::default();
        let changed = vec!["g".to_owned(), "h".to_owned()];
        let told = UpstreamRecord { changed: changed.clone(), ..Default::default() };
        let arrived = [record(1, told.encode_to_vec())];
        let worked = work(&mut fragile, &Gateways::default(), &arrived, 3);
        assert!(worked.out.is_empty() && worked.poisoned.is_empty());
        assert_eq!((&fragile.changed, arrived[0].messages()), (&changed, 0));
        // Whose messages these are nobody could tell.
        let batches = vec![UpstreamBatch::default()];
        let nameless = UpstreamRecord { batches, ..told };
        let (out, poisoned) =
            run(&mut fragile, &[record(2, nameless.encode_to_vec()), with_slot(3, 7)]);
        assert_eq!((out, poisoned.len(), fragile.changed.len()), (vec![7], 1, 2));
    }
}
