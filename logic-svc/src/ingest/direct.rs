//! The in-process bus: everything queued becomes one tick.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use proto::v1::{DeliveryBatch, UpstreamBatch};

use crate::domain::delivery::GatewayNo;
use crate::pipeline::Pipeline;
use crate::ports::{DeliverySink, Members, MessageLog, Publisher, Received, UpstreamSource};

/// The one gateway there is.
const HERE: GatewayNo = 0;
/// How long a look at the source waits; bounds how late its closing is seen.
const WAIT: Duration = Duration::from_millis(100);

/// Feeds the pipeline until the source is closed. A tick takes at most about `tick_max_messages`, so that a
/// long queue does not make one endless transaction.
pub(crate) fn run<L: MessageLog, M: Members, O: Publisher<Out = Vec<DeliveryBatch>>>(
    pipeline: &Mutex<Pipeline<L, M, O>>,
    sink: &dyn DeliverySink,
    source: &mut impl UpstreamSource,
    tick_max_messages: usize,
) {
    let mut queued = Vec::new();
    let mut tick = Vec::new();
    loop {
        let received = source.recv(&mut queued, WAIT);
        let mut waiting = queued.drain(..).peekable();
        while waiting.peek().is_some() {
            take(&mut waiting, &mut tick, tick_max_messages);
            let here = tick.drain(..).map(|batch| (HERE, batch)).collect();
            let out = pipeline.lock().unwrap_or_else(PoisonError::into_inner).tick(here);
            out.into_iter().for_each(|batch| sink.deliver(batch));
        }
        if received == Received::Closed {
            return;
        }
    }
}

/// Moves batches over until the tick is full; at least one.
fn take(from: &mut impl Iterator<Item = UpstreamBatch>, tick: &mut Vec<UpstreamBatch>, max: usize) {
    let mut messages = 0;
    while messages < max {
        let Some(batch) = from.next() else { return };
        messages += batch.frames.len().max(1);
        tick.push(batch);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::v1::UpstreamFrame;

    #[test]
    fn ticks_are_bounded_and_nothing_is_left_behind() {
        let batch =
            |shard, frames| UpstreamBatch { shard, frames: vec![UpstreamFrame::default(); frames] };
        let mut from =
            [batch(0, 3), batch(1, 3), batch(2, 100), batch(3, 0), batch(4, 1)].into_iter();
        let mut sizes = Vec::new();
        loop {
            let mut tick = Vec::new();
            take(&mut from, &mut tick, 5);
            if tick.is_empty() {
                break;
            }
            sizes.push(tick.iter().map(|batch| batch.shard).collect::<Vec<_>>());
        }
        assert_eq!(sizes, [vec![0, 1], vec![2], vec![3, 4]]);
    }
}
