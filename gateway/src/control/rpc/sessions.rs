//! The lane of logins and ends of connections: one batch in flight, in order. Reports of all sessions go
//! through it too, so that none overtakes the end of a session it names.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use proto::v1::call::Request;
use proto::v1::call_reply::Reply;
use proto::v1::{Call, CallReply, Closed, GatewayReport, SessionChanges, SessionReplies};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};

use super::degraded::{Waiting, connection, unanswered, unavailable};
use super::{Backlog, Doors, Logic, NoAnswer, batch_len};
use crate::ids::ConnId;
use crate::index::{Change, Entrant, Passed};

/// Most logins and ends in a batch: bounds how long the first waits for the last.
const BATCH: usize = 1024;
/// Most sessions in one part of a report.
const PART: usize = 4096;
/// How long what could not be told waits before it is tried again.
const AGAIN: Duration = Duration::from_millis(500);
/// How often ends are tried to be told when nothing more will come.
const LAST_TRIES: u32 = 3;

/// What the lane is given.
pub(super) enum Input {
    /// Logins and ends.
    Calls(Vec<Call>),
    /// Routes of this gateway are not known: report all sessions.
    ReportAll,
}

/// Asks for a report of all sessions.
#[derive(Clone)]
pub struct ReportAll(pub(super) mpsc::WeakUnboundedSender<Input>);

impl ReportAll {
    /// Soon. Nothing happens when the gateway is stopping.
    pub fn ask(&self) {
        if let Some(lane) = self.0.upgrade() {
            let _ = lane.send(Input::ReportAll);
        }
    }
}

/// Tells the logic service until the lane is closed and empty.
pub(super) async fn run<L: Logic>(
    doors: Doors<L>,
    inputs: mpsc::UnboundedReceiver<Input>,
    backlog: Arc<Backlog>,
) {
    let lane = Lane {
        doors,
        inputs,
        backlog,
        waiting: VecDeque::new(),
        untold: VecDeque::new(),
        report: Report::default(),
        not_before: Instant::now(),
        open: true,
    };
    lane.run().await;
}

/// A report of all sessions under way.
#[derive(Debug, Default)]
struct Report {
    /// Where the next part begins.
    cursor: Option<u32>,
    /// It was asked for again meanwhile.
    again: bool,
}

struct Lane<L> {
    doors: Doors<L>,
    inputs: mpsc::UnboundedReceiver<Input>,
    backlog: Arc<Backlog>,
    waiting: VecDeque<Call>,
    /// Ends that could not be told; they go before everything that came behind them.
    untold: VecDeque<(ConnId, u64)>,
    report: Report,
    /// What failed is not tried again before.
    not_before: Instant,
    open: bool,
}

impl<L: Logic> Lane<L> {
    async fn run(mut self) {
        let mut last_tries = 0;
        loop {
            self.receive().await;
            let changes = !self.waiting.is_empty() || self.may_repeat() && !self.untold.is_empty();
            if changes {
                self.change().await;
            }
            if self.report.cursor.is_some() && self.may_repeat() && self.open {
                self.report_part().await;
            }
            if !self.open && self.waiting.is_empty() {
                last_tries += 1;
                if self.untold.is_empty() || last_tries > LAST_TRIES {
                    return;
                }
            }
        }
    }

    fn may_repeat(&self) -> bool {
        Instant::now() >= self.not_before
    }

    /// Takes everything that is there; waits for something if there is nothing to do.
    async fn receive(&mut self) {
        if self.waiting.is_empty() {
            let idle = self.untold.is_empty() && self.report.cursor.is_none();
            let input = match (self.open, idle) {
                (true, true) => Ok(self.inputs.recv().await),
                (true, false) => timeout_at(self.not_before, self.inputs.recv()).await,
                (false, true) => return,
                (false, false) => return tokio::time::sleep_until(self.not_before).await,
            };
            match input {
                Ok(Some(input)) => self.take(input),
                Ok(None) => self.open = false,
                Err(_) => {}
            }
        }
        while let Ok(input) = self.inputs.try_recv() {
            self.take(input);
        }
    }

    fn take(&mut self, input: Input) {
        match input {
            Input::Calls(calls) => self.waiting.extend(calls),
            Input::ReportAll => match &mut self.report.cursor {
                Some(_) => self.report.again = true,
                cursor => *cursor = Some(0),
            },
        }
    }

    async fn change(&mut self) {
        let untold: Vec<_> = self.untold.drain(..self.untold.len().min(BATCH)).collect();
        let count = batch_len(&self.waiting, BATCH, |_| 1);
        let mut calls: Vec<Call> = untold.into_iter().map(closed).collect();
        calls.extend(self.waiting.drain(..count));
        let asked: Vec<Asked> = calls.iter().filter_map(Asked::of).collect();
        self.doors.index.begin_changes(calls.iter().any(resumes));
        let gateway = Some(self.doors.identity.current());
        let outcome = self.doors.logic.change(SessionChanges { gateway, calls }).await;
        let replies = match outcome {
            Ok(replies) => self.changed(asked, replies),
            Err(failure) => self.not_changed(asked, &failure),
        };
        tokio::task::block_in_place(|| self.doors.mailboxes.replies(replies));
        self.backlog.done(count);
    }

    /// The logic service answered: the index first, so that a push that follows on the answer finds its
    /// receiver.
    fn changed(&mut self, asked: Vec<Asked>, answer: SessionReplies) -> Vec<CallReply> {
        let SessionReplies { mut replies, interests, report_all } = answer;
        let waiting: Vec<Waiting> = asked.iter().filter_map(Asked::waiting).collect();
        let users: HashMap<ConnId, u64> = replies.iter().filter_map(welcomed).collect();
        count_logins("welcome", users.len());
        count_logins("refused", waiting.len().saturating_sub(users.len()));
        let changes = asked.into_iter().filter_map(|asked| asked.became(&users));
        let passed = self.doors.index.finish_changes(changes, &interests);
        replies.iter_mut().for_each(|reply| own_up(reply, &passed));
        let refusal = unavailable("it left a login out");
        let missing = unanswered(&waiting, &replies);
        replies.extend(missing.into_iter().map(|waiting| waiting.refused(&refusal)));
        if report_all {
            self.take(Input::ReportAll);
        }
        replies
    }

    /// Nobody answered: logins are refused, ends are kept. A refused connection ends, and its end is told
    /// too, in case its login was done after all.
    fn not_changed(&mut self, asked: Vec<Asked>, failure: &NoAnswer) -> Vec<CallReply> {
        let replies: Vec<_> = asked
            .iter()
            .filter_map(Asked::waiting)
            .map(|waiting| waiting.refused(&unavailable(&failure.0)))
            .collect();
        count_logins("unavailable", replies.len());
        let ends = asked.iter().filter_map(|asked| match asked {
            Asked::Closed(connection, user_id) => Some((*connection, *user_id)),
            Asked::Login { .. } => None,
        });
        // They were taken from the front: those that were not go on standing behind them.
        let mut untold: VecDeque<_> = ends.collect();
        untold.append(&mut self.untold);
        self.untold = untold;
        self.not_before = Instant::now() + AGAIN;
        let nobody = HashMap::new();
        let changes = asked.into_iter().filter_map(|asked| asked.became(&nobody));
        self.doors.index.finish_changes(changes, &[]);
        replies
    }

    async fn report_part(&mut self) {
        let Some(cursor) = self.report.cursor else { return };
        let (sessions, next) = self.doors.index.sessions(cursor, PART);
        let report = GatewayReport {
            gateway: Some(self.doors.identity.current()),
            connections: u32::try_from(self.doors.index.len()).unwrap_or(u32::MAX),
            sessions,
        };
        match self.doors.logic.report(report).await {
            Ok(reply) => {
                tokio::task::block_in_place(|| self.doors.mailboxes.kicks(reply.kicks));
                self.report.cursor = next;
                if next.is_none() && std::mem::take(&mut self.report.again) {
                    self.report.cursor = Some(0);
                    self.not_before = Instant::now() + AGAIN;
                }
            }
            Err(NoAnswer(why)) => {
                tracing::debug!(why, "a report of sessions was not taken");
                self.not_before = Instant::now() + AGAIN;
            }
        }
    }
}

/// What a batch asked, without what only the logic service needs.
enum Asked {
    Login { waiting: Waiting, device_id: String, device_class: String },
    Closed(ConnId, u64),
}

impl Asked {
    fn of(call: &Call) -> Option<Self> {
        match call.request.as_ref()? {
            Request::Login(hello) => Some(Self::Login {
                waiting: Waiting::of(call)?,
                device_id: hello.device_id.clone(),
                device_class: hello.device_class.clone(),
            }),
            Request::Closed(_) => Some(Self::Closed(connection(call), call.user_id)),
            _ => None,
        }
    }

    fn waiting(&self) -> Option<Waiting> {
        match self {
            Self::Login { waiting, .. } => Some(*waiting),
            Self::Closed(..) => None,
        }
    }

    /// What it came to, given who was welcomed.
    fn became(self, users: &HashMap<ConnId, u64>) -> Option<Change> {
        match self {
            Self::Closed(connection, _) => Some(Change::Left(connection)),
            Self::Login { waiting, device_id, device_class } => {
                let user_id = *users.get(&waiting.connection)?;
                let connection = waiting.connection;
                Some(Change::Entered(Entrant { connection, user_id, device_id, device_class }))
            }
        }
    }
}

fn resumes(call: &Call) -> bool {
    matches!(&call.request, Some(Request::Login(hello)) if !hello.resume.is_empty())
}

/// What the logic service looked up for whoever resumes is not all there is, if a newer message passed by before
/// the connection could be found: then the client is to ask.
fn own_up(reply: &mut CallReply, passed: &Passed) {
    if let Some(Reply::Resumed(resumed)) = &mut reply.reply
        && resumed.recovered
        && passed.has_newer(&resumed.conversation_id, resumed.max_seq)
    {
        resumed.recovered = false;
        resumed.items.clear();
    }
}

fn count_logins(outcome: &'static str, count: usize) {
    if count > 0 {
        metrics::counter!("corelane_gateway_logins_total", "outcome" => outcome)
            .increment(count as u64);
    }
}

fn welcomed(reply: &CallReply) -> Option<(ConnId, u64)> {
    let CallReply { shard, slot, generation, .. } = *reply;
    match &reply.reply {
        Some(Reply::Welcome(welcome)) => {
            Some((ConnId { shard, slot, generation }, welcome.user_id))
        }
        _ => None,
    }
}

fn closed((connection, user_id): (ConnId, u64)) -> Call {
    let ConnId { shard, slot, generation } = connection;
    Call { shard, slot, generation, user_id, request: Some(Request::Closed(Closed {})) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::Index;
    use proto::v1::{Message, Resumed};

    /// The logic service looked; then a message came for the group; then its answer came.
    #[test]
    fn what_passed_by_a_login_that_resumes_is_not_called_whole() {
        let index = Index::default();
        index.open().note("c", 9);
        index.begin_changes(true);
        index.open().note("c", 6);
        index.open().note("c", 5);
        index.open().note("d", 3);
        let passed = index.finish_changes([], &[]);
        let after = |conversation_id: &str, max_seq| {
            let items = vec![Message::default()];
            let conversation_id = conversation_id.to_owned();
            let resumed = Resumed { conversation_id, recovered: true, max_seq, items };
            let mut reply =
                CallReply { reply: Some(Reply::Resumed(resumed)), ..CallReply::default() };
            own_up(&mut reply, &passed);
            let Some(Reply::Resumed(resumed)) = reply.reply else { panic!("another reply") };
            (resumed.recovered, resumed.items.len())
        };
        assert_eq!(after("c", 5), (false, 0));
        assert_eq!(after("c", 6), (true, 1));
        assert_eq!(after("d", 2), (false, 0));
        assert_eq!(after("e", 0), (true, 1));
        // Nobody resumes: nothing is kept.
        index.begin_changes(false);
        index.open().note("c", 7);
        assert!(!index.finish_changes([], &[]).has_newer("c", 6));
    }

    #[test]
    fn more_conversations_than_are_noted_count_as_passed_by() {
        let index = Index::default();
        index.begin_changes(true);
        (0..20_000).for_each(|n| index.open().note(&n.to_string(), 1));
        assert!(index.finish_changes([], &[]).has_newer("another", 100));
    }
}
