//! The command line.

use std::ffi::OsString;

use super::{Fault, Key, Kind, Table};

/// What the command line says.
pub(super) enum Request<'t> {
    Help,
    Version,
    Document,
    Run { file: Option<OsString>, options: Vec<(&'t Key, String)> },
}

/// Reads `--name value`, `--name=value`, and `--name` alone where the value may be left out.
pub(super) fn read<'t>(
    table: &'t Table,
    arguments: impl IntoIterator<Item = OsString>,
) -> Result<Request<'t>, Fault> {
    let mut arguments = arguments.into_iter();
    let (mut file, mut options) = (None, Vec::new());
    while let Some(argument) = arguments.next() {
        let argument = utf8(argument)?;
        let (name, value) = match argument.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (argument.as_str(), None),
        };
        match name {
            "--help" | "-h" => return Ok(Request::Help),
            "--version" | "-V" => return Ok(Request::Version),
            "--print-config" => return Ok(Request::Document),
            "--config" => {
                let path = value.map(OsString::from).or_else(|| arguments.next());
                file = Some(path.ok_or_else(|| missing(name, "a path"))?);
            }
            _ => {
                let key = known(table, name)?;
                let value = match value {
                    Some(value) => value,
                    None if key.kind == Kind::Bool => "true".to_owned(),
                    None => utf8(arguments.next().ok_or_else(|| missing(name, &key.allowed()))?)?,
                };
                options.push((key, value));
            }
        }
    }
    Ok(Request::Run { file, options })
}

fn known<'t>(table: &'t Table, name: &str) -> Result<&'t Key, Fault> {
    let option = name.strip_prefix("--");
    option
        .and_then(|option| table.find(|key| key.option() == option))
        .ok_or_else(|| Fault(format!("{name} is no option of {0} (see {0} --help)", table.program)))
}

fn missing(option: &str, allowed: &str) -> Fault {
    Fault(format!("{option} stands without a value but must be {allowed}"))
}

fn utf8(argument: OsString) -> Result<String, Fault> {
    argument.into_string().map_err(|argument| {
        Fault(format!("the argument \"{}\" is not UTF-8", argument.to_string_lossy()))
    })
}
