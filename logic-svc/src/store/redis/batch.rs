//! Commands on their way to Redis: encoded once, sent together.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

/// Stands in a key for the tag that brings it to the node at hand.
const TAG: &[u8; 8] = b"{000000}";
/// Stands in an argument for the id of the server's process.
const RUN: &[u8; 40] = &[b'0'; 40];

/// One command in the bytes of its batch.
#[derive(Clone, Debug)]
pub(super) struct Command {
    /// All of it.
    pub bytes: Range<usize>,
    /// The key that says which node it goes to; empty: any.
    pub key: Range<usize>,
    /// It goes to every node that holds slots; the place of the six digits of the tag in its key.
    every: Option<usize>,
    /// The place of the 40 characters of the run id.
    run: Option<usize>,
}

impl Command {
    /// Whether it goes to every node that holds slots.
    pub(super) fn is_for_every_node(&self) -> bool {
        self.every.is_some()
    }
}

/// Commands to be sent together, in their order.
#[derive(Debug)]
pub(super) struct Batch {
    prefix: Arc<str>,
    bytes: Vec<u8>,
    commands: Vec<Command>,
}

impl Batch {
    /// An empty batch; every key begins with `prefix`.
    pub(super) fn new(prefix: &Arc<str>) -> Self {
        Self { prefix: Arc::clone(prefix), bytes: Vec::new(), commands: Vec::new() }
    }

    /// Begins a command of `name` and `arguments` more words, keys included; all of them have to follow.
    pub(super) fn command(&mut self, name: &str, arguments: usize) -> &mut Self {
        let start = self.bytes.len();
        self.bytes.push(b'*');
        self.line(arguments as u64 + 1);
        self.commands.push(Command { bytes: start..start, key: 0..0, every: None, run: None });
        self.argument(name.as_bytes())
    }

    /// Asks the server for its time, by which it is judged what is too old. Of a cluster one node answers.
    pub(super) fn time(&mut self) {
        self.command("TIME", 0);
    }

    /// A call of a script with one key; `arguments` words follow the key.
    pub(super) fn script(&mut self, sha: &str, arguments: usize) -> &mut Self {
        self.command("EVALSHA", arguments + 3).argument(sha.as_bytes()).argument(b"1")
    }

    /// The next word: a key `{prefix}{name}{id}`.
    pub(super) fn key(&mut self, name: &str, id: u64) -> &mut Self {
        let mut digits = [0; 20];
        let digits = decimal(id, &mut digits);
        self.key_of(name, digits, b"")
    }

    /// The next word: a key `{prefix}{name}{id}`.
    pub(super) fn key_text(&mut self, name: &str, id: &str) -> &mut Self {
        self.key_of(name, id.as_bytes(), b"")
    }

    /// The next word: a key `{prefix}{name}` of every node. The command goes to each of them, and its answer is a
    /// list with run id and answer of each.
    pub(super) fn key_of_every_node(&mut self, name: &str) -> &mut Self {
        self.key_of(name, b"", TAG);
        let end = self.last().key.end;
        self.last().every = Some(end - 7);
        self
    }

    /// The next word: the id of the process of the server that gets the command.
    pub(super) fn run_id(&mut self) -> &mut Self {
        self.argument(RUN);
        let at = self.bytes.len() - 2 - RUN.len();
        self.last().run = Some(at);
        self
    }

    /// The next word.
    pub(super) fn argument(&mut self, word: &[u8]) -> &mut Self {
        self.bytes.push(b'$');
        self.line(word.len() as u64);
        self.bytes.extend_from_slice(word);
        self.end_word();
        self
    }

    /// The next word: a number.
    pub(super) fn number(&mut self, number: u64) -> &mut Self {
        let mut digits = [0; 20];
        let digits = decimal(number, &mut digits);
        self.argument(digits)
    }

    /// How many commands.
    pub(super) fn len(&self) -> usize {
        self.commands.len()
    }

    /// Whether there is none.
    pub(super) fn is_empty(&self) -> bool {
        self.commands.is_empty()
    }

    /// All of it as a single server gets it.
    pub(super) fn whole(&self, run: &[u8; 40]) -> Cow<'_, [u8]> {
        let mut bytes = Cow::Borrowed(&self.bytes[..]);
        for at in self.commands.iter().filter_map(|command| command.run) {
            bytes.to_mut()[at..at + run.len()].copy_from_slice(run);
        }
        bytes
    }

    /// The commands.
    pub(super) fn commands(&self) -> &[Command] {
        &self.commands
    }

    /// The key of a command.
    pub(super) fn key_bytes(&self, command: &Command) -> &[u8] {
        &self.bytes[command.key.clone()]
    }

    /// Appends a command as the node with this tag and run id gets it.
    pub(super) fn write(&self, command: &Command, tag: &[u8; 6], run: &[u8; 40], to: &mut Vec<u8>) {
        let start = to.len();
        to.extend_from_slice(&self.bytes[command.bytes.clone()]);
        let mut fill = |at: Option<usize>, with: &[u8]| {
            let Some(at) = at else { return };
            let at = start + at - command.bytes.start;
            to[at..at + with.len()].copy_from_slice(with);
        };
        fill(command.every, tag);
        fill(command.run, run);
    }

    fn key_of(&mut self, name: &str, id: &[u8], tag: &[u8]) -> &mut Self {
        let prefix = Arc::clone(&self.prefix);
        let len = prefix.len() + name.len() + tag.len() + id.len();
        self.bytes.push(b'$');
        self.line(len as u64);
        let start = self.bytes.len();
        for part in [prefix.as_bytes(), name.as_bytes(), tag, id] {
            self.bytes.extend_from_slice(part);
        }
        if self.last().key.is_empty() {
            self.last().key = start..start + len;
        }
        self.end_word();
        self
    }

    fn line(&mut self, number: u64) {
        let mut digits = [0; 20];
        let digits = decimal(number, &mut digits);
        self.bytes.extend_from_slice(digits);
        self.bytes.extend_from_slice(b"\r\n");
    }

    fn end_word(&mut self) {
        self.bytes.extend_from_slice(b"\r\n");
        let end = self.bytes.len();
        self.last().bytes.end = end;
    }

    /// The command under way; every word belongs to one.
    fn last(&mut self) -> &mut Command {
        if self.commands.is_empty() {
            self.commands.push(Command { bytes: 0..0, key: 0..0, every: None, run: None });
        }
        let at = self.commands.len() - 1;
        &mut self.commands[at]
    }
}

/// The number's digits.
pub(super) fn decimal(mut number: u64, into: &mut [u8; 20]) -> &[u8] {
    let mut at = into.len();
    loop {
        at -= 1;
        into[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            return &into[at..];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_encoded_as_lists_of_words() {
        let mut batch = Batch::new(&Arc::from("p:"));
        batch.command("SET", 2).key("conv_seq:", 7).number(0);
        batch.command("GET", 1).key_text("gateway:", "gw-1");
        let bytes = batch.whole(RUN);
        let text = std::str::from_utf8(&bytes).unwrap();
        assert_eq!(
            text,
            "*3\r\n$3\r\nSET\r\n$12\r\np:conv_seq:7\r\n$1\r\n0\r\n*2\r\n$3\r\nGET\r\n$14\r\np:gateway:gw-1\r\n"
        );
        let keys: Vec<&[u8]> = batch.commands().iter().map(|one| batch.key_bytes(one)).collect();
        assert_eq!(keys, [&b"p:conv_seq:7"[..], b"p:gateway:gw-1"]);
        let mut second = Vec::new();
        batch.write(&batch.commands()[1], b"123456", RUN, &mut second);
        assert!(text.ends_with(std::str::from_utf8(&second).unwrap()));
    }

    #[test]
    fn what_goes_to_every_node_is_filled_in_for_each() {
        let mut batch = Batch::new(&Arc::from("p:"));
        batch.command("PING", 0);
        batch.script("sha", 2).key_of_every_node("m").run_id().argument(b"x");
        let all = batch.whole(&[b'r'; 40]);
        assert!(all.ends_with(format!("$40\r\n{}\r\n$1\r\nx\r\n", "r".repeat(40)).as_bytes()));
        let mut bytes = Vec::new();
        batch.write(&batch.commands()[1], b"000042", &[b'r'; 40], &mut bytes);
        let text = String::from_utf8(bytes).unwrap();
        let run = "r".repeat(40);
        assert_eq!(
            text,
            format!(
                "*6\r\n$7\r\nEVALSHA\r\n$3\r\nsha\r\n$1\r\n1\r\n$11\r\np:m{{000042}}\r\n$40\r\n{run}\r\n$1\r\nx\r\n"
            )
        );
    }

    #[test]
    fn numbers_have_their_digits() {
        for number in [0, 7, 10, 1234567890, u64::MAX] {
            assert_eq!(decimal(number, &mut [0; 20]), number.to_string().as_bytes());
        }
    }
}
