//! What a value may be, and how it is read.

use std::net::SocketAddr;
use std::str::FromStr;
use std::time::Duration;

/// What a setting may be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    /// Any text.
    Text,
    /// A file or folder.
    Path,
    /// An IP address and port to listen on; port 0 picks one.
    Address,
    /// A host (name or address) and port to connect to.
    Endpoint,
    /// An URL with one of these schemes.
    Url(&'static [&'static str]),
    /// `true` or `false`; an option without a value is `true`.
    Bool,
    /// A whole number within these bounds.
    Integer {
        /// Smallest allowed.
        min: u64,
        /// Largest allowed.
        max: u64,
    },
    /// A number, with decimals if need be, within these bounds.
    Number {
        /// Smallest allowed.
        min: f64,
        /// Largest allowed.
        max: f64,
    },
    /// A time with its unit, such as `250ms`, `5s`, `2m`, `1h`, within these bounds in milliseconds.
    Duration {
        /// Shortest allowed, in milliseconds.
        min_ms: u64,
        /// Longest allowed, in milliseconds.
        max_ms: u64,
    },
    /// One of these words.
    Choice(&'static [&'static str]),
    /// Texts separated by commas; in the file also an array. None of them empty.
    List,
    /// Words of this choice separated by commas; in the file also an array.
    Choices(&'static [&'static str]),
}

impl Kind {
    /// Completes "must be".
    pub(super) fn allowed(&self) -> String {
        match self {
            Self::Text => "text".to_owned(),
            Self::Path => "a path".to_owned(),
            Self::Address => "an IP address and a port such as 127.0.0.1:8080".to_owned(),
            Self::Endpoint => "a host and a port such as example.org:9092".to_owned(),
            Self::Url(schemes) => {
                let schemes: Vec<String> =
                    schemes.iter().map(|scheme| format!("{scheme}://HOST...")).collect();
                format!("an URL of the form {}", words(&schemes, "or"))
            }
            Self::Bool => "true or false".to_owned(),
            Self::Integer { min, max } => format!("a whole number from {min} to {max}"),
            Self::Number { min, max } => format!("a number from {min} to {max}"),
            Self::Duration { min_ms, max_ms } => format!(
                "a time with its unit (ms, s, m, h, d) from {} to {}",
                written(*min_ms),
                written(*max_ms)
            ),
            Self::Choice(choice) => words(choice, "or"),
            Self::List => "a list separated by commas without empty entries".to_owned(),
            Self::Choices(choice) => {
                format!("one or more of {}, separated by commas", words(choice, "and"))
            }
        }
    }

    /// Whether the text is such a value.
    pub(super) fn accepts(&self, text: &str) -> bool {
        match self {
            Self::Text => true,
            Self::Path => !text.is_empty() && !text.contains('\0'),
            Self::Address => text.parse::<SocketAddr>().is_ok(),
            Self::Endpoint => endpoint(text),
            Self::Url(schemes) => url(text, schemes),
            Self::Bool => text.parse::<bool>().is_ok(),
            Self::Integer { min, max } => within(text, *min, *max),
            Self::Number { min, max } => within(text, *min, *max),
            Self::Duration { min_ms, max_ms } => duration(text).is_some_and(|time| {
                (u128::from(*min_ms)..=u128::from(*max_ms)).contains(&time.as_millis())
            }),
            Self::Choice(choice) => choice.contains(&text),
            Self::List => entries(text).all(|entry| !entry.is_empty()),
            Self::Choices(choice) => entries(text).all(|entry| choice.contains(&entry)),
        }
    }

    /// Whether the value stands in a TOML file without quotes.
    pub(super) fn bare_in_file(&self) -> bool {
        matches!(self, Self::Bool | Self::Integer { .. } | Self::Number { .. })
    }

    /// Whether the value is several.
    pub(super) fn is_list(&self) -> bool {
        matches!(self, Self::List | Self::Choices(_))
    }

    /// What stands for the value in the help.
    pub(super) fn placeholder(&self) -> &'static str {
        match self {
            Self::Text => "TEXT",
            Self::Path => "PATH",
            Self::Address => "IP:PORT",
            Self::Endpoint => "HOST:PORT",
            Self::Url(_) => "URL",
            Self::Bool => "true|false",
            Self::Integer { .. } | Self::Number { .. } => "N",
            Self::Duration { .. } => "TIME",
            Self::Choice(_) => "WORD",
            Self::List | Self::Choices(_) => "A,B,...",
        }
    }
}

fn within<T: FromStr + PartialOrd>(text: &str, min: T, max: T) -> bool {
    text.parse().is_ok_and(|value: T| (min..=max).contains(&value))
}

fn endpoint(text: &str) -> bool {
    let Some((host, port)) = text.rsplit_once(':') else { return false };
    let named = !host.is_empty()
        && host.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'));
    let bracketed = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
        .is_some_and(|host| host.parse::<std::net::Ipv6Addr>().is_ok());
    (named || bracketed) && port.parse::<u16>().is_ok_and(|port| port != 0)
}

fn url(text: &str, schemes: &[&str]) -> bool {
    let Some((scheme, rest)) = text.split_once("://") else { return false };
    schemes.contains(&scheme)
        && rest.starts_with(|first: char| first != '/')
        && !text.contains(|c: char| c.is_whitespace() || c.is_control())
}

/// The entries of a list: split at commas, blanks around them left out.
pub(super) fn entries(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim)
}

/// A time with its unit, no fractions.
pub(super) fn duration(text: &str) -> Option<Duration> {
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().ok()?;
    let milliseconds = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    number.checked_mul(milliseconds).map(Duration::from_millis)
}

/// Milliseconds in the largest unit that holds them exactly.
fn written(ms: u64) -> String {
    for (unit, size) in [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000)] {
        if ms >= size && ms.is_multiple_of(size) {
            return format!("{}{unit}", ms / size);
        }
    }
    format!("{ms}ms")
}

/// `a, b or c`.
fn words(list: &[impl AsRef<str>], last: &str) -> String {
    match list {
        [] => String::new(),
        [only] => only.as_ref().to_owned(),
        [front @ .., end] => {
            let front: Vec<&str> = front.iter().map(AsRef::as_ref).collect();
            format!("{} {last} {}", front.join(", "), end.as_ref())
        }
    }
}
