//! Results as a table.

use serde::Serialize;

use super::rows::{Off, Row};
use super::trial::Outcome;

/// Whether every safeguard was on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Kind {
    /// All of them.
    Product,
    /// One was off, and the damage has to show.
    Control,
}

impl Kind {
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Product => "trial",
            Self::Control => "control",
        }
    }
}

/// All trials of a row of one kind.
#[derive(Debug, Serialize)]
pub(super) struct Run {
    row: &'static str,
    fault: &'static str,
    kind: Kind,
    /// What was off.
    without: Option<String>,
    pub(super) outcomes: Vec<Outcome>,
    /// Trials that came to no result.
    pub(super) errors: Vec<String>,
}

impl Run {
    pub(super) fn new(row: &Row, off: Option<Off>) -> Self {
        let without = off.map(|off| match off {
            Off::Guard(_, name) => name.to_owned(),
            Off::Setting(_, key, value) => format!("{key} = {value}"),
            Off::Option(_, option) | Off::Load(option) => option.to_owned(),
        });
        Self {
            row: row.id,
            fault: row.fault,
            kind: if off.is_some() { Kind::Control } else { Kind::Product },
            without,
            outcomes: Vec::new(),
            errors: Vec::new(),
        }
    }

    /// Whether something was off.
    pub(super) fn kind(&self) -> Kind {
        self.kind
    }

    /// Whether a trial showed that a promise was broken.
    pub(super) fn shows_damage(&self) -> bool {
        self.outcomes.iter().any(Outcome::shows_damage)
    }

    /// Whether it showed what it had to.
    pub(super) fn is_good(&self) -> bool {
        match self.kind {
            Kind::Product => {
                let clean = self.outcomes.iter().all(|outcome| outcome.clean);
                clean && self.errors.is_empty() && !self.outcomes.is_empty()
            }
            Kind::Control => self.shows_damage(),
        }
    }

    fn sum(&self, of: fn(&Outcome) -> u64) -> u64 {
        self.outcomes.iter().map(of).sum()
    }
}

/// One line about a trial.
pub(super) fn trial_line(outcome: &Outcome) -> String {
    let word = if outcome.clean { "clean" } else { "BROKEN" };
    let mut line = format!(
        "{word}, seed {}, {} acked, {} lost, {} two effects, {} pushed twice, {} order breaks, \
         {} missed, {} other, longest wait {:.1} s, took {:.0} s",
        outcome.seed,
        outcome.acked,
        outcome.lost,
        outcome.two_effects,
        outcome.pushed_twice,
        outcome.order_breaks,
        outcome.missed,
        outcome.other,
        outcome.recovery_s,
        outcome.took_s
    );
    for reason in &outcome.reasons {
        line.push_str("\n    ");
        line.push_str(reason);
    }
    line
}

/// The table, then what was not as it has to be.
pub(super) fn lines(runs: &[Run]) -> Vec<String> {
    let mut lines = vec![
        String::from(
            "| row | run | trials | clean | acked | lost | two effects | pushed twice, ppm | \
             order breaks | missed | other | wait p50, max (s) | verdict |",
        ),
        String::from("|---|---|---|---|---|---|---|---|---|---|---|---|---|"),
    ];
    lines.extend(runs.iter().map(line));
    for run in runs.iter().filter(|run| run.kind == Kind::Control) {
        let without = run.without.as_deref().unwrap_or_default();
        lines.push(format!("{} control: without {without}", run.row));
    }
    for run in runs.iter().filter(|run| !run.is_good()) {
        let without = run.without.as_deref().unwrap_or("nothing");
        lines.push(format!("{} {}: {} (without: {without})", run.row, run.kind.word(), run.fault));
        lines.extend(run.errors.iter().map(|error| format!("  {error}")));
        let bad = run.outcomes.iter().filter(|outcome| !outcome.clean);
        lines.extend(bad.map(|outcome| format!("  {}", trial_line(outcome))));
    }
    lines
}

fn line(run: &Run) -> String {
    let clean = run.outcomes.iter().filter(|outcome| outcome.clean).count();
    let delivered = run.sum(|outcome| outcome.delivered);
    let twice = run.sum(|outcome| outcome.pushed_twice);
    let ppm = twice.saturating_mul(1_000_000).checked_div(delivered).unwrap_or(0);
    let mut waits: Vec<f64> = run.outcomes.iter().map(|outcome| outcome.recovery_s).collect();
    waits.sort_by(f64::total_cmp);
    let median = waits.get(waits.len() / 2).copied().unwrap_or(0.0);
    let longest = waits.last().copied().unwrap_or(0.0);
    let verdict = match (run.kind, run.is_good()) {
        (Kind::Product, true) => "ok",
        (Kind::Control, true) => "ok: damage shown",
        (Kind::Product, false) => "BROKEN",
        (Kind::Control, false) => "PROVES NOTHING",
    };
    format!(
        "| {} | {} | {} | {clean} | {} | {} | {} | {ppm} | {} | {} | {} | {median:.1}, {longest:.1} | {verdict} |",
        run.row,
        run.kind.word(),
        run.outcomes.len() + run.errors.len(),
        run.sum(|outcome| outcome.acked),
        run.sum(|outcome| outcome.lost),
        run.sum(|outcome| outcome.two_effects),
        run.sum(|outcome| outcome.order_breaks),
        run.sum(|outcome| outcome.missed),
        run.sum(|outcome| outcome.other),
    )
}

#[cfg(test)]
mod tests {
    use super::super::rows::ROWS;
    use super::*;

    fn row(id: &str) -> &'static Row {
        ROWS.iter().find(|row| row.id == id).unwrap()
    }

    fn outcome(clean: bool, lost: u64) -> Outcome {
        Outcome { clean, lost, acked: 10, delivered: 100, recovery_s: 1.5, ..Outcome::default() }
    }

    #[test]
    fn a_control_run_has_to_show_damage() {
        let mut run = Run::new(row("F4"), row("F4").controls.first().copied());
        run.outcomes.push(outcome(true, 0));
        assert!(!run.is_good());
        // Not clean for want of an answer is no damage.
        run.outcomes.push(outcome(false, 0));
        assert!(!run.is_good());
        run.outcomes.push(outcome(false, 1));
        assert!(run.is_good());
        let text = lines(&[run]).join("\n");
        assert!(text.contains("damage shown") && text.contains("| 30 | 1 |"), "{text}");
    }

    #[test]
    fn a_run_without_a_result_is_not_good() {
        let mut run = Run::new(row("F4"), None);
        assert!(!run.is_good());
        run.outcomes.push(outcome(true, 0));
        assert!(run.is_good());
        run.errors.push("seed 3: it did not start".into());
        assert!(!run.is_good());
        assert!(lines(&[run]).join("\n").contains("seed 3"));
    }
}
