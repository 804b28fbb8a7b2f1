//! Settings as they hold, with typed access.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::kind::{duration, entries};
use super::{Fault, Key, Kind};

/// Who said what a setting is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// Nobody.
    Default,
    /// The TOML file.
    File,
    /// The environment.
    Environment,
    /// The command line.
    Option,
    /// The cluster's dynamic configuration, while running.
    Dynamic,
}

#[derive(Clone, PartialEq)]
struct Value {
    key: Key,
    text: String,
    source: Source,
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

/// The settings of a process. `Debug` shows them without secrets.
///
/// Every getter fails with one sentence when the table has no such key or the key is of another kind, which
/// is a fault of the program and not of its user.
#[derive(Clone, PartialEq)]
pub struct Values {
    program: &'static str,
    values: BTreeMap<&'static str, Value>,
}

impl Values {
    pub(super) fn defaults(program: &'static str, keys: &[Key]) -> Self {
        let value =
            |key: &Key| Value { key: *key, text: key.default.to_owned(), source: Source::Default };
        Self { program, values: keys.iter().map(|key| (key.name, value(key))).collect() }
    }

    pub(super) fn set(
        &mut self,
        key: &Key,
        text: String,
        source: Source,
        place: &str,
    ) -> Result<(), Fault> {
        if !key.accepts(&text) {
            return Err(Fault(format!(
                "{place} is \"{}\" but must be {}",
                key.shown(&text).escape_debug(),
                key.allowed()
            )));
        }
        self.values.insert(key.name, Value { key: *key, text, source });
        Ok(())
    }

    /// These settings with the cluster's dynamic configuration laid over them: it wins for keys that are
    /// `hot`. Names that are no key of this program are left alone, as others may have them; a key that is
    /// not hot, or a value that is not allowed, changes nothing and is returned as a fault to be logged.
    #[must_use]
    pub fn overlay(&self, dynamic: &BTreeMap<String, String>) -> (Self, Vec<Fault>) {
        let (mut changed, mut faults) = (self.clone(), Vec::new());
        for (name, text) in dynamic {
            let Some(value) = self.values.get(name.as_str()) else { continue };
            let key = value.key;
            let result = if key.hot {
                let place = format!("{name} in the dynamic configuration");
                changed.set(&key, text.clone(), Source::Dynamic, &place)
            } else {
                Err(Fault(format!(
                    "{name} in the dynamic configuration needs a restart: it is read once"
                )))
            };
            faults.extend(result.err());
        }
        (changed, faults)
    }

    /// Names of the keys whose value differs between these settings and `other`.
    #[must_use]
    pub fn differing(&self, other: &Self) -> Vec<&'static str> {
        let differs = |(name, value): (&&'static str, &Value)| {
            (other.values.get(*name).map(|value| &value.text) != Some(&value.text)).then_some(*name)
        };
        self.values.iter().filter_map(differs).collect()
    }

    /// What a setting is, as text; secrets too. Empty when it is not set.
    pub fn text(&self, name: &str) -> Result<&str, Fault> {
        self.value(name).map(|value| value.text.as_str())
    }

    /// As [`Values::text`], but `None` when it is empty.
    pub fn optional(&self, name: &str) -> Result<Option<&str>, Fault> {
        self.text(name).map(|text| (!text.is_empty()).then_some(text))
    }

    /// A path; `None` when it is not set.
    pub fn path(&self, name: &str) -> Result<Option<PathBuf>, Fault> {
        let text = self.of(name, "a path", |kind| matches!(kind, Kind::Path))?;
        Ok((!text.is_empty()).then(|| PathBuf::from(text)))
    }

    /// An address to listen on.
    pub fn address(&self, name: &str) -> Result<SocketAddr, Fault> {
        let text = self.of(name, "an address", |kind| matches!(kind, Kind::Address))?;
        text.parse().map_err(|_| unset(name))
    }

    /// `true` or `false`.
    pub fn flag(&self, name: &str) -> Result<bool, Fault> {
        let text = self.of(name, "true or false", |kind| matches!(kind, Kind::Bool))?;
        text.parse().map_err(|_| unset(name))
    }

    /// A whole number in the type of whoever asks.
    pub fn integer<T: TryFrom<u64>>(&self, name: &str) -> Result<T, Fault> {
        let text = self.of(name, "a whole number", |kind| matches!(kind, Kind::Integer { .. }))?;
        let number: u64 = text.parse().map_err(|_| unset(name))?;
        T::try_from(number).map_err(|_| Fault(format!("{name} is {number}, which is too large")))
    }

    /// A number.
    pub fn number(&self, name: &str) -> Result<f64, Fault> {
        let is = |kind: &Kind| matches!(kind, Kind::Number { .. } | Kind::Integer { .. });
        self.of(name, "a number", is)?.parse().map_err(|_| unset(name))
    }

    /// A time.
    pub fn duration(&self, name: &str) -> Result<Duration, Fault> {
        let text = self.of(name, "a time", |kind| matches!(kind, Kind::Duration { .. }))?;
        duration(text).ok_or_else(|| unset(name))
    }

    /// The entries of a list; none when it is not set.
    pub fn list(&self, name: &str) -> Result<Vec<String>, Fault> {
        let text = self.of(name, "a list", Kind::is_list)?;
        Ok(entries(text).filter(|entry| !entry.is_empty()).map(str::to_owned).collect())
    }

    /// Who said what this setting is.
    pub fn source(&self, name: &str) -> Result<Source, Fault> {
        self.value(name).map(|value| value.source)
    }

    /// Every setting that does not have its default as `name = value`, without secrets: for the log at start.
    #[must_use]
    pub fn changed(&self) -> Vec<String> {
        let changed = self.values.values().filter(|value| value.source != Source::Default);
        changed
            .map(|value| format!("{} = {}", value.key.name, value.key.shown(&value.text)))
            .collect()
    }

    fn value(&self, name: &str) -> Result<&Value, Fault> {
        self.values
            .get(name)
            .ok_or_else(|| Fault(format!("\"{name}\" is no setting of {}", self.program)))
    }

    fn of(&self, name: &str, wanted: &str, is: impl Fn(&Kind) -> bool) -> Result<&str, Fault> {
        let value = self.value(name)?;
        if !is(&value.key.kind) {
            let allowed = value.key.kind.allowed();
            return Err(Fault(format!("{name} is asked for as {wanted} but is {allowed}")));
        }
        Ok(&value.text)
    }
}

fn unset(name: &str) -> Fault {
    Fault(format!("{name} is not set"))
}

impl fmt::Debug for Values {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown =
            self.values.values().map(|value| (value.key.name, value.key.shown(&value.text)));
        f.debug_map().entries(shown).finish()
    }
}
