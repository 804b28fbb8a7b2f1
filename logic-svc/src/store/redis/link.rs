//! Connections to the nodes of one Redis: one server, the master that sentinels name, or the masters of a cluster.
//!
//! Cluster commands are routed here and not by the client library: a batch with scripts over many slots has to stay a
//! few writes and reads under one deadline, in the order of its commands for each key.

use std::time::{Duration, Instant};

use redis::{Client, Connection, ConnectionAddr, ConnectionInfo, IntoConnectionInfo, Value};

use super::batch::Batch;
use super::options::{Options, Servers};
use super::scripts;
use super::slots::{SlotMap, slot_of, tag_at};
use super::value;

/// How often commands follow slots that moved.
const ROUNDS: u32 = 4;
/// A server that answers, if slowly, is given so much more time than a silent one: on a busy machine it is no fault.
const SLOW: u32 = 5;
/// Answers read between two looks at the clock.
const READS: usize = 64;

/// Why a batch has no answers.
#[derive(Debug)]
pub(super) enum Failure {
    /// The connection is of no use any more.
    Down(String),
    /// A command was refused; the connection is in order.
    Refused(String),
}

type Result<T> = std::result::Result<T, Failure>;

/// Connections to every node that takes writes.
pub(super) struct Link {
    nodes: Vec<Node>,
    /// Of a cluster.
    slots: Option<SlotMap>,
    /// Wait set at the sockets.
    limit: Duration,
    connect_timeout: Duration,
}

struct Node {
    info: ConnectionInfo,
    connection: Connection,
    /// Names the life of the server's process.
    run: [u8; 40],
    /// Brings a key here.
    tag: [u8; 6],
}

impl Link {
    /// Connects.
    pub(super) fn open(options: &Options) -> Result<Self> {
        let timeout = options.connect_timeout;
        let of =
            |nodes, slots| Self { nodes, slots, limit: Duration::ZERO, connect_timeout: timeout };
        match &options.servers {
            Servers::Single(info) => Ok(of(vec![Node::connect(info, timeout, false)?], None)),
            Servers::Sentinel { sentinels, name, node } => {
                let info = master(sentinels, name, timeout)?.set_redis_settings(node.clone());
                Ok(of(vec![Node::connect(&info, timeout, true)?], None))
            }
            Servers::Cluster(seeds) => {
                let mut failed = Failure::Down("no node is named".to_owned());
                for seed in seeds {
                    let asked = Node::connect(seed, timeout, false).and_then(|first| {
                        let mut link = of(vec![first], Some(SlotMap::default()));
                        link.learn_slots().map(|()| link)
                    });
                    match asked {
                        Ok(link) => return Ok(link),
                        Err(error) => failed = error,
                    }
                }
                Err(failed)
            }
        }
    }

    /// Sends all commands and gives their answers, in their order. A server may be silent for `limit`, and may take
    /// [`SLOW`] times as long for all answers.
    pub(super) fn exchange(&mut self, batch: &Batch, limit: Duration) -> Result<Vec<Value>> {
        let deadline = Instant::now() + limit * SLOW;
        if self.limit != limit {
            self.nodes.iter().try_for_each(|node| node.wait_at_most(limit))?;
            self.limit = limit;
        }
        let mut answers = match &self.slots {
            None => self.nodes[0].exchange(batch, deadline)?,
            Some(_) => self.spread(batch, deadline)?,
        };
        check(&mut answers)?;
        Ok(answers)
    }

    fn spread(&mut self, batch: &Batch, deadline: Instant) -> Result<Vec<Value>> {
        let mut answers = vec![Value::Nil; batch.len()];
        let mut open: Vec<usize> = (0..batch.len()).collect();
        for _ in 0..ROUNDS {
            self.round(batch, &open, &mut answers, deadline)?;
            let mut moved = Vec::new();
            for &at in &open {
                match redirect(&answers[at]) {
                    Some((true, address)) => {
                        answers[at] = self.ask(batch, at, &address, deadline)?;
                    }
                    Some((false, _)) => moved.push(at),
                    None => {}
                }
            }
            if moved.is_empty() {
                return Ok(answers);
            }
            self.learn_slots()?;
            open = moved;
        }
        Err(Failure::Down("slots keep moving".to_owned()))
    }

    /// Sends the commands at `open` to their nodes and takes in the answers.
    fn round(
        &mut self,
        batch: &Batch,
        open: &[usize],
        answers: &mut [Value],
        deadline: Instant,
    ) -> Result<()> {
        let mut bytes: Vec<Vec<u8>> = vec![Vec::new(); self.nodes.len()];
        let mut sent: Vec<Vec<usize>> = vec![Vec::new(); self.nodes.len()];
        for &at in open {
            let command = &batch.commands()[at];
            for no in self.nodes_of(batch, at)? {
                let Node { tag, run, .. } = &self.nodes[no];
                batch.write(command, tag, run, &mut bytes[no]);
                sent[no].push(at);
            }
        }
        for (node, bytes) in self.nodes.iter_mut().zip(&bytes) {
            if !bytes.is_empty() {
                node.send(bytes)?;
            }
        }
        for (node, sent) in self.nodes.iter_mut().zip(&sent) {
            let got = node.receive(sent.len(), deadline)?;
            for (&at, answer) in sent.iter().zip(got) {
                if !batch.commands()[at].is_for_every_node() {
                    answers[at] = answer;
                    continue;
                }
                let run = Value::BulkString(node.run.to_vec());
                match &mut answers[at] {
                    Value::Array(all) => all.push(Value::Array(vec![run, answer])),
                    first => *first = Value::Array(vec![Value::Array(vec![run, answer])]),
                }
            }
        }
        Ok(())
    }

    fn nodes_of(&self, batch: &Batch, at: usize) -> Result<std::ops::Range<usize>> {
        let command = &batch.commands()[at];
        let Some(slots) = &self.slots else { return Ok(0..1) };
        if command.is_for_every_node() {
            return Ok(0..self.nodes.len());
        }
        let key = batch.key_bytes(command);
        let no = if key.is_empty() { Some(0) } else { slots.node(slot_of(key)) };
        let no = no.ok_or_else(|| Failure::Down("no node holds a slot".to_owned()))?;
        Ok(no..no + 1)
    }

    /// Asks the node that a slot is moving to.
    fn ask(&mut self, batch: &Batch, at: usize, address: &str, deadline: Instant) -> Result<Value> {
        let info = address_info(address, &self.nodes[0].info)?;
        let mut node = Node::connect(&info, self.connect_timeout, false)?;
        node.wait_at_most(self.limit)?;
        let mut bytes = b"*1\r\n$6\r\nASKING\r\n".to_vec();
        batch.write(&batch.commands()[at], &node.tag, &node.run, &mut bytes);
        node.send(&bytes)?;
        let mut answers = node.receive(2, deadline)?;
        answers.pop().ok_or_else(|| Failure::Down("no answer".to_owned()))
    }

    /// Learns which node holds which slots, and connects to those not known yet.
    fn learn_slots(&mut self) -> Result<()> {
        let mut failed = Failure::Down("no node tells its slots".to_owned());
        let asked = self.nodes.iter_mut().find_map(|node| match node.cluster_slots() {
            Ok(ranges) => Some((ranges, node.info.clone())),
            Err(error) => {
                failed = error;
                None
            }
        });
        let Some((ranges, like)) = asked else { return Err(failed) };
        let mut addresses: Vec<String> = ranges.iter().map(|(.., node)| node.clone()).collect();
        addresses.sort_unstable();
        addresses.dedup();
        let mut known = std::mem::take(&mut self.nodes);
        for address in &addresses {
            let at = known.iter().position(|node| node.info.addr().to_string() == *address);
            let node = match at {
                Some(at) => known.swap_remove(at),
                None => {
                    let info = address_info(address, &like)?;
                    Node::connect(&info, self.connect_timeout, false)?
                }
            };
            self.nodes.push(node);
        }
        let place = |(first, last, node): (u16, u16, String)| {
            addresses.iter().position(|address| *address == node).map(|no| (first, last, no))
        };
        let slots = SlotMap::new(ranges.into_iter().filter_map(place).collect());
        for (no, node) in self.nodes.iter_mut().enumerate() {
            node.tag = tag_at(&slots, no).unwrap_or(*b"000000");
        }
        self.slots = Some(slots);
        // Fresh connections have their own waits yet.
        self.nodes.iter().try_for_each(|node| node.wait_at_most(self.limit.max(WAIT_LEAST)))
    }
}

/// A socket cannot be told to wait for no time.
const WAIT_LEAST: Duration = Duration::from_millis(1);

impl Node {
    fn connect(info: &ConnectionInfo, timeout: Duration, as_master: bool) -> Result<Self> {
        let open = || Client::open(info.clone())?.get_connection_with_timeout(timeout);
        let connection = open().map_err(down)?;
        let mut node = Self { info: info.clone(), connection, run: [b'0'; 40], tag: *b"000000" };
        node.wait_at_most(timeout)?;
        let mut batch = Batch::new(&"".into());
        batch.command("INFO", 1).argument(b"server");
        batch.command("ROLE", 0);
        for script in scripts::all() {
            batch.command("SCRIPT", 2).argument(b"LOAD").argument(script.code().as_bytes());
        }
        let run = node.run;
        node.send(&batch.whole(&run))?;
        let mut answers = node.receive(batch.len(), Instant::now() + timeout)?;
        check(&mut answers)?;
        let role = value::list(&answers[1]).first().map(value::bytes);
        if as_master && role != Some(b"master") {
            return Err(Failure::Down(format!("{} is no master", info.addr())));
        }
        node.run = run_id(value::bytes(&answers[0]))
            .ok_or_else(|| Failure::Down("the server does not tell its run id".to_owned()))?;
        Ok(node)
    }

    fn wait_at_most(&self, limit: Duration) -> Result<()> {
        let limit = Some(limit.max(WAIT_LEAST));
        self.connection.set_read_timeout(limit).map_err(down)?;
        self.connection.set_write_timeout(limit).map_err(down)
    }

    /// All of a batch, as the only server there is.
    fn exchange(&mut self, batch: &Batch, deadline: Instant) -> Result<Vec<Value>> {
        let run = self.run;
        self.send(&batch.whole(&run))?;
        let mut answers = self.receive(batch.len(), deadline)?;
        for (command, answer) in batch.commands().iter().zip(&mut answers) {
            if command.is_for_every_node() {
                let run = Value::BulkString(self.run.to_vec());
                let own = std::mem::replace(answer, Value::Nil);
                *answer = Value::Array(vec![Value::Array(vec![run, own])]);
            }
        }
        Ok(answers)
    }

    fn send(&mut self, bytes: &[u8]) -> Result<()> {
        self.connection.send_packed_command(bytes).map_err(down)
    }

    fn receive(&mut self, count: usize, deadline: Instant) -> Result<Vec<Value>> {
        let mut answers = Vec::with_capacity(count);
        for no in 1..=count {
            answers.push(self.connection.recv_response().map_err(down)?);
            if no % READS == 0 && no < count && Instant::now() > deadline {
                return Err(Failure::Down("the answers take too long".to_owned()));
            }
        }
        Ok(answers)
    }

    /// Ranges of slots with the address of the node that takes writes.
    fn cluster_slots(&mut self) -> Result<Vec<(u16, u16, String)>> {
        self.send(b"*2\r\n$7\r\nCLUSTER\r\n$5\r\nSLOTS\r\n")?;
        let mut answers = self.receive(1, Instant::now() + Duration::from_secs(1))?;
        check(&mut answers)?;
        let ConnectionAddr::Tcp(own_host, _) = self.info.addr() else {
            return Err(Failure::Down("a cluster has to be reached over TCP".to_owned()));
        };
        let range = |one: &Value| {
            let [first, last, node, ..] = value::list(one) else { return None };
            let [host, port, ..] = value::list(node) else { return None };
            // A node that does not know its own name is where it was reached.
            let host = std::str::from_utf8(value::bytes(host)).ok()?;
            let host = if host.is_empty() { own_host } else { host };
            let slot = |value| u16::try_from(value::int(value)).ok();
            Some((slot(first)?, slot(last)?, format!("{host}:{}", value::int(port))))
        };
        let ranges: Option<Vec<_>> = value::list(&answers[0]).iter().map(range).collect();
        let ranges = ranges.filter(|ranges| !ranges.is_empty());
        ranges.ok_or_else(|| Failure::Down("the cluster holds no slots".to_owned()))
    }
}

/// Where the master of this name is, as the first sentinel that answers says.
fn master(sentinels: &[ConnectionInfo], name: &str, timeout: Duration) -> Result<ConnectionInfo> {
    let ask = |info: &ConnectionInfo| -> redis::RedisResult<Option<(String, u16)>> {
        let mut connection = Client::open(info.clone())?.get_connection_with_timeout(timeout)?;
        connection.set_read_timeout(Some(timeout))?;
        connection.set_write_timeout(Some(timeout))?;
        redis::cmd("SENTINEL").arg("get-master-addr-by-name").arg(name).query(&mut connection)
    };
    let mut failed = format!("no sentinel knows {name:?}");
    for info in sentinels {
        match ask(info) {
            Ok(Some((host, port))) => {
                return Ok(info.clone().set_addr(ConnectionAddr::Tcp(host, port)));
            }
            Ok(None) => {}
            Err(error) => failed = format!("sentinel {}: {error}", info.addr()),
        }
    }
    Err(Failure::Down(failed))
}

fn address_info(address: &str, like: &ConnectionInfo) -> Result<ConnectionInfo> {
    let parsed = address
        .rsplit_once(':')
        .and_then(|(host, port)| (host.to_owned(), port.parse().ok()?).into_connection_info().ok());
    let info = parsed.ok_or_else(|| Failure::Down(format!("{address:?} is no address")))?;
    Ok(like.clone().set_addr(info.addr().clone()))
}

/// Where an answer sends the command: to be asked there once (true), or for good.
fn redirect(answer: &Value) -> Option<(bool, String)> {
    let Value::ServerError(error) = answer else { return None };
    let once = match error.code() {
        "ASK" => true,
        "MOVED" => false,
        _ => return None,
    };
    let address = error.details()?.split(' ').next_back()?;
    Some((once, address.to_owned()))
}

/// An error for the first answer that is one. Answers of every node have theirs one level deeper.
fn check(answers: &mut [Value]) -> Result<()> {
    let deep = answers.iter().flat_map(value::list).flat_map(value::list);
    let errors = answers.iter().chain(deep).filter_map(|answer| match answer {
        Value::ServerError(error) => Some(error),
        _ => None,
    });
    let Some(error) = errors.into_iter().next() else { return Ok(()) };
    let text = format!("{} {}", error.code(), error.details().unwrap_or_default());
    match error.code() {
        // Of no use before the next connection, which loads the scripts and finds the masters anew.
        "NOSCRIPT" | "READONLY" | "LOADING" | "MASTERDOWN" | "CLUSTERDOWN" | "TRYAGAIN"
        | "MOVED" | "ASK" | "NOAUTH" => Err(Failure::Down(text)),
        _ => Err(Failure::Refused(text)),
    }
}

fn run_id(info: &[u8]) -> Option<[u8; 40]> {
    let text = std::str::from_utf8(info).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("run_id:"))?;
    line.trim().as_bytes().try_into().ok()
}

fn down(error: redis::RedisError) -> Failure {
    Failure::Down(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_run_id_is_read_out_of_the_answer() {
        let run = "0123456789abcdef0123456789abcdef01234567";
        let info = format!("# Server\r\nredis_version:7.0.15\r\nrun_id:{run}\r\ntcp_port:6379\r\n");
        assert_eq!(run_id(info.as_bytes()).as_ref().map(|run| &run[..]), Some(run.as_bytes()));
        assert_eq!(run_id(b"run_id:short\r\n"), None);
        assert_eq!(run_id(b"\xff"), None);
    }
}
