//! A slice: messages counted amid the flow, so that neither its beginning nor its end is part of them.

use hdrhistogram::Histogram;

use super::Client;
use super::closed_loop::latencies;

/// How much of a slice is counted.
#[derive(Debug, Clone, Copy)]
pub struct Slice {
    /// Messages answered before the counted ones.
    pub warmup: u64,
    /// Messages counted.
    pub messages: u64,
    /// Messages under way at any time, until the last counted one is answered.
    pub outstanding: usize,
}

/// What the counted messages of a slice showed.
#[derive(Debug)]
pub struct Window<M> {
    /// What was marked when the last message of the warm-up was answered.
    pub before: M,
    /// What was marked when the last counted message was answered.
    pub after: M,
    /// From each counted message out to its whole answer in, nanoseconds.
    pub latency_ns: Histogram<u64>,
}

impl Client {
    /// Exchanges the warm-up, the counted messages, and then those still under way, so that the server has nothing left
    /// to do. `mark` is called at both ends of the counted ones: at once, without a warm-up, otherwise while the server
    /// is busy.
    ///
    /// # Errors
    /// As [`Client::exchange`], and when `mark` fails.
    pub fn slice<M>(
        &mut self,
        slice: Slice,
        mut mark: impl FnMut() -> anyhow::Result<M>,
    ) -> anyhow::Result<Window<M>> {
        let Slice { warmup, messages, outstanding } = slice;
        let last = warmup + messages;
        let mut latency_ns = latencies()?;
        let mut before = if warmup == 0 { Some(mark()?) } else { None };
        let mut after = None;
        self.run(last + outstanding as u64, outstanding, |done, took_ns| {
            if done > warmup && done <= last {
                latency_ns.saturating_record(took_ns);
            }
            if done == warmup {
                before = Some(mark()?);
            }
            if done == last {
                after = Some(mark()?);
            }
            Ok(())
        })?;
        let (Some(before), Some(after)) = (before, after) else {
            anyhow::bail!("a slice has at least one message");
        };
        Ok(Window { before, after, latency_ns })
    }
}
