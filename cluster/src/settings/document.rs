//! What the table says about itself: `--help`, and the commented sample file.

use std::fmt::Write as _;

use super::kind::entries;
use super::{Fault, Key, Table};

impl Table {
    /// The text of `--help`.
    #[must_use]
    pub fn help(&self) -> String {
        let mut text = format!(
            "{} - {}\n\nUsage: {} [OPTIONS]\n\n      --config FILE\n          TOML file with these settings\n",
            self.program, self.about, self.program
        );
        for key in &self.keys {
            let default = if key.default.is_empty() { "none" } else { key.shown(key.default) };
            let _ = write!(
                text,
                "      --{} {}\n          {}{} [{default}]\n",
                key.option(),
                key.kind.placeholder(),
                key.help,
                if key.hot { " (may change while running)" } else { "" },
            );
        }
        text.push_str(
            "      --print-config\n          Print a configuration file with all defaults and end\n\
             \x20 -h, --help\n  -V, --version\n\n\
             Every option is also an environment variable (CORELANE_ and its name in capitals) and a key of the file;\n\
             an option wins over the environment, the environment over the file.\n",
        );
        text
    }

    /// The text of `--version`.
    #[must_use]
    pub fn version(&self) -> String {
        format!("{} {}\n", self.program, env!("CARGO_PKG_VERSION"))
    }

    /// A commented TOML file with every key: its default, or what `instead` gives for its name. Secrets and
    /// keys that are not set stand commented out.
    ///
    /// # Errors
    /// A name in `instead` that is no key, or a value that is not allowed.
    pub fn document(&self, instead: &[(&str, &str)]) -> Result<String, Fault> {
        for (name, value) in instead {
            let key = self
                .find(|key| key.name == *name)
                .ok_or_else(|| Fault(format!("\"{name}\" is no setting of {}", self.program)))?;
            if !key.accepts(value) {
                return Err(Fault(format!("{name} is \"{value}\" but must be {}", key.allowed())));
            }
        }
        let mut text = format!(
            "# Settings of {0}, {1}.\n# Made by `{0} --print-config`; each line shows what holds without it.\n\
             # An option or environment variable wins over this file.\n",
            self.program, self.about
        );
        // Keys without a section first: TOML has no way back out of a section.
        for section in self.sections() {
            if let Some(section) = section {
                let _ = write!(text, "\n[{section}]\n");
            }
            for key in self.keys.iter().filter(|key| section_of(key).0 == section) {
                let value = instead.iter().rfind(|(name, _)| *name == key.name);
                text.push_str(&entry(key, value.map_or(key.default, |(_, value)| value)));
            }
        }
        Ok(text)
    }

    /// The sections in the order of their first keys, that of keys without one first.
    fn sections(&self) -> Vec<Option<&'static str>> {
        let mut sections = vec![None];
        for key in &self.keys {
            let (section, _) = section_of(key);
            if !sections.contains(&section) {
                sections.push(section);
            }
        }
        sections
    }
}

fn section_of(key: &Key) -> (Option<&'static str>, &'static str) {
    match key.name.split_once('.') {
        Some((section, name)) => (Some(section), name),
        None => (None, key.name),
    }
}

fn entry(key: &Key, value: &str) -> String {
    let hot = if key.hot { " May change while running." } else { "" };
    let secret = if key.secret { " Secret: better in the environment than in a file." } else { "" };
    let off = if key.secret || value.is_empty() { "# " } else { "" };
    format!(
        "\n# {}.{hot}{secret}\n# {}; variable {}\n{off}{} = {}\n",
        key.help,
        capitalised(&key.allowed()),
        key.variable(),
        section_of(key).1,
        toml_value(key, key.shown(value)),
    )
}

fn toml_value(key: &Key, value: &str) -> String {
    if key.kind.is_list() {
        let list = entries(value).filter(|entry| !entry.is_empty());
        return toml::Value::Array(list.map(|entry| entry.into()).collect()).to_string();
    }
    if key.kind.bare_in_file() && !value.is_empty() && !key.secret {
        return value.to_owned();
    }
    toml::Value::String(value.to_owned()).to_string()
}

fn capitalised(text: &str) -> String {
    let mut characters = text.chars();
    characters.next().map_or_else(String::new, |first| {
        first.to_uppercase().collect::<String>() + characters.as_str()
    })
}
