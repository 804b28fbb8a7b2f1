//! Interleaved rounds and their tables, for any client and any unit.

use std::fmt::Write;

use super::instrument::Subject;
use super::ratio::{Sample, Spread, order, quotients, ratios};

/// One measurement of a series.
#[derive(Debug)]
pub(super) struct Measured<R> {
    /// 0 is the unit.
    pub(super) subject: usize,
    pub(super) report: R,
}

/// One figure of a report.
pub(super) struct Column<R> {
    /// Its heading.
    pub(super) title: &'static str,
    /// The figure.
    pub(super) figure: fn(&R) -> f64,
    /// Digits behind the point.
    pub(super) decimals: usize,
}

/// A series and what its tables need.
pub(super) struct Series<R: 'static> {
    /// The unit first.
    pub(super) subjects: Vec<Subject>,
    pub(super) measured: Vec<Measured<R>>,
    /// The first is the cost that is compared.
    pub(super) columns: &'static [Column<R>],
}

/// A limit on a ratio.
#[derive(Debug, Clone, Copy)]
pub(super) struct Budget {
    /// Its name in the list of budgets.
    pub(super) name: &'static str,
    /// Whose cost.
    pub(super) who: &'static str,
    /// Divided by whose.
    pub(super) by: &'static str,
    /// At most.
    pub(super) at_most: f64,
}

impl<R> Series<R> {
    /// Measures all rounds: a unit before and after each candidate, the order turned every other
    /// round. `subjects` begins with the unit.
    ///
    /// # Errors
    /// When a measurement fails.
    pub(super) fn measure(
        subjects: Vec<Subject>,
        columns: &'static [Column<R>],
        rounds: usize,
        mut measure: impl FnMut(&Subject) -> anyhow::Result<R>,
    ) -> anyhow::Result<Self> {
        let order = order(subjects.len() - 1, rounds);
        let mut measured = Vec::with_capacity(order.len());
        for (at, &subject) in order.iter().enumerate() {
            let report = measure(&subjects[subject])?;
            let mut line = format!("{:>3}/{}  {:<22}", at + 1, order.len(), subjects[subject].name);
            for column in columns.iter().take(3) {
                let _ = write!(
                    line,
                    " {:>9.*} {}",
                    column.decimals,
                    (column.figure)(&report),
                    column.title
                );
            }
            eprintln!("{line}");
            measured.push(Measured { subject, report });
        }
        Ok(Self { subjects, measured, columns })
    }

    fn costs(&self) -> Vec<Sample> {
        let cost = self.columns[0].figure;
        self.measured
            .iter()
            .map(|one| Sample { subject: one.subject, cost: cost(&one.report) })
            .collect()
    }

    /// One line a subject: how often, ratio, all figures.
    pub(super) fn table(&self) -> String {
        let costs = self.costs();
        let titles: Vec<&str> = self.columns.iter().map(|column| column.title).collect();
        let mut text =
            format!("| who | n | ratio | {} |\n{}\n", titles.join(" | "), rule(titles.len() + 3));
        for (number, subject) in self.subjects.iter().enumerate() {
            let of_subject = || self.measured.iter().filter(|one| one.subject == number);
            let mut cells = vec![
                subject.name.clone(),
                of_subject().count().to_string(),
                show(ratios(&costs, number), 3),
            ];
            for column in self.columns {
                let figures = of_subject().map(|one| (column.figure)(&one.report));
                cells.push(show(figures, column.decimals));
            }
            let _ = writeln!(text, "| {} |", cells.join(" | "));
        }
        text
    }

    /// One line a budget whose two sides were measured.
    pub(super) fn budgets(&self, budgets: &[Budget]) -> String {
        let costs = self.costs();
        let number = |name: &str| self.subjects.iter().position(|subject| subject.name == name);
        let mut lines = String::new();
        for budget in budgets {
            let (Some(who), Some(by)) = (number(budget.who), number(budget.by)) else { continue };
            let of_rounds = match by {
                0 => ratios(&costs, who),
                _ => quotients(&ratios(&costs, who), &ratios(&costs, by)),
            };
            let Some(spread) = Spread::of(of_rounds) else { continue };
            let kept = if spread.median <= budget.at_most { "kept" } else { "missed" };
            let _ = writeln!(
                lines,
                "| {} | {} / {} | {:.2} | {} | {kept} |",
                budget.name,
                budget.who,
                budget.by,
                budget.at_most,
                spread.show(3),
            );
        }
        if lines.is_empty() {
            return lines;
        }
        let head = "\n| budget | what | at most | median (range) of the rounds | |";
        format!("{head}\n{}\n{lines}", rule(5))
    }

    /// Every measurement, in the order it was made.
    pub(super) fn in_order(&self) -> String {
        let titles: Vec<&str> = self.columns.iter().map(|column| column.title).collect();
        let mut text = format!(
            "\nEvery measurement in order:\n\n| who | {} |\n{}\n",
            titles.join(" | "),
            rule(titles.len() + 1)
        );
        for one in &self.measured {
            let mut cells = vec![self.subjects[one.subject].name.clone()];
            for column in self.columns {
                cells.push(format!("{:.*}", column.decimals, (column.figure)(&one.report)));
            }
            let _ = writeln!(text, "| {} |", cells.join(" | "));
        }
        text
    }
}

/// Median and range, or a dash.
pub(super) fn show(figures: impl IntoIterator<Item = f64>, decimals: usize) -> String {
    Spread::of(figures).map_or(String::from("-"), |spread| spread.show(decimals))
}

/// The line below a table's head.
pub(super) fn rule(columns: usize) -> String {
    format!("|{}", "---|".repeat(columns))
}

#[cfg(test)]
mod tests {
    use super::*;

    const COLUMNS: &[Column<f64>] =
        &[Column { title: "us/message", figure: |report| report / 1e3, decimals: 2 }];
    const BUDGETS: [Budget; 3] = [
        Budget { name: "P2", who: "a", by: "unit", at_most: 0.85 },
        Budget { name: "P3", who: "a", by: "b", at_most: 0.2 },
        Budget { name: "P3", who: "a", by: "absent", at_most: 1.0 },
    ];

    fn series() -> Series<f64> {
        let subject = |name: &str| Subject { name: name.to_owned(), ..Subject::default() };
        let subjects = vec![subject("unit"), subject("a"), subject("b")];
        // The machine slows down throughout; a costs half a unit, b two.
        let mut speed = 1_000.0;
        Series::measure(subjects, COLUMNS, 4, |subject| {
            speed += 100.0;
            Ok(match subject.name.as_str() {
                "unit" => speed,
                "a" => speed / 2.0,
                _ => speed * 2.0,
            })
        })
        .unwrap()
    }

    #[test]
    fn a_table_has_a_line_for_everybody() {
        let series = series();
        assert_eq!(series.measured.len(), 17);
        let table = series.table();
        let lines: Vec<&str> = table.lines().collect();
        assert_eq!(lines[0], "| who | n | ratio | us/message |");
        assert!(lines[3].starts_with("| a | 4 | 0.500 (0.500-0.500) | "), "{table}");
        assert!(lines[4].starts_with("| b | 4 | 2.000 (2.000-2.000) | "), "{table}");
        assert_eq!(series.in_order().lines().count(), 5 + 17);
    }

    #[test]
    fn budgets_are_judged_by_the_same_rounds() {
        let text = series().budgets(&BUDGETS);
        let lines: Vec<&str> = text.lines().filter(|line| line.starts_with("| P")).collect();
        assert_eq!(lines[0], "| P2 | a / unit | 0.85 | 0.500 (0.500-0.500) | kept |");
        assert_eq!(lines[1], "| P3 | a / b | 0.20 | 0.250 (0.250-0.250) | missed |");
        assert_eq!(lines.len(), 2, "what was not measured has no line");
        assert_eq!(series().budgets(&BUDGETS[2..]), "");
    }
}
