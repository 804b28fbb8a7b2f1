//! Settings of a binary: one table of keys, read from a TOML file, the environment and the command line.
//!
//! A binary writes its keys down once, as [`Key`]s in a [`Table`]; the option, the variable, the place in
//! the file, `--help` and the commented sample file all follow from that one line. An option wins over the
//! environment, the environment over the file, the file over the default. Keys marked `hot` may be changed
//! while the program runs ([`Values::overlay`]).
//!
//! ```
//! use cluster::settings::{Key, Kind, Outcome, Table};
//!
//! const KEYS: &[Key] = &[
//!     Key::new("listen", Kind::Address, "127.0.0.1:8080", "Address and port for clients"),
//!     Key::new("kafka.brokers", Kind::List, "127.0.0.1:9092", "Brokers to begin with"),
//!     Key::new("mysql.url", Kind::Url(&["mysql"]), "mysql://root@127.0.0.1:3306", "Where the database is").secret(),
//! ];
//! let table = Table::new("demo", "shows a table", &[KEYS]).unwrap();
//! let arguments = ["--kafka-brokers", "a:9092,b:9092"].map(Into::into);
//! let Outcome::Run(values) = table.load(arguments, |_variable| None).unwrap() else { panic!() };
//! assert_eq!(values.list("kafka.brokers").unwrap(), ["a:9092", "b:9092"]);
//! ```

mod arguments;
mod document;
mod file;
mod kind;
#[cfg(test)]
mod tests;
mod values;

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::Path;

use arguments::Request;
pub use kind::Kind;
pub use values::{Source, Values};

/// What a value that must not be seen is shown as.
const HIDDEN: &str = "(hidden)";

/// One setting.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// Its name, lower case with `_` between words. What stands before a dot is the section of the file:
    /// `kafka.brokers` is `brokers` under `[kafka]`, `--kafka-brokers` and `CORELANE_KAFKA_BROKERS`.
    pub name: &'static str,
    /// What it may be.
    pub kind: Kind,
    /// What holds when nobody says anything, as text. Empty: not set, and then empty is allowed.
    pub default: &'static str,
    /// What it does, for `--help` and the file; no full stop at its end.
    pub help: &'static str,
    /// May change while the program runs.
    pub hot: bool,
    /// Never shown: neither in logs nor in faults nor in `Debug`.
    pub secret: bool,
}

impl Key {
    /// A setting that is read once and may be shown.
    pub const fn new(
        name: &'static str,
        kind: Kind,
        default: &'static str,
        help: &'static str,
    ) -> Self {
        Self { name, kind, default, help, hot: false, secret: false }
    }

    /// The same, but it may change while the program runs.
    #[must_use]
    pub const fn hot(mut self) -> Self {
        self.hot = true;
        self
    }

    /// The same, but its value is never shown.
    #[must_use]
    pub const fn secret(mut self) -> Self {
        self.secret = true;
        self
    }

    /// Its option without the dashes before it.
    fn option(&self) -> String {
        self.name.replace(['.', '_'], "-")
    }

    /// Its environment variable.
    fn variable(&self) -> String {
        format!("CORELANE_{}", self.name.replace('.', "_").to_uppercase())
    }

    /// `value` as it may be shown.
    fn shown<'a>(&self, value: &'a str) -> &'a str {
        if self.secret && !value.is_empty() { HIDDEN } else { value }
    }

    /// Completes "must be".
    fn allowed(&self) -> String {
        let allowed = self.kind.allowed();
        if self.default.is_empty() && self.kind != Kind::Text {
            format!("{allowed}, or empty")
        } else {
            allowed
        }
    }

    /// Whether the value may stand.
    fn accepts(&self, value: &str) -> bool {
        (value.is_empty() && self.default.is_empty()) || self.kind.accepts(value)
    }
}

/// A setting that cannot be: one sentence that names the key, the value and what is allowed. The binary
/// prints it to stderr and ends with exit code 2.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Fault(pub String);

/// What the command line asks for.
#[derive(Debug)]
pub enum Outcome {
    /// To run with these settings.
    Run(Values),
    /// To print this to stdout and end with exit code 0 (`--help`, `--version`, `--print-config`).
    Print(String),
}

/// All settings of one binary.
#[derive(Clone, Debug)]
pub struct Table {
    program: &'static str,
    about: &'static str,
    keys: Vec<Key>,
}

impl Table {
    /// The table of `program`, which is described by `about`, from groups of keys in the order in which
    /// they are shown.
    ///
    /// # Errors
    /// A fault of the table itself: two keys whose options or variables are the same, a name that is none,
    /// a default that is not allowed.
    pub fn new(
        program: &'static str,
        about: &'static str,
        groups: &[&[Key]],
    ) -> Result<Self, Fault> {
        let keys: Vec<Key> = groups.concat();
        let mut options: BTreeSet<String> =
            ["config", "help", "version", "print-config"].map(str::to_owned).into();
        for key in &keys {
            check(key)?;
            if !options.insert(key.option()) {
                return Err(Fault(format!("the option --{} stands for two keys", key.option())));
            }
        }
        Ok(Self { program, about, keys })
    }

    /// Reads this process's command line and environment, and the file they name.
    ///
    /// # Errors
    /// See [`Table::load`].
    pub fn load_process(&self) -> Result<Outcome, Fault> {
        self.load(std::env::args_os().skip(1), |name| std::env::var_os(name))
    }

    /// Reads settings from `arguments` (without the program's name), the environment as `variable` answers
    /// it, and the file named by `--config` or `CORELANE_CONFIG`.
    ///
    /// # Errors
    /// One sentence for an unknown option or key of the file, a value that is not allowed, a file that
    /// cannot be read.
    pub fn load(
        &self,
        arguments: impl IntoIterator<Item = OsString>,
        variable: impl Fn(&str) -> Option<OsString>,
    ) -> Result<Outcome, Fault> {
        let (file, options) = match arguments::read(self, arguments)? {
            Request::Help => return Ok(Outcome::Print(self.help())),
            Request::Version => return Ok(Outcome::Print(self.version())),
            Request::Document => return Ok(Outcome::Print(self.document(&[])?)),
            Request::Run { file, options } => (file, options),
        };
        let mut values = Values::defaults(self.program, &self.keys);
        let file = file.or_else(|| variable("CORELANE_CONFIG").filter(|path| !path.is_empty()));
        if let Some(path) = file {
            file::read(self, Path::new(&path), &mut values)?;
        }
        self.read_environment(&variable, &mut values)?;
        for (key, value) in options {
            values.set(key, value, Source::Option, &format!("--{}", key.option()))?;
        }
        Ok(Outcome::Run(values))
    }

    fn read_environment(
        &self,
        variable: &impl Fn(&str) -> Option<OsString>,
        values: &mut Values,
    ) -> Result<(), Fault> {
        for key in &self.keys {
            let name = key.variable();
            let Some(value) = variable(&name) else { continue };
            let value = value.into_string().map_err(|_| {
                Fault(format!(
                    "the environment's {name} is not UTF-8 but must be {}",
                    key.allowed()
                ))
            })?;
            values.set(key, value, Source::Environment, &format!("the environment's {name}"))?;
        }
        Ok(())
    }

    /// The keys, in the order in which they are shown.
    #[must_use]
    pub fn keys(&self) -> &[Key] {
        &self.keys
    }

    fn find(&self, matches: impl Fn(&Key) -> bool) -> Option<&Key> {
        self.keys.iter().find(|key| matches(key))
    }
}

/// Whether a line of the table can stand.
fn check(key: &Key) -> Result<(), Fault> {
    let word = |word: &str| {
        word.starts_with(|first: char| first.is_ascii_lowercase())
            && word.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
    };
    let parts: Vec<&str> = key.name.split('.').collect();
    if parts.len() > 2 || !parts.iter().all(|part| word(part)) {
        return Err(Fault(format!(
            "\"{}\" is no name of a setting: words of a-z, 0-9 and _, with at most one dot",
            key.name
        )));
    }
    if !key.accepts(key.default) {
        return Err(Fault(format!(
            "the default of {} is \"{}\" but must be {}",
            key.name,
            key.default,
            key.allowed()
        )));
    }
    Ok(())
}
