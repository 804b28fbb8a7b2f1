//! Many batches of frames become few records: one a partition and tick, or more where one would be too
//! large.

use std::collections::VecDeque;

use prost::Message as _;
use proto::v1::{GatewayRef, UpstreamBatch, UpstreamFrame, UpstreamRecord};

/// Most bytes of frames in a record.
pub(super) const RECORD_BYTES: usize = 512 * 1024;
/// What a frame takes besides its strings and its content, generously.
const FRAME_BYTES: usize = 48;

/// Who waits for the answer to one frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Origin {
    /// The shard of its connection.
    pub(super) shard: u32,
    /// The slot.
    pub(super) slot: u32,
    /// The generation.
    pub(super) generation: u32,
    /// The client's number of the request.
    pub(super) request_id: u32,
    /// The client's id of the message.
    pub(super) client_msg_id: String,
}

/// The frames of one partition, collected.
#[derive(Debug, Default)]
pub(super) struct Collected {
    /// Which partition.
    pub(super) partition: usize,
    batches: Vec<UpstreamBatch>,
    bytes: usize,
    frames: usize,
}

impl Collected {
    fn add(&mut self, shard: u32, frame: UpstreamFrame, bytes: usize) {
        self.bytes += bytes;
        self.frames += 1;
        match self.batches.last_mut() {
            Some(batch) if batch.shard == shard => batch.frames.push(frame),
            _ => self.batches.push(UpstreamBatch { shard, frames: vec![frame] }),
        }
    }

    /// How many frames.
    #[must_use]
    pub(super) fn frames(&self) -> usize {
        self.frames
    }

    /// Who waits for its frames.
    pub(super) fn into_origins(self) -> Vec<Origin> {
        origins(self.batches)
    }

    /// The value of the record, and who waits for it.
    #[must_use]
    pub(super) fn seal(self, gateway: GatewayRef) -> (Vec<u8>, Vec<Origin>) {
        let record =
            UpstreamRecord { gateway: Some(gateway), batches: self.batches, changed: Vec::new() };
        let value = record.encode_to_vec();
        (value, origins(record.batches))
    }
}

fn origins(batches: Vec<UpstreamBatch>) -> Vec<Origin> {
    let of =
        |UpstreamBatch { shard, frames }| frames.into_iter().map(move |frame| origin(shard, frame));
    batches.into_iter().flat_map(of).collect()
}

fn origin(shard: u32, frame: UpstreamFrame) -> Origin {
    let UpstreamFrame { slot, generation, send, .. } = frame;
    let (request_id, client_msg_id) =
        send.map(|send| (send.request_id, send.client_msg_id)).unwrap_or_default();
    Origin { shard, slot, generation, request_id, client_msg_id }
}

/// Frames on their way up by the partition of their conversation, in their order, until that takes another
/// record.
#[derive(Debug)]
pub(super) struct Waiting {
    partitions: Vec<VecDeque<Collected>>,
    frames: usize,
    most_bytes: usize,
}

impl Waiting {
    /// Nothing waits; records get at most so many bytes of frames.
    pub(super) fn new(partitions: usize, most_bytes: usize) -> Self {
        let partitions = (0..partitions).map(|_| VecDeque::new()).collect();
        Self { partitions, frames: 0, most_bytes }
    }

    /// Adds what a tick took out of the uplink.
    pub(super) fn add(
        &mut self,
        batches: impl IntoIterator<Item = UpstreamBatch>,
        partition_of: impl Fn(&str) -> usize,
    ) {
        for UpstreamBatch { shard, frames } in batches {
            for frame in frames {
                let Some(send) = &frame.send else { continue };
                let bytes = FRAME_BYTES
                    + send.conversation_id.len()
                    + send.client_msg_id.len()
                    + send.content.len();
                let partition = partition_of(&send.conversation_id);
                let Some(records) = self.partitions.get_mut(partition) else { continue };
                if records.back().is_none_or(|last| last.bytes + bytes > self.most_bytes) {
                    records.push_back(Collected { partition, ..Collected::default() });
                }
                if let Some(record) = records.back_mut() {
                    record.add(shard, frame, bytes);
                    self.frames += 1;
                }
            }
        }
    }

    /// The oldest record of a partition.
    pub(super) fn take(&mut self, partition: usize) -> Option<Collected> {
        let record = self.partitions.get_mut(partition)?.pop_front()?;
        self.frames -= record.frames;
        Some(record)
    }

    /// How many partitions there are.
    pub(super) fn partitions(&self) -> usize {
        self.partitions.len()
    }

    /// Frames that wait.
    pub(super) fn frames(&self) -> usize {
        self.frames
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use proto::v1::Send;
    use std::collections::BTreeMap;

    fn frame(slot: u32, conversation: &str, n: u32, bytes: usize) -> UpstreamFrame {
        let send = Send {
            request_id: n,
            conversation_id: conversation.to_owned(),
            client_msg_id: format!("m{n}"),
            msg_type: 1,
            content: vec![b'x'; bytes].into(),
        };
        UpstreamFrame { slot, generation: 9, user_id: 1, send: Some(send) }
    }

    /// Stands for the real partitioner, which has its own tests.
    fn by_last_byte(partitions: usize) -> impl Fn(&str) -> usize {
        move |id| id.bytes().last().map_or(0, usize::from) % partitions
    }

    /// All records of one tick.
    fn regroup(
        batches: impl IntoIterator<Item = UpstreamBatch>,
        partitions: usize,
        partition_of: impl Fn(&str) -> usize,
        most_bytes: usize,
    ) -> Vec<Collected> {
        let mut waiting = Waiting::new(partitions, most_bytes);
        waiting.add(batches, partition_of);
        let mut records = Vec::new();
        for partition in 0..partitions {
            records.extend(std::iter::from_fn(|| waiting.take(partition)));
        }
        assert_eq!(waiting.frames(), 0);
        records
    }

    #[test]
    fn what_comes_while_a_partition_is_busy_joins_what_waits_there() {
        let mut waiting = Waiting::new(2, 2_000);
        for n in 0..10 {
            let frames = vec![frame(n, "a", n, 500), frame(n, "b", n, 10)];
            waiting.add([UpstreamBatch { shard: 0, frames }], by_last_byte(2));
        }
        assert_eq!((waiting.frames(), waiting.partitions()), (20, 2));
        let (a, b) = (usize::from(b'a') % 2, usize::from(b'b') % 2);
        let numbers = |record: Collected| -> Vec<u32> {
            record.into_origins().into_iter().map(|origin| origin.request_id).collect()
        };
        assert_eq!(waiting.take(b).map(numbers), Some((0..10).collect()));
        assert_eq!(waiting.take(a).map(numbers), Some(vec![0, 1, 2]));
        assert_eq!(
            (waiting.frames(), waiting.take(b).is_none(), waiting.take(7).is_none()),
            (7, true, true)
        );
    }

    #[test]
    fn many_frames_make_one_record_a_partition() {
        let batches = (0..4).map(|shard| UpstreamBatch {
            shard,
            frames: (0..100).map(|n| frame(n, if n % 2 == 0 { "a" } else { "b" }, n, 10)).collect(),
        });
        let records = regroup(batches, 2, by_last_byte(2), RECORD_BYTES);
        assert_eq!(records.len(), 2);
        assert!(records.iter().all(|record| record.frames() == 200 && record.batches.len() == 4));
    }

    #[test]
    fn a_record_is_bounded_and_one_that_is_too_large_alone_still_goes() {
        let frames = (0..10).map(|n| frame(n, "a", n, if n == 5 { 5_000 } else { 500 })).collect();
        let records = regroup([UpstreamBatch { shard: 0, frames }], 1, by_last_byte(1), 2_000);
        let sizes: Vec<_> = records.iter().map(Collected::frames).collect();
        assert_eq!(sizes, [3, 2, 1, 3, 1]);
    }

    #[test]
    fn the_sealed_record_names_the_gateway_and_everybody_who_waits() {
        let frames = vec![frame(3, "a", 1, 10), frame(4, "a", 2, 10)];
        let mut records =
            regroup([UpstreamBatch { shard: 2, frames }], 1, by_last_byte(1), RECORD_BYTES);
        let gateway = GatewayRef { id: "g".into(), epoch: 5 };
        let (value, origins) = records.remove(0).seal(gateway.clone());
        let record = UpstreamRecord::decode(&value[..]).unwrap();
        assert_eq!(record.gateway, Some(gateway));
        let origin = |slot, n: u32| Origin {
            shard: 2,
            slot,
            generation: 9,
            request_id: n,
            client_msg_id: format!("m{n}"),
        };
        assert_eq!(origins, [origin(3, 1), origin(4, 2)]);
        assert_eq!(record.batches[0].frames.len(), 2);
    }

    proptest! {
        /// Nothing is lost or doubled, each partition gets what is its own, and the frames of a
        /// conversation keep their order.
        #[test]
        fn frames_keep_their_order(
            sends in proptest::collection::vec((0..3_u32, 0..7_u8, 0..600_usize), 0..200),
            partitions in 1..6_usize,
        ) {
            let name = |c: u8| char::from(b'a' + c).to_string();
            let mut expected: BTreeMap<String, Vec<u32>> = BTreeMap::new();
            let batches: Vec<_> = (0..).zip(&sends).map(|(n, &(shard, c, bytes))| {
                expected.entry(name(c)).or_default().push(n);
                UpstreamBatch { shard, frames: vec![frame(n, &name(c), n, bytes)] }
            }).collect();
            let records = regroup(batches, partitions, by_last_byte(partitions), 2_000);
            let mut seen: BTreeMap<String, Vec<u32>> = BTreeMap::new();
            for record in &records {
                prop_assert!(record.bytes <= 2_000 || record.frames == 1);
                for frame in record.batches.iter().flat_map(|batch| &batch.frames) {
                    let send = frame.send.as_ref().unwrap();
                    prop_assert_eq!(by_last_byte(partitions)(&send.conversation_id), record.partition);
                    seen.entry(send.conversation_id.clone()).or_default().push(send.request_id);
                }
            }
            prop_assert_eq!(seen, expected);
        }
    }
}
