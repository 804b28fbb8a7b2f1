//! A client that waits for its turns: lines on standard input say how many messages to measure, lines on standard output
//! what they showed. Between two turns it is blocked in a read and costs nothing.

use std::io::{BufRead, Write};

use anyhow::{Context, bail};
use serde::Serialize;

/// Takes a turn for each line, until the input ends. A line is the number of messages to measure, at least 1.
///
/// # Errors
/// When a line is something else, a turn fails, or nobody reads the answers.
pub fn take<R: Serialize>(
    input: impl BufRead,
    mut output: impl Write,
    mut turn: impl FnMut(u64) -> anyhow::Result<R>,
) -> anyhow::Result<()> {
    for line in input.lines() {
        let line = line.context("cannot read standard input")?;
        say(&mut output, &turn(messages(&line)?)?)?;
    }
    Ok(())
}

/// Writes a value as one line of JSON, at once.
///
/// # Errors
/// When nobody reads it.
pub fn say(output: &mut impl Write, value: &impl Serialize) -> anyhow::Result<()> {
    let line = serde_json::to_string(value)? + "\n";
    output.write_all(line.as_bytes()).context("cannot write to standard output")?;
    output.flush().context("cannot write to standard output")
}

fn messages(line: &str) -> anyhow::Result<u64> {
    match line.trim().parse() {
        Ok(messages @ 1..) => Ok(messages),
        _ => bail!("{line:?} on standard input is no number of messages"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(input: &str) -> (anyhow::Result<()>, String) {
        let mut output = Vec::new();
        let outcome = take(input.as_bytes(), &mut output, |messages| Ok([messages, messages + 1]));
        (outcome, String::from_utf8(output).unwrap())
    }

    #[test]
    fn every_line_is_a_turn_and_the_end_of_input_is_the_end() {
        let (outcome, output) = taken("3\n 70 \r\n5");
        outcome.unwrap();
        assert_eq!(output, "[3,4]\n[70,71]\n[5,6]\n");
        let (outcome, output) = taken("");
        outcome.unwrap();
        assert_eq!(output, "");
    }

    #[test]
    fn a_line_that_is_no_number_ends_it() {
        for line in ["", "0", "-1", "1.5", "many", "1 2", "99999999999999999999999"] {
            let (outcome, output) = taken(&format!("7\n{line}\n8\n"));
            let error = outcome.unwrap_err().to_string();
            assert!(error.contains(&format!("{line:?} on standard input")), "{error}");
            assert_eq!(output, "[7,8]\n", "{line:?}");
        }
    }

    #[test]
    fn a_turn_that_fails_ends_it() {
        let failed = take("1\n2\n".as_bytes(), Vec::new(), |_| -> anyhow::Result<()> {
            anyhow::bail!("the server is gone")
        });
        assert!(failed.unwrap_err().to_string().contains("is gone"));
    }
}
