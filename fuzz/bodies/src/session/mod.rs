//! The state machine of one connection, by operations: whatever happens in whatever order, its phases,
//! outputs and limits are those of a shadow model, and a twin that gets the same bytes in other pieces
//! does the same.

mod flood;
mod model;
pub mod ops;
mod view;

use gateway::limits::Limits;
use gateway::session::rules::{Access, Mode, Rules};
use gateway::session::{Context, InPlace, Outputs, Phase, Session, Verdict, Wire, answer};
use proto::error::{ErrorCode, close_code};
use proto::v1::{Ack, CallReply, Conversations, Message, SendReply, Welcome, call_reply::Reply};

use crate::input::Reader;
use model::{ID, Model, USER};
use ops::{Arrival, Op};

/// A life of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Case {
    /// Place in the table of rules.
    pub rules: u8,
    /// What happens.
    pub ops: Vec<Op>,
}

/// Most operations of a case.
const OPS_MAX: usize = 256;
/// Longest life of a case: the clock of a session wraps, and a bucket minds pauses above 2^32 ms.
const LIFE_MAX_MS: u64 = 1 << 31;
/// Where the clock of a case starts when the top bit of its rules is set: it wraps soon.
const LATE_START_MS: u64 = u32::MAX as u64 - 5_000;

impl Case {
    /// Reads a case from any bytes.
    #[must_use]
    pub fn read(data: &[u8]) -> Self {
        let mut reader = Reader::new(data);
        let rules = reader.byte();
        let mut ops = Vec::new();
        while !reader.is_empty() && ops.len() < OPS_MAX {
            ops.push(Op::read(&mut reader));
        }
        Self { rules, ops }
    }

    /// Writes what [`Case::read`] reads.
    #[must_use]
    pub fn write(&self) -> Vec<u8> {
        let mut out = vec![self.rules];
        self.ops.iter().for_each(|op| op.write(&mut out));
        out
    }
}

/// Who may connect, and how much a connection may do.
fn rules_of(which: u8) -> Rules {
    let access = |dev_login, query_token| Access { dev_login, query_token, ..Access::default() };
    let mode = match which % 4 {
        0 => Mode::Serve(access(true, false)),
        1 => Mode::Serve(access(false, true)),
        2 => Mode::Serve(Access {
            allowed_origins: vec!["https://chat.example.org".into()],
            ..Access::default()
        }),
        _ => Mode::Echo,
    };
    let (messages_per_second, message_burst, requests_per_second, request_burst) =
        match which / 4 % 4 {
            0 => (1.0, 5, 20.0, 100),
            1 => (0.3, 1, 7.0, 3),
            2 => (1000.0, 2, 3.0, 1),
            _ => (13.7, 50, 0.01, 2),
        };
    let Limits { idle_frames_per_second, idle_frame_burst, .. } = Limits::default();
    let (idle_frames_per_second, idle_frame_burst) = match which / 16 % 4 {
        0 | 1 => (idle_frames_per_second, idle_frame_burst),
        2 => (20, 5),
        _ => (10, 60),
    };
    let limits = Limits {
        messages_per_second,
        message_burst,
        requests_per_second,
        request_burst,
        idle_frames_per_second,
        idle_frame_burst,
        ..Limits::default()
    };
    Rules::new(mode, limits)
}

/// A session, what came out of it, and what the shard keeps for it.
struct Side {
    session: Session,
    out: Outputs,
    debt_ms: u16,
    /// When debt was last forgiven.
    since_ms: u32,
}

impl Side {
    fn new(rules: &Rules, now_ms: u64) -> Self {
        let since_ms = now_ms as u32;
        let session = Session::new(rules, since_ms);
        Self { session, out: Outputs::default(), debt_ms: 0, since_ms }
    }

    /// Bytes came: a sign of life, which forgives debt for the time since the last one.
    fn arrive(&mut self, rules: &Rules, now_ms: u64, bytes: &[u8]) {
        if self.session.phase() == Phase::Open {
            let passed_ms = (now_ms as u32).wrapping_sub(self.since_ms);
            let passed_ms = u16::try_from(passed_ms).unwrap_or(u16::MAX);
            self.debt_ms = self.debt_ms.saturating_sub(passed_ms);
            self.since_ms = now_ms as u32;
        }
        let mut buffer = bytes.to_vec();
        let start = buffer.as_ptr().addr();
        self.out.receive_buffer = start..start + buffer.len();
        self.with(rules, now_ms, |session, cx| session.on_bytes(cx, &mut buffer));
        self.out.receive_buffer = 0..0;
        // What is left in place is put where it would be sent.
        for InPlace { before, received } in self.out.in_place.drain(..).rev() {
            self.out.bytes.splice(before..before, buffer[received].iter().copied());
        }
    }

    /// Lets the session work as a shard does. What an ended connection gets is its own affair.
    fn with(
        &mut self,
        rules: &Rules,
        now_ms: u64,
        work: impl FnOnce(&mut Session, &mut Context<'_>),
    ) {
        let now_ms = now_ms as u32;
        let before = self.session.phase();
        self.out.debt_ms = u32::from(self.debt_ms);
        let mut cx = Context { id: ID, now_ms, rules, deflate: None, out: &mut self.out };
        work(&mut self.session, &mut cx);
        self.debt_ms = u16::try_from(self.out.debt_ms).unwrap_or(u16::MAX);
        if self.session.phase() != before && self.session.phase() == Phase::Open {
            self.since_ms = now_ms;
        }
    }
}

/// The life of one connection and of its twin.
struct Life {
    rules: Rules,
    start_ms: u64,
    now_ms: u64,
    ours: Side,
    twin: Side,
    model: Model,
    /// Bytes that come in one piece with the next.
    joined: Vec<u8>,
    /// Frames without a purpose that may be in them.
    joined_idle_frames: usize,
    last_messages: Vec<proto::v1::UpstreamFrame>,
    unanswered: Vec<proto::v1::UpstreamFrame>,
}

/// Reads a case and checks it.
pub fn run(data: &[u8]) {
    check(&Case::read(data));
}

/// Checks a case.
///
/// # Panics
/// The session is wrong.
pub fn check(case: &Case) {
    let rules = rules_of(case.rules);
    let start_ms = if case.rules & 0x80 == 0 { 0 } else { LATE_START_MS };
    let (ours, twin) = (Side::new(&rules, start_ms), Side::new(&rules, start_ms));
    let model = Model::new(&rules, start_ms);
    let mut life = Life {
        rules,
        start_ms,
        now_ms: start_ms,
        ours,
        twin,
        model,
        joined: Vec::new(),
        joined_idle_frames: 0,
        last_messages: Vec::new(),
        unanswered: Vec::new(),
    };
    for op in &case.ops {
        if !life.step(op) {
            break;
        }
    }
    life.model.take_announced(&mut life.ours.session);
}

impl Life {
    /// One operation. `false`: the connection was handed over and its session is gone.
    fn step(&mut self, op: &Op) -> bool {
        let before = self.ours.session.phase();
        match op {
            Op::Bytes(arrival) => {
                self.model.spoilt |=
                    arrival.spoil.1 != 0 || matches!(arrival.part, ops::Part::Raw(_));
                self.joined.extend(arrival.bytes());
                self.joined_idle_frames += arrival.idle_frames();
                if arrival.joined {
                    return true;
                }
                self.arrive(arrival);
            }
            Op::Wait { ms } => self.wait(*ms),
            Op::WaitAsAsked => self.wait(self.model.asked_ms),
            Op::TakeAnnounced => {
                self.model.take_announced(&mut self.ours.session);
                let _ = self.twin.session.take_announced();
            }
            _ => {
                let last = std::mem::take(&mut self.last_messages);
                let asked = std::mem::take(&mut self.unanswered);
                for side in [&mut self.ours, &mut self.twin] {
                    side.with(&self.rules, self.now_ms, |session, cx| {
                        happen(session, cx, op, &last, &asked)
                    });
                }
            }
        }
        self.observe(op, before)
    }

    fn wait(&mut self, ms: u32) {
        let lived_ms = self.now_ms - self.start_ms;
        self.now_ms += u64::from(ms).min(LIFE_MAX_MS - lived_ms);
    }

    fn arrive(&mut self, arrival: &Arrival) {
        let bytes = std::mem::take(&mut self.joined);
        let idle_frames = std::mem::take(&mut self.joined_idle_frames) as u64;
        let open = self.ours.session.phase() == Phase::Open;
        self.model.flood.arrive(idle_frames, open, self.now_ms);
        self.ours.arrive(&self.rules, self.now_ms, &bytes);
        let cut = usize::from(arrival.cut) % (bytes.len() + 1);
        for piece in [&bytes[..cut], &bytes[cut..]] {
            if self.twin.out.verdict != Verdict::HandOver {
                self.twin.arrive(&self.rules, self.now_ms, piece);
            }
        }
    }

    fn observe(&mut self, op: &Op, before: Phase) -> bool {
        let (ours, twin) = (&self.ours, &self.twin);
        let after = ours.session.phase();
        assert_eq!(after, twin.session.phase(), "the twin's phase");
        assert_eq!(ours.session.wire(), twin.session.wire(), "the twin's wire");
        assert_eq!(ours.session.user_id(), twin.session.user_id());
        assert_eq!(ours.debt_ms, twin.debt_ms, "the twin's debt");
        let (ours, twin) = (&ours.out, &twin.out);
        assert_eq!(ours.bytes, twin.bytes, "the twin's bytes");
        assert_eq!(ours.messages, twin.messages, "the twin's messages");
        assert_eq!(ours.calls, twin.calls, "the twin's calls");
        assert_eq!(ours.verdict, twin.verdict, "the twin's verdict");
        assert_eq!(ours.cause, twin.cause, "the twin's cause");
        assert!(ours.handed_over.starts_with(&twin.handed_over), "the twin is handed over");
        self.model.observe(op, (before, after), self.now_ms, ours);
        assert_eq!(self.ours.session.user_id(), if self.model.welcomed { USER } else { 0 });
        let handed_over = ours.verdict == Verdict::HandOver;
        let out = std::mem::take(&mut self.ours.out);
        self.twin.out = Outputs::default();
        self.unanswered.extend(out.messages.iter().cloned());
        self.last_messages = out.messages;
        !handed_over
    }
}

/// What the shard does besides handing over bytes.
fn happen(
    session: &mut Session,
    cx: &mut Context<'_>,
    op: &Op,
    last: &[proto::v1::UpstreamFrame],
    asked: &[proto::v1::UpstreamFrame],
) {
    match op {
        Op::Welcome => session.on_welcome(cx, &Welcome { user_id: USER, ..Welcome::default() }),
        Op::LoginFailed { temporary } => {
            let code = if *temporary { ErrorCode::Busy } else { ErrorCode::Unauthenticated };
            session.on_login_failed(cx, &code.failure("refused"));
        }
        Op::Push { size } if session.phase() == Phase::Open => push(session, cx, *size),
        Op::Answer if session.phase() == Phase::Open => answer_all(session, cx, asked),
        Op::Busy if session.phase() == Phase::Open => {
            for send in last.iter().filter_map(|frame| frame.send.as_ref()) {
                session.refuse_send(cx, send, &ErrorCode::Busy.retry_after(100, "busy"));
            }
        }
        Op::Close => session.close(cx, close_code::REPLACED, "replaced"),
        Op::GoAway => session.go_away(cx, 1500),
        _ => {}
    }
}

fn push(session: &mut Session, cx: &mut Context<'_>, size: u16) {
    let message = Message {
        conversation_id: "c".into(),
        seq: 1,
        msg_type: 1,
        content: vec![b'x'; usize::from(size)].into(),
        ..Message::default()
    };
    match session.wire() {
        Wire::Json => answer::push_json(&mut cx.out.bytes, &message),
        wire => {
            let body = prost::Message::encode_to_vec(&message);
            let push_no = session.next_push_no();
            answer::push_binary_head(&mut cx.out.bytes, wire, push_no, body.len());
            cx.out.bytes.extend_from_slice(&body);
        }
    }
}

fn answer_all(session: &Session, cx: &mut Context<'_>, asked: &[proto::v1::UpstreamFrame]) {
    for send in asked.iter().filter_map(|frame| frame.send.as_ref()) {
        let ack = Ack {
            request_id: send.request_id,
            client_msg_id: send.client_msg_id.clone(),
            seq: 9,
            ..Ack::default()
        };
        let reply = SendReply { ack: Some(ack), ..SendReply::default() };
        answer::send_reply(&mut cx.out.bytes, session.wire(), &reply);
    }
    let reply = Reply::Conversations(Conversations { request_id: 3, ..Default::default() });
    let reply = CallReply { request_id: 3, command: 7, reply: Some(reply), ..Default::default() };
    answer::call_reply(&mut cx.out.bytes, session.wire(), &reply);
}
