//! What gateways report: that they are there, and which connections they have.
//!
//! `routes_marker` says whether the routes are whole: it carries the run id of the server's process and, for each
//! gateway, the life that registered all its connections. A Redis that was flushed has no marker; one that came back
//! from an old file, or a replica that became master, has one of another process. Both mean that every gateway is asked
//! for all its connections, and that until then every gateway is asked about every user.

use std::time::Duration;

use proto::v1::Session;
use redis::Value;

use super::batch::Batch;
use super::client::Client;
use super::entry::{Entry, Lives, field_of, is_same, value_of};
use super::sessions::{PIPELINE_MAX, SessionTable};
use super::{scripts, value};
use crate::domain::delivery::{ConnectionId, GatewayNo};
use crate::domain::{ConversationNo, UserId};
use crate::gateways::GatewayLife;
use crate::ports::StoreError;

/// Name of the marker.
const MARKER: &str = "routes_marker";
/// `gateway:{id}` is gone after this time without a report.
const GATEWAY_MS: u64 = 30_000;
/// A gateway that was asked for all its connections tells of them in parts with less than this between them.
const PARTS_MS: u64 = 1000;
/// The marker of a system that stands still is gone after this time.
const MARKER_MS: u64 = 24 * 3600 * 1000;

impl SessionTable {
    /// A gateway is there, with this many connections. Gives whether it has to register all of them (see
    /// [`SessionTable::register_all`]): they are not known, or it is time to say them again.
    ///
    /// # Errors
    /// Redis is away.
    pub fn report(&self, gateway: GatewayNo, connections: u32) -> Result<bool, StoreError> {
        let life = self.life(gateway)?;
        let mut batch = self.client.batch();
        batch
            .command("HSET", 7)
            .key_text("gateway:", &life.id)
            .argument(b"epoch")
            .number(life.epoch)
            .argument(b"load")
            .number(connections.into())
            .argument(b"seen_ms")
            .number(self.clock.now_ms());
        batch.command("PEXPIRE", 2).key_text("gateway:", &life.id).number(GATEWAY_MS);
        batch
            .script(scripts::REPORT.sha(), 7)
            .key_of_every_node(MARKER)
            .run_id()
            .argument(life.id.as_bytes())
            .number(life.epoch)
            .number(connections.into())
            .number(millis(self.settings.refresh))
            .number(MARKER_MS)
            .number(PARTS_MS);
        let answers = self.client.run(&batch)?;
        Ok(value::list(&answers[2])
            .iter()
            .any(|node| matches!(value::list(node), [_, Value::Int(1)])))
    }

    /// Registers connections that are in, and gives those of them that lost their place to another connection and
    /// are to be closed.
    ///
    /// After [`SessionTable::report`] gave true the gateway tells of all its connections, in parts less than a second
    /// apart. Its routes are whole from its first report on that comes at least a second after the last part.
    ///
    /// # Errors
    /// Redis is away, or the gateway is unknown; the part has to be told again.
    pub fn register_all(
        &self,
        gateway: GatewayNo,
        sessions: &[Session],
    ) -> Result<Vec<ConnectionId>, StoreError> {
        let life = self.life(gateway)?;
        let lives = self.lives();
        let mut kicks = Vec::new();
        for part in sessions.chunks(PIPELINE_MAX) {
            let entries: Vec<Claim> =
                part.iter().filter_map(|one| claim(&life, gateway, one)).collect();
            self.register(&entries, &lives, &mut kicks)?;
        }
        let mut batch = self.client.batch();
        batch
            .script(scripts::REPORTED.sha(), 4)
            .key_of_every_node(MARKER)
            .run_id()
            .argument(life.id.as_bytes())
            .number(life.epoch)
            .number(sessions.len() as u64);
        self.client.run(&batch)?;
        Ok(kicks)
    }

    fn register(
        &self,
        claims: &[Claim],
        lives: &Lives,
        kicks: &mut Vec<ConnectionId>,
    ) -> Result<(), StoreError> {
        let mut batch = self.client.batch();
        claims.iter().for_each(|claim| self.add_claim(&mut batch, claim, b""));
        batch.time();
        let answers = self.client.run(&batch)?;
        let now_s = answers.last().map_or(0, value::time_ms) / 1000;
        let mut batch = self.client.batch();
        let mut again = Vec::new();
        for (claim, answer) in claims.iter().zip(&answers) {
            let old = value::bytes(answer);
            if old.is_empty() {
                continue;
            }
            match Entry::parse(old) {
                Some(entry) if !lives.is_dead(&entry, now_s) => kicks.push(claim.connection),
                _ => {
                    self.add_claim(&mut batch, claim, old);
                    again.push(claim.connection);
                }
            }
        }
        // Whoever took the place of a dead entry meanwhile keeps it.
        let answers = self.client.run(&batch)?;
        let lost =
            again.into_iter().zip(&answers).filter(|(_, answer)| !value::bytes(answer).is_empty());
        kicks.extend(lost.map(|(connection, _)| connection));
        Ok(())
    }

    fn add_claim(&self, batch: &mut Batch, claim: &Claim, dead: &[u8]) {
        batch
            .script(scripts::REGISTER.sha(), 5)
            .key("user_session:", claim.user)
            .argument(claim.field.as_bytes())
            .argument(claim.value.as_bytes())
            .number(claim.name as u64)
            .number(self.lifetime_ms())
            .argument(dead);
    }

    /// From now on this conversation has members connected at the gateways named in `group_gateways`, which begins
    /// with all that live. Done when it becomes large; until then all gateways are taken.
    ///
    /// # Errors
    /// Redis is away; then all gateways are taken further on.
    pub fn begin_group(&self, conversation: ConversationNo) -> Result<(), StoreError> {
        let lives = self.lives();
        let mut batch = self.client.batch();
        batch.command("DEL", 1).key("group_gateways:", conversation);
        batch.command("SADD", 2 + lives.all().len()).key("group_gateways:", conversation).run_id();
        for (id, epoch, _) in lives.all() {
            batch.argument(format!("{id}@{epoch}").as_bytes());
        }
        batch.command("PEXPIRE", 2).key("group_gateways:", conversation).number(MARKER_MS);
        self.client.run(&batch).map(drop)
    }

    /// This conversation is no longer large.
    ///
    /// # Errors
    /// Redis is away; what is left does no harm and goes by itself.
    pub fn end_group(&self, conversation: ConversationNo) -> Result<(), StoreError> {
        let mut batch = self.client.batch();
        batch.command("DEL", 1).key("group_gateways:", conversation);
        self.client.run(&batch).map(drop)
    }

    /// Members of these large conversations are connected at `gateway`. Told at their login, before they are
    /// answered, and when they are registered again.
    ///
    /// # Errors
    /// Redis is away, or the gateway is unknown.
    pub fn interested(
        &self,
        gateway: GatewayNo,
        conversations: &[ConversationNo],
    ) -> Result<(), StoreError> {
        let life = self.life(gateway)?;
        let member = format!("{}@{}", life.id, life.epoch);
        for conversations in conversations.chunks(PIPELINE_MAX) {
            let mut batch = self.client.batch();
            for &no in conversations {
                batch
                    .script(scripts::ADD_IF_THERE.sha(), 2)
                    .key("group_gateways:", no)
                    .number(MARKER_MS)
                    .argument(member.as_bytes());
            }
            self.client.run(&batch)?;
        }
        Ok(())
    }

    pub(super) fn life(&self, gateway: GatewayNo) -> Result<GatewayLife, StoreError> {
        let unknown = || StoreError::Internal(format!("no gateway has number {gateway}"));
        self.gateways.life(gateway).ok_or_else(unknown)
    }
}

/// Whether the routes of all gateways that live are whole, asked as part of a batch.
pub(super) struct Wholeness;

impl Wholeness {
    /// Adds the question.
    pub(super) fn ask(batch: &mut Batch) {
        batch.command("HGETALL", 1).key_of_every_node(MARKER);
    }

    /// Reads the answer.
    pub(super) fn read(answer: &Value, lives: &Lives) -> bool {
        let nodes = value::list(answer);
        !nodes.is_empty() && nodes.iter().all(|node| is_whole(node, lives))
    }
}

fn is_whole(node: &Value, lives: &Lives) -> bool {
    let [run, marker] = value::list(node) else { return false };
    let of = |wanted: &str| {
        let mut pairs = value::pairs(marker);
        pairs.find_map(|(field, value)| (field == wanted.as_bytes()).then_some(value))
    };
    let is_done = |id: &str, epoch: u64| {
        let state = of(&format!("g:{id}")).and_then(|state| std::str::from_utf8(state).ok());
        let mut parts = state.unwrap_or_default().split('|');
        let of = parts.next().and_then(|of| of.parse().ok());
        of.is_some_and(|of| is_same(of, epoch)) && parts.nth(1) == Some("done")
    };
    of("run") == Some(value::bytes(run))
        && lives.all().iter().all(|(id, epoch, _)| is_done(id, *epoch))
}

/// A connection that says it is in.
struct Claim {
    user: UserId,
    connection: ConnectionId,
    field: String,
    value: String,
    /// How much of the value names the connection.
    name: usize,
}

fn claim(life: &GatewayLife, gateway: GatewayNo, session: &Session) -> Option<Claim> {
    let proto::v1::Connection { shard, slot, generation } = session.connection?;
    let connection = ConnectionId { gateway, shard, slot, generation };
    let (value, name) = value_of(life, connection, &session.device_class);
    let field = field_of(&session.device_id, &value[..name]);
    Some(Claim { user: session.user_id, connection, field, value, name })
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// The client of a table, for those who share it.
impl AsRef<Client> for SessionTable {
    fn as_ref(&self) -> &Client {
        &self.client
    }
}
