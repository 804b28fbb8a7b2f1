//! One lane of requests: a batch in flight, the next one gathers meanwhile.

use std::sync::Arc;

use proto::v1::call::Request;
use proto::v1::{Call, CallBatch, CallReplies, CallReply};
use tokio::sync::mpsc;

use super::degraded::{Waiting, unanswered, unavailable};
use super::{Backlog, Doors, Logic, NoAnswer, batch_len};

/// Most requests in a batch, counted with their weights: bounds how long the first waits for the last.
const BATCH: usize = 256;
/// What a request for pages weighs: its answer may be half a megabyte.
const PAGES: usize = 8;

/// Asks until the lane is closed and empty.
pub(super) async fn run<L: Logic>(
    doors: Doors<L>,
    mut lane: mpsc::UnboundedReceiver<Vec<Call>>,
    backlog: Arc<Backlog>,
) {
    let mut waiting = Vec::new();
    loop {
        if waiting.is_empty() {
            let Some(calls) = lane.recv().await else { return };
            waiting = calls;
        }
        while waiting.len() < BATCH {
            let Ok(mut calls) = lane.try_recv() else { break };
            waiting.append(&mut calls);
        }
        let rest = waiting.split_off(batch_len(&waiting, BATCH, weight));
        let batch = std::mem::replace(&mut waiting, rest);
        let count = batch.len();
        let replies = ask(&doors, batch).await;
        tokio::task::block_in_place(|| doors.mailboxes.replies(replies));
        backlog.done(count);
    }
}

fn weight(call: &Call) -> usize {
    match &call.request {
        Some(Request::Pull(_) | Request::Sync(_)) => PAGES,
        _ => 1,
    }
}

/// The answers to a batch, one for each request, whatever happens.
async fn ask<L: Logic>(doors: &Doors<L>, calls: Vec<Call>) -> Vec<CallReply> {
    let waiting: Vec<Waiting> = calls.iter().filter_map(Waiting::of).collect();
    if calls.iter().all(is_repeatable) {
        return settle(waiting, send(doors, calls, true).await);
    }
    // Something in it must not be done twice: it is sent once, and what may be repeated alone after that.
    let again: Vec<Call> = calls.iter().filter(|call| is_repeatable(call)).cloned().collect();
    let first = send(doors, calls, false).await;
    let (Err(failure), false) = (&first, again.is_empty()) else { return settle(waiting, first) };
    let refusal = unavailable(&failure.0);
    let repeated: Vec<Waiting> = again.iter().filter_map(Waiting::of).collect();
    let mut answers = settle(repeated.clone(), send(doors, again, true).await);
    let given_up = waiting.iter().filter(|waiting| !repeated.contains(waiting));
    answers.extend(given_up.map(|waiting| waiting.refused(&refusal)));
    answers
}

async fn send<L: Logic>(
    doors: &Doors<L>,
    calls: Vec<Call>,
    repeatable: bool,
) -> Result<CallReplies, NoAnswer> {
    let batch = CallBatch { gateway: Some(doors.identity.current()), calls };
    doors.logic.ask(batch, repeatable).await
}

fn settle(waiting: Vec<Waiting>, outcome: Result<CallReplies, NoAnswer>) -> Vec<CallReply> {
    match outcome {
        Ok(CallReplies { mut replies }) => {
            let missing = unanswered(&waiting, &replies);
            let refusal = unavailable("it left a request out");
            replies.extend(missing.into_iter().map(|waiting| waiting.refused(&refusal)));
            replies
        }
        Err(NoAnswer(why)) => {
            waiting.into_iter().map(|waiting| waiting.refused(&unavailable(&why))).collect()
        }
    }
}

/// Whether asking twice does no more than asking once.
fn is_repeatable(call: &Call) -> bool {
    match &call.request {
        Some(Request::Create(_) | Request::Join(_) | Request::Leave(_)) => false,
        Some(_) | None => true,
    }
}
