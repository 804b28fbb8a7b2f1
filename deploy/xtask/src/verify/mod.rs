//! `cargo verify`: every check and test, to the end, with one verdict.

mod cluster;
mod conformance;
mod context;
mod e2e;
mod fuzz;
mod instructions;
mod setup;
mod steps;
mod tally;

use std::io::{Write, stdout};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::bail;

use context::{Context, Verdict};
use steps::{STEPS, Step};
use tally::Tally;

use crate::interrupt::Interrupt;
use crate::repo::Repo;

/// Which steps to run, and how long they may take together.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Run only these steps (repeatable, or separated by commas).
    #[arg(long, value_delimiter = ',', value_name = "STEP")]
    only: Vec<String>,
    /// Leave these steps out (repeatable, or separated by commas).
    #[arg(long, value_delimiter = ',', value_name = "STEP")]
    skip: Vec<String>,
    /// List the steps and end.
    #[arg(long)]
    list: bool,
    /// Time for everything; what has not run by then counts as failed.
    #[arg(long, default_value_t = 120, value_name = "MINUTES")]
    limit_minutes: u64,
}

/// What a step came to.
struct Row {
    name: &'static str,
    result: RowResult,
    took: Duration,
}

enum RowResult {
    Counted { passed: u32, failed: u32, failures: Vec<String> },
    Skipped(String),
}

/// Runs the steps asked for.
///
/// # Errors
/// When a step of that name does not exist or the command cannot begin at all.
pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    if args.list {
        return list();
    }
    let chosen = choose(args)?;
    let limit = Duration::from_secs(args.limit_minutes * 60);
    let mut context = Context::new(Repo::find()?, Interrupt::on_signals()?, limit);
    let rows: Vec<Row> = chosen.iter().map(|step| run_step(&mut context, step)).collect();
    let (text, failed) = summary(&rows);
    stdout().write_all(text.as_bytes())?;
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn list() -> anyhow::Result<ExitCode> {
    let mut out = stdout().lock();
    for step in STEPS {
        writeln!(out, "{:<12} {}", step.name, step.title)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn choose(args: &Args) -> anyhow::Result<Vec<&'static Step>> {
    let unknown = |name: &&String| STEPS.iter().all(|step| step.name != name.as_str());
    if let Some(name) = args.only.iter().chain(&args.skip).find(unknown) {
        let names: Vec<_> = STEPS.iter().map(|step| step.name).collect();
        bail!("there is no step {name:?}; the steps are {}", names.join(", "));
    }
    let named = |names: &[String], step: &Step| names.iter().any(|name| name == step.name);
    let wanted = |step: &&Step| {
        (args.only.is_empty() || named(&args.only, step)) && !named(&args.skip, step)
    };
    Ok(STEPS.iter().filter(wanted).collect())
}

fn run_step(context: &mut Context, step: &'static Step) -> Row {
    let started = Instant::now();
    context.say(&format!("\n== {}: {}", step.name, step.title));
    context.begin(Duration::from_secs(step.limit_minutes * 60));
    let verdict = (step.run)(context);
    let took = started.elapsed();
    let tally = context.take_tally();
    let result = match verdict {
        Ok(Verdict::Skipped(reason)) => RowResult::Skipped(reason),
        Ok(Verdict::Done) => judge(tally, step.counts_tests, None),
        Err(error) => judge(tally, step.counts_tests, Some(format!("{error:#}"))),
    };
    let row = Row { name: step.name, result, took };
    context.say(&row.line());
    row
}

/// A step that counts tests stands for each of them; any other step stands for one check.
fn judge(tally: Tally, counts_tests: bool, error: Option<String>) -> RowResult {
    let Tally { passed, mut failed, mut failures } = tally;
    if !counts_tests {
        failures.extend(error);
        let failed = u32::from(!failures.is_empty());
        return RowResult::Counted { passed: 1 - failed, failed, failures };
    }
    // The error only says that tests failed, when tests failed.
    if failed == 0 {
        let silent = (passed == 0).then(|| String::from("no test reported a result"));
        if let Some(reason) = error.or(silent) {
            failed = 1;
            failures.push(reason);
        }
    }
    RowResult::Counted { passed, failed, failures }
}

impl Row {
    fn line(&self) -> String {
        let seconds = self.took.as_secs_f64();
        match &self.result {
            RowResult::Counted { passed, failed, .. } => {
                let word = if *failed == 0 { "ok" } else { "FAILED" };
                format!("{:<12} {word:<8} {seconds:>7.1} s  {passed} + {failed}", self.name)
            }
            RowResult::Skipped(reason) => {
                format!("{:<12} skipped  {seconds:>7.1} s  {reason}", self.name)
            }
        }
    }
}

/// The closing lines, the very last of them plain, and how many failed.
fn summary(rows: &[Row]) -> (String, u32) {
    let mut text = String::from("\n== summary (step, result, time, passed + failed)\n");
    let (mut all_passed, mut all_failed) = (0, 0);
    for row in rows {
        text += &row.line();
        text.push('\n');
        if let RowResult::Counted { passed, failed, failures } = &row.result {
            all_passed += passed;
            all_failed += failed;
            text.extend(failures.iter().map(|failure| format!("    {failure}\n")));
        }
    }
    text += &format!("{all_passed} passed, {all_failed} failed\n");
    (text, all_failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally(passed: u32, failed: u32) -> Tally {
        let failures = (0..failed).map(|number| format!("test {number}")).collect();
        Tally { passed, failed, failures }
    }

    fn counts(result: &RowResult) -> (u32, u32) {
        match result {
            RowResult::Counted { passed, failed, .. } => (*passed, *failed),
            RowResult::Skipped(_) => (0, 0),
        }
    }

    #[test]
    fn a_check_counts_once() {
        assert_eq!(counts(&judge(tally(0, 0), false, None)), (1, 0));
        assert_eq!(counts(&judge(tally(0, 0), false, Some("bad".into()))), (0, 1));
    }

    #[test]
    fn tests_count_each_and_silence_fails() {
        assert_eq!(counts(&judge(tally(7, 0), true, None)), (7, 0));
        assert_eq!(counts(&judge(tally(7, 2), true, Some("exit 101".into()))), (7, 2));
        assert_eq!(counts(&judge(tally(7, 0), true, Some("does not compile".into()))), (7, 1));
        assert_eq!(counts(&judge(tally(0, 0), true, None)), (0, 1));
    }

    #[test]
    fn the_last_line_is_plain_and_sums_up() {
        let row = |result| Row { name: "x", result, took: Duration::from_secs(1) };
        let rows = [
            row(judge(tally(7, 0), true, None)),
            row(judge(tally(3, 2), true, Some("exit 101".into()))),
            row(RowResult::Skipped("not installed".into())),
            row(judge(tally(0, 0), false, None)),
        ];
        let (text, failed) = summary(&rows);
        assert_eq!(text.lines().last(), Some("11 passed, 2 failed"));
        assert_eq!(failed, 2);
        assert!(text.contains("test 1\n") && text.contains("not installed"));
    }

    #[test]
    fn steps_are_chosen_by_name() {
        let args = |only: &[&str], skip: &[&str]| Args {
            only: only.iter().map(ToString::to_string).collect(),
            skip: skip.iter().map(ToString::to_string).collect(),
            list: false,
            limit_minutes: 1,
        };
        let names = |args: &Args| -> Vec<&str> {
            choose(args).unwrap().iter().map(|step| step.name).collect()
        };
        assert_eq!(names(&args(&["fmt"], &[])), ["fmt"]);
        assert_eq!(names(&args(&[], &["fmt"])).len(), STEPS.len() - 1);
        assert!(choose(&args(&["fnt"], &[])).is_err());
    }

    #[test]
    fn step_names_are_unique() {
        for (at, step) in STEPS.iter().enumerate() {
            assert!(STEPS[..at].iter().all(|other| other.name != step.name), "{}", step.name);
        }
    }
}
