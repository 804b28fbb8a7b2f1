//! The baseline: its file, and the comparison.

use anyhow::{Context, bail};

use crate::callgrind::Counts;

/// How much more (or less) is still the same. One thread alone counts the same every time.
const TOLERANCE: f64 = 0.05;

/// What was counted when the baseline was accepted.
#[derive(Debug, PartialEq)]
pub(super) struct Baseline {
    /// The compiler.
    pub(super) rustc: String,
    /// What the choice of code at run time depends on.
    pub(super) machine: String,
    /// User instructions of one unit, by name.
    pub(super) counts: Counts,
}

/// A piece of work beside its baseline.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Judgement {
    /// Within the tolerance.
    Same { name: String, before: f64, now: f64 },
    /// Less than that.
    Better { name: String, before: f64, now: f64 },
    /// More than that.
    Worse { name: String, before: f64, now: f64 },
    /// Not in the baseline.
    New { name: String, now: f64 },
    /// In the baseline alone.
    Gone { name: String },
}

impl Baseline {
    /// Reads what [`Baseline::to_toml`] writes.
    pub(super) fn parse(text: &str) -> anyhow::Result<Self> {
        let (mut rustc, mut machine) = (None, None);
        let mut counts = Counts::new();
        let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
        for line in lines.filter(|line| *line != "[instructions]") {
            let (key, value) =
                line.rsplit_once(" = ").with_context(|| format!("no `key = value`: {line:?}"))?;
            match (key, unquoted(key)) {
                ("rustc", _) => rustc = unquoted(value),
                ("machine", _) => machine = unquoted(value),
                (_, Some(name)) => {
                    let count: f64 =
                        value.parse().with_context(|| format!("not a count: {line:?}"))?;
                    if !(count.is_finite() && count > 0.0) {
                        bail!("not a count: {line:?}");
                    }
                    counts.insert(name, count);
                }
                _ => bail!("no such key: {line:?}"),
            }
        }
        Ok(Self {
            rustc: rustc.context("no rustc = \"..\"")?,
            machine: machine.context("no machine = \"..\"")?,
            counts,
        })
    }

    /// The file.
    pub(super) fn to_toml(&self) -> String {
        let mut text = format!(
            "# User instructions, written by `cargo xtask instructions --accept`.\n\
             rustc = \"{}\"\nmachine = \"{}\"\n\n[instructions]\n",
            self.rustc, self.machine
        );
        for (name, count) in &self.counts {
            text += &format!("\"{name}\" = {count:.1}\n");
        }
        text
    }

    /// Every piece of work of either side, by name.
    pub(super) fn judge(&self, counts: &Counts) -> Vec<Judgement> {
        let mut judgements: Vec<_> = counts
            .iter()
            .map(|(name, now)| match self.counts.get(name) {
                Some(before) => judge(name, *before, *now),
                None => Judgement::New { name: name.clone(), now: *now },
            })
            .collect();
        let gone = self.counts.keys().filter(|name| !counts.contains_key(*name));
        judgements.extend(gone.map(|name| Judgement::Gone { name: name.clone() }));
        judgements
    }
}

fn judge(name: &str, before: f64, now: f64) -> Judgement {
    let (name, change) = (name.to_owned(), now / before - 1.0);
    if change > TOLERANCE {
        Judgement::Worse { name, before, now }
    } else if change < -TOLERANCE {
        Judgement::Better { name, before, now }
    } else {
        Judgement::Same { name, before, now }
    }
}

fn unquoted(text: &str) -> Option<String> {
    Some(text.strip_prefix('"')?.strip_suffix('"')?.to_owned())
}

impl Judgement {
    /// Whether the check fails.
    pub(super) fn is_bad(&self) -> bool {
        matches!(self, Self::Worse { .. } | Self::New { .. } | Self::Gone { .. })
    }

    /// For the reader.
    pub(super) fn line(&self) -> String {
        let changed = |name: &String, before: &f64, now: &f64, word: &str| {
            format!("{now:>10.1} {:>+6.1} %  {name}{word}", 100.0 * (now / before - 1.0))
        };
        match self {
            Self::Same { name, before, now } => changed(name, before, now, ""),
            Self::Better { name, before, now } => changed(name, before, now, ": better"),
            Self::Worse { name, before, now } => changed(name, before, now, ": WORSE"),
            Self::New { name, now } => format!("{now:>10.1}           {name}: NOT IN THE BASELINE"),
            Self::Gone { name } => format!("{:>10}           {name}: GONE", "-"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(pairs: &[(&str, f64)]) -> Counts {
        pairs.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect()
    }

    fn baseline(pairs: &[(&str, f64)]) -> Baseline {
        Baseline { rustc: "1.2.3".into(), machine: "some".into(), counts: counts(pairs) }
    }

    fn bad(baseline: &Baseline, now: &[(&str, f64)]) -> usize {
        baseline.judge(&counts(now)).iter().filter(|judgement| judgement.is_bad()).count()
    }

    #[test]
    fn five_per_cent_more_is_worse_and_less_is_better() {
        let baseline = baseline(&[("codec: a", 1000.0)]);
        assert_eq!(bad(&baseline, &[("codec: a", 1049.0)]), 0);
        assert_eq!(bad(&baseline, &[("codec: a", 1051.0)]), 1);
        assert_eq!(bad(&baseline, &[("codec: a", 10.0)]), 0);
        let judged = |now| baseline.judge(&counts(&[("codec: a", now)])).remove(0);
        assert!(matches!(judged(949.0), Judgement::Better { .. }));
        assert!(matches!(judged(951.0), Judgement::Same { .. }));
        assert!(judged(1200.0).line().contains("+20.0 %  codec: a: WORSE"), "{:?}", judged(1200.0));
    }

    #[test]
    fn turns_have_no_more_room() {
        let baseline = baseline(&[("turn: a", 1000.0)]);
        assert_eq!(bad(&baseline, &[("turn: a", 1049.0)]), 0);
        assert_eq!(bad(&baseline, &[("turn: a", 1051.0)]), 1);
    }

    #[test]
    fn what_only_one_side_has_is_bad() {
        let baseline = baseline(&[("a", 1.0), ("b", 1.0)]);
        assert_eq!(bad(&baseline, &[("a", 1.0), ("c", 1.0)]), 2);
        assert_eq!(bad(&baseline, &[("a", 1.0), ("b", 1.0)]), 0);
    }

    #[test]
    fn the_file_reads_back_and_is_toml() {
        let baseline = baseline(&[("codec: a = b", 1000.5), ("turn: c, 16 a turn", 7.0)]);
        let text = baseline.to_toml();
        assert_eq!(Baseline::parse(&text).unwrap(), baseline);
        let table: toml::Table = text.parse().unwrap();
        assert_eq!(table["instructions"]["codec: a = b"].as_float(), Some(1000.5));
    }

    #[test]
    fn a_spoilt_file_is_refused() {
        let good = baseline(&[("a", 1.0)]).to_toml();
        for (what, by) in [
            ("rustc = ", "compiler = "),
            ("machine", "#"),
            (" = 1.0", " 1.0"),
            ("= 1.0", "= 0.0"),
            ("= 1.0", "= NaN"),
            ("= 1.0", "= x"),
            ("\"a\"", "a"),
        ] {
            assert!(Baseline::parse(&good.replace(what, by)).is_err(), "{what} {by}");
        }
    }
}
