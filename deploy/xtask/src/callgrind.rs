//! Counting instructions with `valgrind --tool=callgrind`.
//!
//! The program under it names its pieces of work on standard output and calls a function called `mark`
//! before, between and after two runs of each: of N and of 2N times. Callgrind writes its counts
//! whenever `mark` is entered, so the difference of the two runs is N times the work alone.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, bail};

use crate::interrupt::Interrupt;
use crate::job::{self, Line};
use crate::repo::on_path;
use crate::scratch::Scratch;

/// A run takes seconds; an emulator on a busy machine may take some minutes.
const LIMIT: Duration = Duration::from_secs(10 * 60);

/// `rep movsb` and `rep stosb` are one instruction, but callgrind counts one for each byte: long copies
/// would be all that is seen. With these memcpy and memset use vectors at every length.
const TUNABLES: &str = "glibc.cpu.x86_rep_movsb_threshold=1000000000:\
                        glibc.cpu.x86_rep_stosb_threshold=1000000000";

/// What is missing to count instructions, as a sentence; `None` when nothing is.
pub(crate) fn missing() -> Option<&'static str> {
    let here = on_path("valgrind");
    (!here).then_some("valgrind is not installed (sudo apt-get install valgrind)")
}

/// A piece of work as the program names it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Named {
    name: String,
    /// The counts of another thread than the first are asked for.
    others: bool,
    /// How often the first run does it.
    times: u64,
}

/// User instructions of one unit of each piece of work, by name.
pub(crate) type Counts = BTreeMap<String, f64>;

/// Runs `program` under callgrind and counts.
///
/// # Errors
/// When it fails, is interrupted, or does not say what its counts are of.
pub(crate) fn count(
    program: &Path,
    arguments: &[&str],
    mark: &str,
    interrupt: &Interrupt,
) -> anyhow::Result<Counts> {
    let of_first = run(program, arguments, mark, true, total, interrupt)?;
    let (named, first) = &of_first;
    let others = named.iter().any(|named| named.others);
    // Callgrind writes only the counts of the thread that calls `mark` when it keeps threads apart:
    // those of the others are what all have beyond it.
    let all = match others {
        true => run(program, arguments, mark, false, total, interrupt)?.1,
        false => Vec::new(),
    };
    let mut counts = Counts::new();
    for (place, named) in named.iter().enumerate() {
        let growth = |parts: &[u64]| growth(parts, place);
        let mut grown = growth(first)?;
        if named.others {
            grown = growth(&all)? - grown;
        }
        counts.insert(named.name.clone(), grown as f64 / named.times as f64);
    }
    Ok(counts)
}

/// As [`count`], the functions of the C library alone. Work that calls nothing else of it copies memory
/// there.
///
/// # Errors
/// As [`count`].
pub(crate) fn count_in_libc(
    program: &Path,
    mark: &str,
    interrupt: &Interrupt,
) -> anyhow::Result<Counts> {
    let (named, parts) = run(program, &[], mark, true, in_libc, interrupt)?;
    let counts = named.into_iter().enumerate().map(|(place, named)| {
        let grown = growth(&parts, place)?;
        Ok((named.name, grown as f64 / named.times as f64))
    });
    counts.collect()
}

/// What the second run of a piece of work took more than the first.
fn growth(parts: &[u64], place: usize) -> anyhow::Result<i64> {
    // Part 3n ends when the n-th piece of work is set up and warm.
    let [once, twice] = parts.get(3 * place + 1..3 * place + 3).unwrap_or_default() else {
        bail!("callgrind wrote {} parts, too few for piece {place}", parts.len());
    };
    Ok(i64::try_from(*twice)? - i64::try_from(*once)?)
}

/// One run: what the program named, and the counts of each part.
fn run(
    program: &Path,
    arguments: &[&str],
    mark: &str,
    threads_apart: bool,
    counted: fn(&Path) -> anyhow::Result<u64>,
    interrupt: &Interrupt,
) -> anyhow::Result<(Vec<Named>, Vec<u64>)> {
    let scratch = Scratch::create("callgrind")?;
    let out = scratch.path().join("out");
    let mut command = Command::new("valgrind");
    command
        .args(["--tool=callgrind", "--quiet", &format!("--dump-before=*{mark}*")])
        .arg(format!("--separate-threads={}", if threads_apart { "yes" } else { "no" }))
        .arg(format!("--callgrind-out-file={}", out.display()))
        .arg(program)
        .args(arguments)
        .env("GLIBC_TUNABLES", TUNABLES)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut named = Vec::new();
    let mut faults = Vec::new();
    let ending = job::run(&mut command, LIMIT, interrupt, |line| match line {
        Line::Out(text) => named.push(text),
        Line::Err(text) => faults.push(text),
    })?;
    if let Err(error) = ending.check("valgrind") {
        bail!("{error:#}\n{}", faults.join("\n"));
    }
    let named: Vec<Named> = named.iter().map(|line| parse_named(line)).collect::<Result<_, _>>()?;
    let ending = if threads_apart { "-01" } else { "" };
    let parts = (1..=3 * named.len())
        .map(|number| counted(&scratch.path().join(format!("out.{number}{ending}"))))
        .collect::<Result<_, _>>()?;
    Ok((named, parts))
}

/// `NAME<tab>THREAD<tab>TIMES`.
fn parse_named(line: &str) -> anyhow::Result<Named> {
    let fields: Vec<&str> = line.split('\t').collect();
    let [name, thread, times] = fields[..] else { bail!("not a piece of work: {line:?}") };
    let others = match thread {
        "main" => false,
        "shard" => true,
        _ => bail!("no such thread: {thread:?}"),
    };
    let times = times.parse().ok().filter(|times| *times > 0);
    let times = times.with_context(|| format!("not a number of times: {line:?}"))?;
    Ok(Named { name: name.to_owned(), others, times })
}

fn read(path: &Path) -> anyhow::Result<String> {
    let bytes = fs::read(path).with_context(|| format!("callgrind wrote no {}", path.display()))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// The sum that a file of callgrind's ends with.
fn total(path: &Path) -> anyhow::Result<u64> {
    let text = read(path)?;
    let total = text.lines().find_map(|line| line.strip_prefix("totals: "));
    let total = total.and_then(|total| total.trim().parse().ok());
    total.with_context(|| format!("{} has no totals", path.display()))
}

/// What the functions of the C library took themselves, in a file of callgrind's: lines `ob=(ID) FILE`
/// or `ob=(ID)` say whose the costs are that follow, `PLACE COST`. A cost behind `calls=` is that of
/// the function called, which has lines of its own.
fn in_libc(path: &Path) -> anyhow::Result<u64> {
    let text = read(path)?;
    let mut known = BTreeMap::new();
    let (mut inside, mut of_callee, mut sum) = (false, false, 0);
    for line in text.lines() {
        if let Some((what, object)) = line.split_once('=').filter(|(what, _)| what.ends_with("ob"))
        {
            let (id, file) = object.split_once(' ').unwrap_or((object, ""));
            let is_libc = file.rsplit('/').next().is_some_and(|name| name.starts_with("libc."));
            let is_libc = *known.entry(id.to_owned()).or_insert(is_libc);
            inside = if what == "ob" { is_libc } else { inside };
        } else if line.starts_with("calls=") {
            of_callee = true;
        } else if is_cost(line) && !std::mem::take(&mut of_callee) && inside {
            let cost = line.split(' ').nth(1).and_then(|cost| cost.parse::<u64>().ok());
            sum += cost.with_context(|| format!("not a cost: {line:?}"))?;
        }
    }
    Ok(sum)
}

/// Places are numbers, or differences from the last one.
fn is_cost(line: &str) -> bool {
    line.starts_with(|first: char| first.is_ascii_digit() || "+-*".contains(first))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_the_program_are_read() {
        let named = Named { name: "codec: decode".into(), others: true, times: 64 };
        assert_eq!(parse_named("codec: decode\tshard\t64").unwrap(), named);
        for bad in ["", "x", "x\tmain", "x\tmain\t0", "x\tmain\t-1", "x\tother\t5", "x\tmain\t5\t6"]
        {
            assert!(parse_named(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_cost_is_what_twice_the_work_took_more() {
        let parts = [900, 150, 250, 77, 40, 30];
        assert_eq!(growth(&parts, 0).unwrap(), 100);
        assert_eq!(growth(&parts, 1).unwrap(), -10);
        assert!(growth(&parts, 2).is_err());
    }

    #[test]
    fn the_totals_of_a_file_are_found() {
        let scratch = Scratch::create("totals-test").unwrap();
        let path = scratch.path().join("out.1");
        fs::write(&path, "events: Ir\nfn=(1) main\n1 50\n\ntotals: 1013615\n").unwrap();
        assert_eq!(total(&path).unwrap(), 1_013_615);
        fs::write(&path, "events: Ir\n").unwrap();
        assert!(total(&path).is_err());
    }

    #[test]
    fn what_libc_takes_itself_is_summed() {
        let scratch = Scratch::create("libc-test").unwrap();
        let path = scratch.path().join("out.1");
        let text = "version: 1\nevents: Ir\n\nob=(2) /usr/bin/x\nfn=(1) main\n16 5\n\
                    cob=(1) /lib/x86_64-linux-gnu/libc.so.6\ncfn=(2) 0x1234\ncalls=2 0\n+1 700\n* 3\n\n\
                    ob=(1)\nfn=(2)\n0 600\n+5 100\ncfn=(1)\ncob=(2)\ncalls=1 0\n0 9\n-2 1\n\n\
                    ob=(3) /lib/libcrypt.so\nfn=(4) f\n0 50\n\ntotals: 759\n";
        fs::write(&path, text).unwrap();
        assert_eq!(in_libc(&path).unwrap(), 701);
        fs::write(&path, "ob=(1) libc.so.6\n0 x\n").unwrap();
        assert!(in_libc(&path).is_err());
    }
}
