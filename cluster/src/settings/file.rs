//! The TOML file.

use std::path::Path;

use super::{Fault, Source, Table, Values};

/// Takes all keys of the file in; keys of a section count as `section.key`.
pub(super) fn read(table: &Table, path: &Path, values: &mut Values) -> Result<(), Fault> {
    let shown = path.display();
    let text = std::fs::read_to_string(path).map_err(|error| {
        Fault(format!("the configuration file {shown} cannot be read: {error}"))
    })?;
    let parsed: toml::Table = text.parse().map_err(|error: toml::de::Error| {
        let line = error.span().map_or(1, |span| 1 + text[..span.start].matches('\n').count());
        let reason = error.message().replace('\n', "; ");
        Fault(format!("the configuration file {shown} is not TOML: line {line}: {reason}"))
    })?;
    for (name, value) in &parsed {
        match value {
            // A section, unless a key has that very name and got a table for a value.
            toml::Value::Table(section) if table.find(|key| key.name == name).is_none() => {
                for (inner, value) in section {
                    take(table, &format!("{name}.{inner}"), value, path, values)?;
                }
            }
            _ => take(table, name, value, path, values)?,
        }
    }
    Ok(())
}

fn take(
    table: &Table,
    name: &str,
    value: &toml::Value,
    path: &Path,
    values: &mut Values,
) -> Result<(), Fault> {
    let path = path.display();
    let key = table.find(|key| key.name == name).ok_or_else(|| {
        Fault(format!("{path} sets \"{name}\", which is no setting (see {} --help)", table.program))
    })?;
    let text = text_of(value, key.kind.is_list()).ok_or_else(|| {
        Fault(format!(
            "{name} in {path} is of type {} but must be {}",
            value.type_str(),
            key.allowed()
        ))
    })?;
    values.set(key, text, Source::File, &format!("{name} in {path}"))
}

/// The value as it would stand on the command line.
fn text_of(value: &toml::Value, list: bool) -> Option<String> {
    match value {
        toml::Value::String(text) => Some(text.clone()),
        toml::Value::Integer(_) | toml::Value::Float(_) | toml::Value::Boolean(_) => {
            Some(value.to_string())
        }
        toml::Value::Array(entries) if list => {
            let entries: Option<Vec<&str>> = entries.iter().map(toml::Value::as_str).collect();
            // A comma inside an entry would make two of one.
            entries
                .filter(|list| list.iter().all(|entry| !entry.contains(',')))
                .map(|l| l.join(","))
        }
        _ => None,
    }
}
