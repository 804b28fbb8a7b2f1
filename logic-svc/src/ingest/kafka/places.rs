//! From where each partition that is ours would have to be read again.

use std::collections::BTreeMap;

use cluster::kafka::{NextOffset, Record};

/// For each partition the first record that is not done. A partition is not in it before its first record came:
/// nothing of it has to be read again.
#[derive(Debug, Default)]
pub(super) struct Places(BTreeMap<u32, NextOffset>);

impl Places {
    /// A record has come: whatever stands before the first one was done when its partition became ours.
    pub(super) fn came(&mut self, record: &Record) {
        let first = || (record.topic.to_string(), record.partition, record.offset);
        self.0.entry(record.partition).or_insert_with(first);
    }

    /// Everything before these is done.
    pub(super) fn done(&mut self, offsets: &[NextOffset]) {
        for next in offsets {
            if let Some(place) = self.0.get_mut(&next.1) {
                place.2 = place.2.max(next.2);
            }
        }
    }

    /// These partitions are read by somebody else.
    pub(super) fn gone(&mut self, partitions: &[(String, u32)]) {
        for (_, partition) in partitions {
            self.0.remove(partition);
        }
    }

    /// All of them.
    pub(super) fn all(&self) -> Vec<NextOffset> {
        self.0.values().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn record(partition: u32, offset: i64) -> Record {
        Record {
            topic: Arc::from("t"),
            partition,
            offset,
            payload: bytes::Bytes::new(),
            key: None,
            headers: cluster::kafka::Headers::default(),
            timestamp_ms: 0,
        }
    }

    #[test]
    fn what_is_not_done_is_read_again_and_nothing_else() {
        let at = |partition, offset| ("t".to_owned(), partition, offset);
        let mut places = Places::default();
        places.done(&[at(4, 40)]);
        assert!(places.all().is_empty(), "nothing came from it");
        for (partition, offset) in [(0, 10), (0, 11), (1, 5), (2, 7)] {
            places.came(&record(partition, offset));
        }
        assert_eq!(places.all(), [at(0, 10), at(1, 5), at(2, 7)]);
        places.done(&[at(0, 11), at(2, 8)]);
        places.gone(&[("t".to_owned(), 1)]);
        assert_eq!(places.all(), [at(0, 11), at(2, 8)]);
        // It comes back: somebody else did what lay between.
        places.came(&record(1, 9));
        assert_eq!(places.all(), [at(0, 11), at(1, 9), at(2, 8)]);
    }
}
