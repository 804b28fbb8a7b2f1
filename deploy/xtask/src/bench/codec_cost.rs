//! `bench codec`: what the codec costs a frame beside fastwebsockets and tungstenite, in user
//! instructions and allocations (budget P7).

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, bail};

use super::host;
use crate::build::{self, Binary};
use crate::callgrind::{self, Counts};
use crate::interrupt::Interrupt;
use crate::job::{self, Line};
use crate::repo::Repo;

const MANIFEST: &str = "bench/codec/Cargo.toml";
const FRAMES: Binary = Binary { package: "codec-bench", name: "frames" };
const ALLOCATIONS: Binary = Binary { package: "codec-bench", name: "allocations" };
const MARK: &str = "frames::mark";
/// Allocations are counted at full speed.
const LIMIT: Duration = Duration::from_secs(60);

const OURS: &str = "ours";
/// Whoever writes a payload and makes no frame of it.
const WRITER: &str = "writer";
/// The peers, and the most that we may cost beside each (P7).
const PEERS: [(&str, f64); 2] = [("fastwebsockets", 0.8), ("tungstenite", 0.4)];

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Write no result file.
    #[arg(long)]
    dry_run: bool,
}

/// Counts, and writes the result.
pub(super) fn run(args: &Args, repo: &Repo, interrupt: &Interrupt) -> anyhow::Result<()> {
    if let Some(missing) = callgrind::missing() {
        bail!("{missing}");
    }
    let frames = build::build_apart(repo, MANIFEST, FRAMES, interrupt)?;
    let allocations = build::build_apart(repo, MANIFEST, ALLOCATIONS, interrupt)?;
    let counts = callgrind::count(&frames, &[], MARK, interrupt)?;
    let copying = callgrind::count_in_libc(&frames, MARK, interrupt)?;
    let allocations = count_allocations(&allocations, interrupt)?;
    let (table, parts) = (table(&counts, &allocations)?, copying_apart(&counts, &copying)?);
    let text = format!(
        "{}\n{table}\n## Encoding without what copies the payload\n\n{parts}\n{}",
        host::head("Codec: user instructions and allocations a frame", repo),
        notes(&frames),
    );
    host::publish(repo, "codec", &text, args.dry_run)
}

/// Lines `NAME<tab>ALLOCATIONS A FRAME`.
fn count_allocations(program: &Path, interrupt: &Interrupt) -> anyhow::Result<Counts> {
    let mut command = Command::new(program);
    command.stdout(Stdio::piped()).stderr(Stdio::inherit());
    let mut counts = Counts::new();
    let ending = job::run(&mut command, LIMIT, interrupt, |line| {
        if let Line::Out(line) = line
            && let Some((name, count)) = line.split_once('\t')
            && let Ok(count) = count.parse()
        {
            counts.insert(name.to_owned(), count);
        }
    })?;
    ending.check("counting allocations")?;
    Ok(counts)
}

/// What each needed for a piece of work; names are `WORK: WHO`. Where the writing of the payload is part of
/// it, that alone is known, too, and taken off.
fn by_work(counts: &Counts) -> anyhow::Result<BTreeMap<&str, BTreeMap<&str, f64>>> {
    let mut rows: BTreeMap<&str, BTreeMap<&str, f64>> = BTreeMap::new();
    for (name, count) in counts {
        let (work, who) = name.rsplit_once(": ").with_context(|| format!("no `: ` in {name}"))?;
        rows.entry(work).or_default().insert(who, *count);
    }
    for row in rows.values_mut() {
        let writing = row.remove(WRITER).unwrap_or(0.0);
        row.values_mut().for_each(|count| *count -= writing);
    }
    Ok(rows)
}

/// One row for each piece of work.
fn table(counts: &Counts, allocations: &Counts) -> anyhow::Result<String> {
    let rows = by_work(counts)?;
    let mut text = String::from(
        "| work | ours | fastwebsockets | tungstenite | ours / fastwebsockets (budget 0.8) \
         | ours / tungstenite (budget 0.4) | allocations: ours, fastwebsockets, tungstenite |\n\
         |---|---|---|---|---|---|---|\n",
    );
    for (work, by) in &rows {
        let ours = *by.get(OURS).with_context(|| format!("{work} was not done by us"))?;
        let number = |count: Option<&f64>, digits| {
            count.map_or_else(|| String::from("-"), |count| format!("{count:.digits$}"))
        };
        let _ = write!(text, "| {work} | {ours:.0} ");
        for (peer, _) in PEERS {
            let _ = write!(text, "| {} ", number(by.get(peer), 0));
        }
        for (peer, budget) in PEERS {
            let ratio = by.get(peer).map(|theirs| ours / theirs);
            let over = if ratio.is_some_and(|ratio| ratio > budget) { " over" } else { "" };
            let _ = write!(text, "| {}{over} ", number(ratio.as_ref(), 2));
        }
        let of = |who| number(allocations.get(&format!("{work}: {who}")), 2);
        let _ = writeln!(text, "| {}, {}, {} |", of(OURS), of(PEERS[0].0), of(PEERS[1].0));
    }
    Ok(text)
}

/// Encoding once more: memcpy (all that is called of the C library), and everything else.
fn copying_apart(counts: &Counts, copying: &Counts) -> anyhow::Result<String> {
    let mut text = String::from(
        "| work | memcpy: ours, fastwebsockets, tungstenite | all else: ours, fastwebsockets, tungstenite \
         | all else, ours / fastwebsockets | ours / tungstenite |\n|---|---|---|---|---|\n",
    );
    let written = |work: &str| counts.contains_key(&format!("{work}: {WRITER}"));
    let copies = |work: &str| work.starts_with("encode") && !written(work);
    for (work, by) in by_work(counts)?.iter().filter(|(work, _)| copies(work)) {
        let copied = |who: &str| copying.get(&format!("{work}: {who}")).copied();
        let rest = |who: &str| Some(by.get(who)? - copied(who)?);
        let of_each = |count: &dyn Fn(&str) -> Option<f64>| {
            [OURS, PEERS[0].0, PEERS[1].0]
                .map(|who| {
                    count(who).map_or_else(|| String::from("-"), |count| format!("{count:.0}"))
                })
                .join(", ")
        };
        let ratio = |peer| match (rest(OURS), rest(peer)) {
            (Some(ours), Some(theirs)) => format!("{:.2}", ours / theirs),
            _ => String::from("-"),
        };
        let _ = writeln!(
            text,
            "| {work} | {} | {} | {} | {} |",
            of_each(&copied),
            of_each(&rest),
            ratio(PEERS[0].0),
            ratio(PEERS[1].0)
        );
    }
    Ok(text)
}

fn notes(program: &Path) -> String {
    let versions = Command::new(program).arg("--versions").output();
    let versions = versions.map(|out| String::from_utf8_lossy(&out.stdout).into_owned());
    format!(
        "{}\nHow it is counted, and what is fair about it: bench/codec/README.md.\n",
        versions.unwrap_or_default().trim()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_has_ratios_and_says_what_is_over() {
        let counts: Counts = [
            ("decode text, 20 B: ours", 100.0),
            ("decode text, 20 B: fastwebsockets", 110.0),
            ("decode text, 20 B: tungstenite", 400.0),
            ("handshake: ours", 50.0),
        ]
        .map(|(name, count)| (name.to_owned(), count))
        .into();
        let text =
            table(&counts, &Counts::from([("decode text, 20 B: ours".to_owned(), 0.0)])).unwrap();
        let row = "| decode text, 20 B | 100 | 110 | 400 | 0.91 over | 0.25 | 0.00, -, - |";
        assert!(text.contains(row), "{text}");
        assert!(text.contains("| handshake | 50 | - | - | - | - | -, -, - |"), "{text}");
    }

    #[test]
    fn the_writing_of_a_payload_is_nobodys_cost() {
        let counts: Counts = [
            ("encode binary, written: ours", 130.0),
            ("encode binary, written: tungstenite", 400.0),
            ("encode binary, written: writer", 100.0),
        ]
        .map(|(name, count)| (name.to_owned(), count))
        .into();
        let text = table(&counts, &Counts::new()).unwrap();
        assert!(text.contains("| encode binary, written | 30 | - | 300 | - | 0.10 |"), "{text}");
        assert!(!copying_apart(&counts, &counts).unwrap().contains("written"));
    }

    #[test]
    fn work_that_is_not_ours_alone_is_refused() {
        let counts = Counts::from([("decode: tungstenite".to_owned(), 1.0)]);
        assert!(table(&counts, &Counts::new()).is_err());
    }

    #[test]
    fn copying_is_told_apart_where_something_is_encoded() {
        let counts = |pairs: &[(&str, f64)]| -> Counts {
            pairs.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect()
        };
        let all = [("encode text: ours", 90.0), ("encode text: fastwebsockets", 130.0)];
        let all = counts(&[&all[..], &[("decode text: ours", 7.0)]].concat());
        let copying = [("encode text: ours", 70.0), ("encode text: fastwebsockets", 80.0)];
        let text = copying_apart(&all, &counts(&copying)).unwrap();
        assert!(text.contains("| encode text | 70, 80, - | 20, 50, - | 0.40 | - |"), "{text}");
        assert!(!text.contains("decode"), "{text}");
    }
}
