//! A shadow of the session: what may come out of it at all, whatever went in.

use gateway::ids::ConnId;
use gateway::session::rules::{Mode, Rules};
use gateway::session::{Outputs, Phase, Session, Verdict};
use proto::error::close_code;
use proto::ids::{check_client_msg_id, check_conversation_id};
use proto::limits::{DEVICE_CLASS_MAX_BYTES, DEVICE_ID_MAX_BYTES, TOKEN_MAX_BYTES};
use proto::v1::{Call, UpstreamFrame, call::Request};

use super::flood::Flood;
use super::ops::Op;
use super::view::{Told, View};

/// The connection under test.
pub(super) const ID: ConnId = ConnId { shard: 1, slot: 2, generation: 3 };
/// The user that is let in.
pub(super) const USER: u64 = 77;

/// Passed requests of one kind, against the promise of PROTOCOL.md section 7.
struct Rate {
    per_ms: f64,
    burst: f64,
    passed_ms: Vec<u64>,
    /// When a refused request was told that one will pass.
    promised_ms: Option<u64>,
}

/// What the session must have done so far.
pub(super) struct Model {
    view: View,
    echo: bool,
    content_max_bytes: usize,
    messages: Rate,
    requests: Rate,
    pub(super) flood: Flood,
    logins: u32,
    /// A login was asked and its end not reported.
    announced: bool,
    pub(super) welcomed: bool,
    /// The delay that the last refusal asked for.
    pub(super) asked_ms: u32,
    /// Some bytes were not as our client writes them.
    pub(super) spoilt: bool,
}

impl Rate {
    fn new(per_second: f64, burst: u32) -> Self {
        let (per_ms, burst) = (per_second / 1000.0, f64::from(burst));
        Self { per_ms, burst, passed_ms: Vec::new(), promised_ms: None }
    }

    /// No stretch of time lets more pass than the burst and what flows in meanwhile.
    fn pass(&mut self, now_ms: u64) {
        self.promised_ms = None;
        self.passed_ms.push(now_ms);
        for (before, since_ms) in self.passed_ms.iter().enumerate() {
            let passed = (self.passed_ms.len() - before) as f64;
            let due = self.burst + (now_ms - since_ms) as f64 * self.per_ms;
            // Tokens are single floats: a thousandth of one is rounding.
            assert!(passed <= due + 0.001, "{passed} of {due} since {since_ms} at {now_ms}");
        }
    }

    /// A delay that was waited for was not asked for in vain.
    fn refuse(&mut self, now_ms: u64, after_ms: u32) {
        assert!(after_ms > 0);
        let kept = self.promised_ms.is_none_or(|promised_ms| now_ms < promised_ms);
        assert!(kept, "one was to pass at {:?}, it is {now_ms}", self.promised_ms);
        self.promised_ms = Some(now_ms + u64::from(after_ms));
    }
}

impl Model {
    pub(super) fn new(rules: &Rules, now_ms: u64) -> Self {
        let limits = &rules.limits;
        let echo = rules.mode == Mode::Echo;
        Self {
            view: View::new(echo),
            echo,
            content_max_bytes: limits.content_max_bytes,
            messages: Rate::new(limits.messages_per_second, limits.message_burst),
            requests: Rate::new(limits.requests_per_second, limits.request_burst),
            flood: Flood::new(limits, now_ms),
            logins: 0,
            announced: false,
            welcomed: false,
            asked_ms: 0,
            spoilt: false,
        }
    }

    /// Checks what one operation led to. `out` holds nothing of earlier ones.
    pub(super) fn observe(
        &mut self,
        op: &Op,
        (before, after): (Phase, Phase),
        now_ms: u64,
        out: &Outputs,
    ) {
        assert!(self.is_legal(op, before, after), "{before:?} to {after:?} by {op:?}");
        if before == Phase::Ended {
            assert!(out.bytes.is_empty() && out.messages.is_empty() && out.calls.is_empty());
        }
        self.welcomed |= *op == Op::Welcome && before == Phase::LoggingIn;
        out.calls.iter().for_each(|call| self.on_call(call, now_ms));
        out.messages.iter().for_each(|frame| self.on_message(frame, now_ms));
        let told = self.view.read(&out.bytes, self.spoilt);
        for one in &told {
            if let Told::RateLimited { message, after_ms } = one {
                let rate = if *message { &mut self.messages } else { &mut self.requests };
                rate.refuse(now_ms, *after_ms);
                self.asked_ms = *after_ms;
            }
        }
        self.check_flood(op, (before, after), now_ms, &told);
        self.check_end(before, after, out, &told);
    }

    fn check_flood(
        &mut self,
        op: &Op,
        (before, after): (Phase, Phase),
        now_ms: u64,
        told: &[Told],
    ) {
        if self.echo {
            return;
        }
        if before != after && after == Phase::Open {
            self.flood.open(now_ms);
        }
        // What a client sent is answered when it comes, or with the welcome that it waited for. Other
        // refusals are the logic service's.
        if matches!(op, Op::Bytes(_) | Op::Welcome) {
            let answers = told.iter().filter(|one| **one == Told::Idle).count();
            self.flood.answer(answers as u64, after == Phase::Ended, now_ms);
        }
        if told.contains(&Told::Closed(Some(close_code::FLOODING))) && !self.spoilt {
            self.flood.end();
        }
    }

    fn is_legal(&self, op: &Op, before: Phase, after: Phase) -> bool {
        use Phase::{Anonymous, Echo, Ended, Greeting, LoggingIn, Open};
        if before == after {
            // A login does not stay undecided when it is answered.
            return !(before == LoggingIn && matches!(op, Op::Welcome | Op::LoginFailed { .. }));
        }
        match (op, before, after) {
            (_, Ended, _) => false,
            (Op::Bytes(_), Greeting, Echo) => self.echo,
            (Op::Bytes(_), Greeting, Anonymous | LoggingIn) => !self.echo,
            (Op::Bytes(_), Anonymous, LoggingIn) => true,
            (Op::Bytes(_) | Op::Close | Op::GoAway, _, Ended) => true,
            (Op::Welcome, LoggingIn, Open | Ended) => true,
            (Op::LoginFailed { .. }, LoggingIn, Ended) => true,
            _ => false,
        }
    }

    fn on_call(&mut self, call: &Call, now_ms: u64) {
        assert!(!self.echo);
        assert_eq!((call.shard, call.slot, call.generation), (ID.shard, ID.slot, ID.generation));
        let request = call.request.as_ref().expect("a request");
        if let Request::Login(hello) = request {
            assert!(!self.welcomed && hello.token.len() <= TOKEN_MAX_BYTES);
            assert!(hello.device_id.len() <= DEVICE_ID_MAX_BYTES);
            assert!(hello.device_class.len() <= DEVICE_CLASS_MAX_BYTES);
            assert_eq!(call.user_id, 0);
            self.logins += 1;
            self.announced = true;
            return assert_eq!(self.logins, 1, "one login");
        }
        assert!(self.welcomed, "before login: {request:?}");
        assert_eq!(call.user_id, USER);
        self.requests.pass(now_ms);
    }

    fn on_message(&mut self, frame: &UpstreamFrame, now_ms: u64) {
        assert!(self.welcomed && !self.echo, "before login: {frame:?}");
        assert_eq!((frame.slot, frame.generation), (ID.slot, ID.generation));
        assert_eq!(frame.user_id, USER);
        let send = frame.send.as_ref().expect("a message");
        assert!(check_conversation_id(&send.conversation_id).is_ok());
        assert!(check_client_msg_id(&send.client_msg_id).is_ok());
        assert!(send.content.len() <= self.content_max_bytes && send.msg_type > 0);
        assert!(send.msg_type != 1 || std::str::from_utf8(&send.content).is_ok());
        self.messages.pass(now_ms);
    }

    /// A connection ends with a verdict, and tells its client when the client can be told.
    fn check_end(&self, before: Phase, after: Phase, out: &Outputs, told: &[Told]) {
        let over = |one: &Told| matches!(one, Told::Closed(_) | Told::Rejected);
        let ends = before != Phase::Ended && after == Phase::Ended;
        assert_eq!(out.verdict == Verdict::Stay, !ends, "{:?}", out.verdict);
        assert_eq!(out.verdict == Verdict::HandOver, !out.handed_over.is_empty());
        assert_eq!(told.last().is_some_and(over), told.iter().any(over));
        if !ends {
            return assert!(!told.iter().any(over), "told to be over and is not");
        }
        match out.verdict {
            Verdict::HandOver => {
                assert!(before == Phase::Greeting && !self.echo && out.bytes.is_empty());
            }
            // TLS, or nothing was said yet: there is no form to say anything in.
            _ if before == Phase::Greeting && out.bytes.is_empty() => {}
            _ => assert!(told.last().is_some_and(over), "ended in silence"),
        }
    }

    /// The shard asks whether an end is to be reported: once for each login that was asked.
    pub(super) fn take_announced(&mut self, session: &mut Session) {
        assert_eq!(session.take_announced(), std::mem::take(&mut self.announced));
        assert!(!session.take_announced());
    }
}
