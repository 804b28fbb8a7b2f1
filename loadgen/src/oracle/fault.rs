//! What the oracle can find wrong, and how often it did.

use std::collections::BTreeMap;

macro_rules! faults {
    ($($(#[$doc:meta])* $variant:ident = $name:literal;)*) => {
        /// A broken promise of the server.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Fault { $($(#[$doc])* $variant,)* }

        impl Fault {
            /// Every fault.
            pub const ALL: &'static [Fault] = &[$(Fault::$variant,)*];

            /// Stable name in reports.
            #[must_use]
            pub const fn name(self) -> &'static str { match self { $(Self::$variant => $name,)* } }
        }
    };
}

faults! {
    /// An acknowledged message is in no history and reached not everybody (I1).
    Lost = "lost";
    /// One message has two sequence numbers (I2).
    TwoSeqs = "two_seqs";
    /// One sequence number stands for two messages (I3).
    SeqReused = "seq_reused";
    /// A new push with a lower sequence number than an earlier push on the same connection (I3).
    OrderBreak = "order_break";
    /// The same message pushed twice on one connection.
    Duplicate = "duplicate";
    /// A member that was connected all the time was neither pushed the message nor told that it lags (I4).
    Missed = "missed";
    /// A message that nobody of this run sent (I5).
    Ghost = "ghost";
    /// A message whose send had been refused for good, stored or acknowledged (I5).
    Refused = "refused_but_stored";
    /// Sequence numbers of a conversation are not 1, 2, 3... (B2).
    NotDense = "not_dense";
    /// A new sequence number that is not above one acknowledged before the message was sent (I6).
    Regressed = "regressed";
    /// History not in rising order, or a page that does not advance.
    HistoryOrder = "history_order";
    /// Content differs from what was sent.
    Corrupt = "corrupt";
    /// A message of another conversation, or an answer to a message of another connection.
    Misrouted = "misrouted";
}

const EXAMPLES_MAX: usize = 20;

/// Counts of every fault, and the first few in words.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    counts: [u64; Fault::ALL.len()],
    examples: Vec<String>,
}

impl Faults {
    /// Counts a fault; `detail` is only called while examples are still taken.
    pub fn add(&mut self, fault: Fault, times: u64, detail: impl FnOnce() -> String) {
        if times == 0 {
            return;
        }
        self.counts[fault as usize] += times;
        if self.examples.len() < EXAMPLES_MAX {
            self.examples.push(format!("{}: {}", fault.name(), detail()));
        }
    }

    /// How often a fault was seen.
    #[must_use]
    pub fn count(&self, fault: Fault) -> u64 {
        self.counts[fault as usize]
    }

    /// Counts by name, all of them.
    #[must_use]
    pub fn by_name(&self) -> BTreeMap<String, u64> {
        Fault::ALL.iter().map(|&fault| (fault.name().to_owned(), self.count(fault))).collect()
    }

    /// The first faults in words.
    #[must_use]
    pub fn examples(&self) -> &[String] {
        &self.examples
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_in_the_order_of_the_counts() {
        for (i, fault) in Fault::ALL.iter().enumerate() {
            assert_eq!(*fault as usize, i);
            assert!(Fault::ALL[i + 1..].iter().all(|other| other.name() != fault.name()));
        }
    }

    #[test]
    fn examples_are_bounded_and_counts_are_not() {
        let mut faults = Faults::default();
        for i in 0..1000 {
            faults.add(Fault::Ghost, 1, || format!("number {i}"));
        }
        faults.add(Fault::Lost, 0, || unreachable!("nothing to tell"));
        assert_eq!(faults.count(Fault::Ghost), 1000);
        assert_eq!(faults.examples().len(), EXAMPLES_MAX);
        assert_eq!(faults.by_name()["lost"], 0);
    }
}
