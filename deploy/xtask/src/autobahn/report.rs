//! What the suite found: its `index.json`, read and judged.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use serde::Deserialize;

/// The file that names every case.
const INDEX: &str = "index.json";

/// One case as the suite wrote it down.
#[derive(Debug, Deserialize)]
struct Entry {
    /// What the server did with the messages.
    behavior: String,
    /// What it did when the connection was closed.
    #[serde(rename = "behaviorClose")]
    closing: String,
    #[serde(rename = "remoteCloseCode")]
    close_code: Option<u16>,
    #[serde(rename = "reportfile")]
    file: String,
}

/// What a case came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Verdict {
    Ok,
    /// Allowed, though not what the suite's authors like best.
    NonStrict,
    /// Nothing to judge.
    Informational,
    /// An optional thing that the server declined.
    Unimplemented,
    Failed,
    /// The connection was dropped instead of closed.
    Unclean,
}

/// The columns of the table; the first counts all cases, the others one verdict each.
const HEADS: [&str; 7] =
    ["cases", "ok", "non-strict", "informational", "unimplemented", "failed", "unclean"];
const VERDICTS: [Verdict; 6] = [
    Verdict::Ok,
    Verdict::NonStrict,
    Verdict::Informational,
    Verdict::Unimplemented,
    Verdict::Failed,
    Verdict::Unclean,
];

impl Verdict {
    /// One of the suite's words; words we do not know are no praise.
    fn of(word: &str) -> Self {
        match word {
            "OK" => Self::Ok,
            "NON-STRICT" => Self::NonStrict,
            "INFORMATIONAL" => Self::Informational,
            "UNIMPLEMENTED" => Self::Unimplemented,
            "UNCLEAN" => Self::Unclean,
            _ => Self::Failed,
        }
    }

    fn bad(self) -> bool {
        matches!(self, Self::Failed | Self::Unclean)
    }
}

impl Entry {
    /// A case is as good as its messages, unless the closing was bad.
    fn verdict(&self) -> Verdict {
        let (messages, closing) = (Verdict::of(&self.behavior), Verdict::of(&self.closing));
        if closing.bad() && !messages.bad() { closing } else { messages }
    }
}

/// A case number such as 7.1.10, ordered as numbers are.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Number(Vec<u32>);

impl Number {
    fn parse(text: &str) -> anyhow::Result<Self> {
        let parts: Result<Vec<u32>, _> = text.split('.').map(str::parse).collect();
        Ok(Self(parts.with_context(|| format!("{text:?} is no case number"))?))
    }

    fn group(&self) -> u32 {
        self.0[0]
    }
}

/// Everything the suite found about one server.
#[derive(Debug)]
pub(crate) struct Report {
    folder: PathBuf,
    cases: BTreeMap<Number, (String, Entry)>,
}

impl Report {
    /// Reads the report in `folder`, which must have at least `expected` cases.
    ///
    /// # Errors
    /// When it is missing, unreadable or not whole.
    pub(super) fn read(folder: &Path, expected: usize) -> anyhow::Result<Self> {
        let path = folder.join(INDEX);
        let text = fs::read_to_string(&path)
            .with_context(|| format!("the suite left no report: cannot read {}", path.display()))?;
        Self::parse(folder, &text, expected).with_context(|| path.display().to_string())
    }

    fn parse(folder: &Path, text: &str, expected: usize) -> anyhow::Result<Self> {
        let agents: BTreeMap<String, BTreeMap<String, Entry>> = serde_json::from_str(text)?;
        let mut cases = BTreeMap::new();
        for (name, entry) in agents.into_values().flatten() {
            cases.insert(Number::parse(&name)?, (name, entry));
        }
        if cases.len() < expected {
            bail!("only {} of {expected} cases were run", cases.len());
        }
        Ok(Self { folder: folder.to_path_buf(), cases })
    }

    /// Whether no case failed and every connection was closed as it should be.
    pub(crate) fn good(&self) -> bool {
        self.count(|_, verdict| verdict.bad()) == 0
    }

    /// A table with a line for each group, the bad cases with their reports, and the closing
    /// line `N passed, N failed`. What the server declined counts as neither.
    pub(crate) fn lines(&self) -> Vec<String> {
        let mut lines = self.table();
        lines.extend(self.faults());
        lines.push(format!("report: {}", self.folder.join("index.html").display()));
        let failed = self.count(|_, verdict| verdict.bad());
        let declined = self.count(|_, verdict| verdict == Verdict::Unimplemented);
        if declined > 0 {
            lines.push(format!("{declined} declined by the server: counted as neither"));
        }
        let passed = self.cases.len() - failed - declined;
        lines.push(format!("{passed} passed, {failed} failed"));
        lines
    }

    fn count(&self, counts: impl Fn(&Number, Verdict) -> bool) -> usize {
        self.cases.iter().filter(|(number, (_, entry))| counts(number, entry.verdict())).count()
    }

    fn table(&self) -> Vec<String> {
        let groups: BTreeSet<u32> = self.cases.keys().map(Number::group).collect();
        let mut lines = vec![table_line("group", &HEADS.map(String::from))];
        for group in groups {
            let counts = self.counts(|number| number.group() == group);
            lines.push(table_line(&group.to_string(), &counts));
        }
        lines.push(table_line("all", &self.counts(|_| true)));
        lines
    }

    /// How many of the cases chosen there are, then how many of each verdict.
    fn counts(&self, chosen: impl Fn(&Number) -> bool) -> [String; 7] {
        let of = |verdict| self.count(|number, found| chosen(number) && found == verdict);
        let [ok, non_strict, informational, unimplemented, failed, unclean] = VERDICTS.map(of);
        let all = self.count(|number, _| chosen(number));
        [all, ok, non_strict, informational, unimplemented, failed, unclean]
            .map(|count| count.to_string())
    }

    fn faults(&self) -> impl Iterator<Item = String> {
        let bad = self.cases.values().filter(|(_, entry)| entry.verdict().bad());
        bad.map(|(name, entry)| {
            let Entry { behavior, closing, close_code, file } = entry;
            let code = close_code.map_or(String::from("none"), |code| code.to_string());
            let page = self.folder.join(file).with_extension("html");
            format!(
                "FAIL {name}: {behavior}, closing {closing}, close code {code}: {}",
                page.display()
            )
        })
    }
}

fn table_line(group: &str, cells: &[String; 7]) -> String {
    let cells = HEADS.iter().zip(cells).map(|(head, cell)| format!("{cell:>0$}", head.len() + 2));
    format!("{group:<5}{}", cells.collect::<String>())
}

/// Removes the index of an earlier run.
///
/// # Errors
/// When it is there and stays.
pub(super) fn forget(folder: &Path) -> anyhow::Result<()> {
    let path = folder.join(INDEX);
    match fs::remove_file(&path) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(number: &str, behavior: &str, closing: &str) -> String {
        let file = number.replace('.', "_");
        format!(
            r#""{number}": {{"behavior": "{behavior}", "behaviorClose": "{closing}", "duration": 2,
                "remoteCloseCode": 1000, "reportfile": "corelane_case_{file}.json"}}"#
        )
    }

    fn index(entries: &[String]) -> String {
        format!(r#"{{"corelane": {{{}}}}}"#, entries.join(","))
    }

    fn report(entries: &[String]) -> Report {
        Report::parse(Path::new("/r"), &index(entries), entries.len()).unwrap()
    }

    #[test]
    fn good_cases_are_counted_by_group() {
        let report = report(&[
            entry("1.1.1", "OK", "OK"),
            entry("10.1.1", "OK", "OK"),
            entry("6.4.1", "NON-STRICT", "OK"),
            entry("7.1.6", "INFORMATIONAL", "INFORMATIONAL"),
            entry("12.1.1", "UNIMPLEMENTED", "OK"),
        ]);
        assert!(report.good());
        let lines = report.lines();
        let rows: Vec<Vec<&str>> =
            lines.iter().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(rows[0][..3], ["group", "cases", "ok"]);
        let numbers: Vec<&str> = rows[1..7].iter().map(|row| row[0]).collect();
        assert_eq!(numbers, ["1", "6", "7", "10", "12", "all"]);
        assert_eq!(rows[2], ["6", "1", "0", "1", "0", "0", "0", "0"]);
        assert_eq!(rows[6], ["all", "5", "2", "1", "1", "1", "0", "0"]);
        assert!(lines.iter().any(|line| line.starts_with("1 declined")), "{lines:?}");
        assert_eq!(lines.last().unwrap(), "4 passed, 0 failed");
    }

    #[test]
    fn one_bad_case_is_enough_and_named() {
        for (behavior, closing, column) in [
            ("FAILED", "OK", 6),
            ("WRONG CODE", "OK", 6),
            ("a word of tomorrow", "OK", 6),
            ("OK", "FAILED BY CLIENT", 6),
            ("OK", "WRONG CODE", 6),
            ("OK", "UNCLEAN", 7),
            ("NON-STRICT", "UNCLEAN", 7),
            ("UNCLEAN", "OK", 7),
        ] {
            let report = report(&[entry("1.1.1", "OK", "OK"), entry("7.7.3", behavior, closing)]);
            assert!(!report.good(), "{behavior}, {closing}");
            let lines = report.lines();
            let all: Vec<&str> = lines[3].split_whitespace().collect();
            assert_eq!((all[0], all[column]), ("all", "1"), "{behavior}, {closing}");
            let named = lines.iter().find(|line| line.starts_with("FAIL 7.7.3: ")).unwrap();
            assert!(named.ends_with("/r/corelane_case_7_7_3.html"), "{named}");
            assert_eq!(lines.last().unwrap(), "1 passed, 1 failed");
        }
    }

    #[test]
    fn a_report_that_is_not_whole_is_refused() {
        let text = index(&[entry("1.1.1", "OK", "OK")]);
        let parse = |text: &str, expected| Report::parse(Path::new("/r"), text, expected);
        assert!(parse(&text, 1).is_ok());
        assert!(parse(&text, 2).unwrap_err().to_string().contains("1 of 2"));
        for broken in ["", "{}", "[]", r#"{"corelane": {"x": {}}}"#] {
            assert!(parse(broken, 1).is_err(), "{broken:?}");
        }
        assert!(parse(&text.replace("1.1.1", "one"), 1).is_err());
    }

    #[test]
    fn an_earlier_report_is_forgotten() {
        let folder = tempfile::tempdir().unwrap();
        forget(folder.path()).unwrap();
        fs::write(folder.path().join(INDEX), index(&[entry("1.1.1", "OK", "OK")])).unwrap();
        assert!(Report::read(folder.path(), 1).is_ok());
        forget(folder.path()).unwrap();
        let error = Report::read(folder.path(), 1).unwrap_err().to_string();
        assert!(error.contains("no report"), "{error}");
    }
}
