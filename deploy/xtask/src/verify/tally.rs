//! Reading the closing lines of test runners.

/// Names of failed tests kept for the summary.
const MAX_FAILURES: usize = 50;

/// Tests counted so far, and the names of those that failed.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    /// Tests that passed.
    pub(super) passed: u32,
    /// Tests that failed.
    pub(super) failed: u32,
    /// Lines that name a failed test.
    pub(super) failures: Vec<String>,
}

impl Tally {
    /// Takes one line of a test runner's output.
    pub(super) fn read(&mut self, line: &str) {
        let line = without_colours(line);
        let line = line.trim();
        if let Some((passed, failed)) = count(line) {
            self.passed += passed;
            self.failed += failed;
        } else if names_a_failure(line) && self.failures.len() < MAX_FAILURES {
            self.failures.push(line.to_owned());
        }
    }
}

/// The (passed, failed) of one closing line, when it is one of
/// - cargo: `test result: FAILED. 11 passed; 1 failed; 0 ignored; ...`
/// - vitest: `Tests  1 failed | 11 passed | 2 skipped (14)`
/// - node: `# pass 11` or `ℹ pass 11`, and the same with `fail`
/// - a plain `11 passed, 1 failed`
fn count(line: &str) -> Option<(u32, u32)> {
    if let Some(rest) = line.strip_prefix("test result: ") {
        return numbered(rest.split_once(". ")?.1, ';');
    }
    if let Some(rest) = line.strip_prefix("Tests ") {
        return numbered(rest.split('(').next()?, '|');
    }
    if let Some(rest) = line.strip_prefix("# ").or_else(|| line.strip_prefix("ℹ ")) {
        return match rest.split_once(' ')? {
            ("pass", number) => Some((number.parse().ok()?, 0)),
            ("fail", number) => Some((0, number.parse().ok()?)),
            _ => None,
        };
    }
    let plain = line.ends_with(" failed") && line.contains(" passed, ");
    if plain { numbered(line, ',') } else { None }
}

/// Reads `11 passed; 1 failed; 0 ignored`, in any order and with either part left out.
fn numbered(list: &str, separator: char) -> Option<(u32, u32)> {
    let (mut passed, mut failed, mut seen) = (0, 0, false);
    for item in list.split(separator) {
        let Some((number, word)) = item.trim().split_once(' ') else { continue };
        let into = match word.trim() {
            "passed" => &mut passed,
            "failed" => &mut failed,
            _ => continue,
        };
        *into = number.parse().ok()?;
        seen = true;
    }
    seen.then_some((passed, failed))
}

fn names_a_failure(line: &str) -> bool {
    let cargo = line.starts_with("test ") && line.ends_with("... FAILED");
    cargo || ["FAIL ", "not ok ", "× ", "✖ "].iter().any(|mark| line.starts_with(mark))
}

/// The line without terminal escape sequences.
fn without_colours(line: &str) -> String {
    let mut plain = String::with_capacity(line.len());
    let mut rest = line;
    while let Some((before, after)) = rest.split_once("\x1b[") {
        plain += before;
        // A sequence ends with its first letter.
        rest = after.find(|c: char| c.is_ascii_alphabetic()).map_or("", |at| &after[at + 1..]);
    }
    plain + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(lines: &[&str]) -> Tally {
        let mut tally = Tally::default();
        lines.iter().for_each(|line| tally.read(line));
        tally
    }

    #[test]
    fn cargo_lines_add_up() {
        let tally = read(&[
            "running 3 tests",
            "test a::b ... ok",
            "test a::c ... FAILED",
            "test result: FAILED. 2 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; \
             finished in 0.01s",
            "test result: \x1b[32mok\x1b[0m. 11 passed; 0 failed; 2 ignored; 0 measured",
        ]);
        assert_eq!((tally.passed, tally.failed), (13, 1));
        assert_eq!(tally.failures, ["test a::c ... FAILED"]);
    }

    #[test]
    fn vitest_counts_tests_and_not_files() {
        let tally = read(&[
            " \x1b[31m❯\x1b[39m sdk/test/outbox.test.ts (3 tests)",
            " FAIL  sdk/test/outbox.test.ts > keeps order",
            " Test Files  1 failed | 6 passed (7)",
            "      Tests  1 failed | 41 passed | 2 skipped (44)",
            "   Duration  1.20s",
        ]);
        assert_eq!((tally.passed, tally.failed), (41, 1));
        assert_eq!(tally.failures.len(), 1);
        assert_eq!(
            read(&["\x1b[2m      Tests \x1b[22m \x1b[1m\x1b[32m9 passed\x1b[39m (9)"]).passed,
            9
        );
    }

    #[test]
    fn node_and_plain_lines_are_read() {
        let tally = read(&["# tests 6", "# pass 5", "# fail 1", "not ok 3 - sends"]);
        assert_eq!((tally.passed, tally.failed, tally.failures.len()), (5, 1, 1));
        let tally = read(&["ℹ pass 5", "ℹ fail 0", "3 passed, 2 failed"]);
        assert_eq!((tally.passed, tally.failed), (8, 2));
    }

    #[test]
    fn other_lines_count_nothing() {
        let lines =
            ["5 passed", "passed, failed", "x passed, y failed", "test result: ok", "# pass x"];
        assert_eq!(read(&lines), Tally::default());
    }
}
