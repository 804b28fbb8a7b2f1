//! `bench echo --slices`: all servers open at once, each with a client of its own, taking turns in slices of a fraction
//! of a second. Beside its neighbours a slice is measured on the same machine at the same speed, more nearly than a
//! measurement of seconds can be.

use std::fmt::Write;
use std::ops::Range;

use anyhow::Context;
use serde::Deserialize;

use super::Load;
use super::instrument::{Instrument, Subject, end};
use super::ratio::{Distribution, Sample, Spread, order, quotients, ratio_of_sums, ratios};
use super::series::{Budget, Column, Measured, Series, rule};
use super::slice_client::SliceClient;
use crate::interrupt::Interrupt;
use crate::server::Server;

/// What is to be measured, and how.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    pub(super) load: Load,
    /// Rounds of slices, of each candidate one.
    pub(super) rounds: usize,
    /// Rounds after which all servers are started afresh; at least 1.
    pub(super) reopen: usize,
    /// Messages that are counted in a slice.
    pub(super) messages: u64,
    /// Messages of each client before its first slice.
    pub(super) warmup: u64,
    /// Messages at the start of a slice that are not counted.
    pub(super) slice_warmup: u64,
    /// Server and client are in network namespaces of their own.
    pub(super) link: bool,
    /// Those of loopback.
    pub(super) budgets: &'static [Budget],
}

/// What the echo client reports of a slice.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Slice {
    server_core_ns_per_message: f64,
    server_cpu_ns_per_message: f64,
    messages_per_s: f64,
    p50_us: f64,
    p99_us: f64,
    server_busy: f64,
    client_busy: f64,
}

/// What the echo client reports when it is ready.
#[derive(Debug, Deserialize)]
struct Ready {
    connect_ms: f64,
    idle_step_ns: Option<u64>,
}

type Figure = Column<Slice>;

const COLUMNS: &[Figure] = &[
    Figure {
        title: "us/message on the server's core",
        figure: |slice| slice.server_core_ns_per_message / 1e3,
        decimals: 2,
    },
    Figure {
        title: "charged to the server",
        figure: |slice| slice.server_cpu_ns_per_message / 1e3,
        decimals: 2,
    },
    Figure { title: "messages/s", figure: |slice| slice.messages_per_s, decimals: 0 },
    Figure { title: "p50 us", figure: |slice| slice.p50_us, decimals: 0 },
    Figure { title: "p99 us", figure: |slice| slice.p99_us, decimals: 0 },
    Figure { title: "server busy", figure: |slice| slice.server_busy, decimals: 2 },
    Figure { title: "client busy", figure: |slice| slice.client_busy, decimals: 2 },
];

/// A server that stays open, and its client.
struct Player<'a> {
    subject: Subject,
    // Before the server, so that it goes first.
    client: SliceClient<'a>,
    server: Server,
}

impl Player<'_> {
    fn slice(&mut self, messages: u64) -> anyhow::Result<Slice> {
        let outcome = self.client.slice(messages);
        outcome.with_context(|| format!("{}{}", self.subject.name, self.server.tail()))
    }

    fn finish(self) -> anyhow::Result<()> {
        self.client.finish().context(self.subject.name.clone())?;
        end(self.server, &self.subject)
    }
}

/// The heading of a result.
pub(super) fn title(plan: &Plan) -> &'static str {
    if plan.link {
        "Echo in slices over a link: time of the server's core a message, as a ratio to a bare epoll echo in C"
    } else {
        "Echo in slices: time of the server's core a message, as a ratio to a bare epoll echo in C"
    }
}

/// Opens all, lets them take their turns, ends all, and that several times; the text of the result. `subjects` begins
/// with the unit.
///
/// # Errors
/// When one does not start or end as it should, or answers wrongly.
pub(super) fn measure(
    plan: &Plan,
    instrument: &Instrument<'_>,
    subjects: Vec<Subject>,
    interrupt: &Interrupt,
) -> anyhow::Result<String> {
    let (mut measured, mut idle_step_ns) = (Vec::new(), None);
    for (set, rounds) in sets(plan.rounds, plan.reopen).enumerate() {
        let mut players = Vec::new();
        for (place, number) in opening(subjects.len(), set).enumerate() {
            let (player, ready) = open(plan, instrument, &subjects[number], place, interrupt)?;
            let name = &subjects[number].name;
            eprintln!("{name:<22} open, connected in {:.0} ms", ready.connect_ms);
            players.push((number, player));
            idle_step_ns = ready.idle_step_ns;
        }
        players.sort_by_key(|(number, _)| *number);
        let mut players: Vec<_> = players.into_iter().map(|(_, player)| player).collect();
        measured.extend(instrument.on_client_core(|| play(plan, rounds, &mut players))?);
        for player in players {
            player.finish()?;
        }
    }
    let series = Series { subjects, measured, columns: COLUMNS };
    Ok(head(plan, idle_step_ns) + &tables(&series) + &budgets(plan, &series))
}

/// The rounds that each set of servers stays open for, of `reopen` each but for the last.
fn sets(rounds: usize, reopen: usize) -> impl Iterator<Item = Range<usize>> {
    (0..rounds).step_by(reopen).map(move |from| from..rounds.min(from + reopen))
}

/// Who is opened when: the other way round in every other set, so that nobody always has what is free first.
fn opening(subjects: usize, set: usize) -> impl Iterator<Item = usize> {
    let turned = set % 2 == 1;
    (0..subjects).map(move |place| if turned { subjects - 1 - place } else { place })
}

/// Starts a server and its client, which connects and warms up.
fn open<'a>(
    plan: &Plan,
    instrument: &Instrument<'_>,
    subject: &Subject,
    place: usize,
    interrupt: &'a Interrupt,
) -> anyhow::Result<(Player<'a>, Ready)> {
    let mut server = instrument.start(subject)?;
    let mut command = instrument.client_command(&server, subject, &options(plan, place));
    let client = instrument.on_client_core(|| SliceClient::start(&mut command, interrupt));
    let (client, ready) = client.with_context(|| format!("{}{}", subject.name, server.tail()))?;
    Ok((Player { subject: subject.clone(), client, server }, ready))
}

/// What the client opened in this place is told.
fn options(plan: &Plan, place: usize) -> Vec<String> {
    let Load { connections, outstanding, payload } = plan.load;
    vec![
        String::from("--slices"),
        format!("--connections={connections}"),
        format!("--outstanding={outstanding}"),
        format!("--payload={payload}"),
        format!("--warmup={}", plan.warmup),
        format!("--slice-warmup={}", plan.slice_warmup),
        format!("--first-number={}", place * connections),
    ]
}

/// Some of the rounds, one after the other, all by the same servers.
fn play(
    plan: &Plan,
    rounds: Range<usize>,
    players: &mut [Player<'_>],
) -> anyhow::Result<Vec<Measured<Slice>>> {
    let mut measured = Vec::new();
    let order = order(players.len() - 1, rounds.len());
    let round_slices = (order.len() - 1) / rounds.len();
    for (at, &subject) in order.iter().enumerate() {
        measured.push(Measured { subject, report: players[subject].slice(plan.messages)? });
        if at > 0 && at % round_slices == 0 {
            let round = rounds.start + at / round_slices;
            eprintln!("{round:>3}/{}  {}", plan.rounds, progress(players, &measured));
        }
    }
    Ok(measured)
}

/// The candidates' last ratios.
fn progress(players: &[Player<'_>], measured: &[Measured<Slice>]) -> String {
    let costs = costs(measured);
    let last = |number: usize| ratios(&costs, number).last().copied().unwrap_or(f64::NAN);
    let ratio = |number: usize| format!("{} {:.3}", players[number].subject.name, last(number));
    (1..players.len()).map(ratio).collect::<Vec<_>>().join("  ")
}

fn costs(measured: &[Measured<Slice>]) -> Vec<Sample> {
    let cost = |slice: &Slice| slice.server_core_ns_per_message;
    measured.iter().map(|one| Sample { subject: one.subject, cost: cost(&one.report) }).collect()
}

/// What was done, and how to read the tables.
fn head(plan: &Plan, idle_step_ns: Option<u64>) -> String {
    let Load { connections, outstanding, payload } = plan.load;
    let source = match idle_step_ns {
        Some(1) => String::from("in nanoseconds (/proc/timer_list)"),
        Some(step) => format!("in steps of {} ms (/proc/stat)", step / 1_000_000),
        None => String::from("by nobody"),
    };
    let link = match plan.link {
        true => {
            "A pair of virtual Ethernet devices lies between server and client; what arrives is worked on by the core \
             of whom it is for.\n"
        }
        false => "",
    };
    format!(
        "\nAll servers are open at the same time, each with a client of its own and {connections} connections. They \
         take turns, with a unit before and after each candidate and the order turned every other round; while one \
         works all others are blocked. After {reopen} rounds all are started afresh. A slice is {messages} messages of {payload} bytes, {outstanding} outstanding on \
         random connections, counted amid the flow after {warmup} that are not. The unit speaks raw TCP, all others \
         WebSocket.\nCompared is all that was done on the server's core, by whomever: the time but what the core was \
         idle for, which is told {source}.\n{link}Ratio: of a slice to the mean of the unit's slices right before and \
         after. Ratio of sums: the same of all core time of a candidate's slices to that of their neighbours. The \
         other figures are medians of the slices.\n",
        messages = plan.messages,
        warmup = plan.slice_warmup,
        reopen = plan.reopen,
    )
}

fn tables(series: &Series<Slice>) -> String {
    let costs = costs(&series.measured);
    let titles: Vec<&str> = series.columns.iter().map(|column| column.title).collect();
    let mut text = format!(
        "\n| who | slices | ratio | quartiles | range | ratio of sums | {} |\n{}\n",
        titles.join(" | "),
        rule(titles.len() + 6)
    );
    for (number, subject) in series.subjects.iter().enumerate() {
        let slices = || series.measured.iter().filter(|one| one.subject == number);
        let mut cells = vec![subject.name.clone(), slices().count().to_string()];
        cells.push(cells_of(ratios(&costs, number)));
        cells.push(number_or_dash(ratio_of_sums(&costs, number), 3));
        for column in series.columns {
            let figures = Spread::of(slices().map(|one| (column.figure)(&one.report)));
            cells.push(number_or_dash(figures.map(|figures| figures.median), column.decimals));
        }
        let _ = writeln!(text, "| {} |", cells.join(" | "));
    }
    text + &deciles(series, &costs) + &pairs(series, &costs)
}

/// Median, quartiles and range as three cells.
fn cells_of(figures: Vec<f64>) -> String {
    Distribution::of(figures).map_or(String::from("- | - | -"), |figures| figures.cells(3))
}

fn number_or_dash(figure: Option<f64>, decimals: usize) -> String {
    figure.map_or(String::from("-"), |figure| format!("{figure:.decimals$}"))
}

/// How the ratios of each are spread.
fn deciles(series: &Series<Slice>, costs: &[Sample]) -> String {
    let inner: Vec<String> = (1..10).map(|tenth| format!("{tenth}0 %")).collect();
    let mut text = format!(
        "\nThe ratios by tenths:\n\n| who | smallest | {} | largest |\n{}\n",
        inner.join(" | "),
        rule(12)
    );
    for (number, subject) in series.subjects.iter().enumerate() {
        let Some(ratios) = Distribution::of(ratios(costs, number)) else { continue };
        let tenths: Vec<String> =
            (0..=10).map(|tenth| format!("{:.3}", ratios.at(f64::from(tenth) / 10.0))).collect();
        let _ = writeln!(text, "| {} | {} |", subject.name, tenths.join(" | "));
    }
    text
}

/// Each later candidate in terms of the first, round by round.
fn pairs(series: &Series<Slice>, costs: &[Sample]) -> String {
    let [_, first, others @ ..] = &series.subjects[..] else { return String::new() };
    let mut lines = String::new();
    for (number, other) in (2..).zip(others) {
        let of_rounds = quotients(&ratios(costs, number), &ratios(costs, 1));
        let sums = ratio_of_sums(costs, number).zip(ratio_of_sums(costs, 1));
        let sums = number_or_dash(sums.map(|(other, first)| other / first), 3);
        let cells = cells_of(of_rounds);
        let _ = writeln!(lines, "| {} / {} | {cells} | {sums} |", other.name, first.name);
    }
    if lines.is_empty() {
        return lines;
    }
    let head = "| what | quotient of the ratios | quartiles | range | of the ratios of sums |";
    format!("\nCandidates beside the first one, round by round:\n\n{head}\n{}\n{lines}", rule(5))
}

/// The budgets are those of loopback.
fn budgets(plan: &Plan, series: &Series<Slice>) -> String {
    if plan.link { String::new() } else { series.budgets(plan.budgets) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series() -> Series<Slice> {
        let subject = |name: &str| Subject { name: name.to_owned(), ..Subject::default() };
        let slice = |cost: f64| Slice {
            server_core_ns_per_message: cost,
            server_cpu_ns_per_message: cost,
            messages_per_s: 1e9 / cost,
            p50_us: 1.0,
            p99_us: 2.0,
            server_busy: 1.0,
            client_busy: 0.5,
        };
        // The machine slows down throughout; a costs half a unit, b two.
        let costs =
            |at: usize, subject: usize| (1_000.0 + 100.0 * at as f64) * [1.0, 0.5, 2.0][subject];
        let order = order(2, 4).into_iter().enumerate();
        let measured = order
            .map(|(at, subject)| Measured { subject, report: slice(costs(at, subject)) })
            .collect();
        Series { subjects: ["unit", "a", "b"].map(subject).to_vec(), measured, columns: COLUMNS }
    }

    fn line<'a>(text: &'a str, start: &str) -> &'a str {
        text.lines().find(|line| line.starts_with(start)).unwrap_or_else(|| panic!("{text}"))
    }

    #[test]
    fn a_table_has_ratios_and_medians_of_everybody() {
        let text = tables(&series());
        let a = line(&text, "| a | 4 |");
        assert!(a.starts_with("| a | 4 | 0.500 | 0.500-0.500 | 0.500-0.500 | 0.500 | "), "{a}");
        // Slices 1, 7, 9 and 15 are a's: the middle two cost 850 and 950.
        assert!(a.contains("| 0.90 | 0.90 |"), "{a}");
        let b = line(&text, "| b | 4 |");
        assert!(b.starts_with("| b | 4 | 2.000 | 2.000-2.000 | 2.000-2.000 | 2.000 | "), "{b}");
        assert!(line(&text, "| unit | 9 | 1.000 | 1.000-1.000 |").contains("| 1.80 |"));
        let columns = |line: &str| line.matches('|').count();
        assert_eq!(columns(line(&text, "| who | slices |")), columns(a));
    }

    #[test]
    fn tenths_and_pairs_have_a_line_for_each() {
        let text = tables(&series());
        let tenths = text.lines().filter(|line| line.matches("2.000").count() == 11).count();
        assert_eq!(tenths, 1, "{text}");
        assert_eq!(
            line(&text, "| b / a |"),
            "| b / a | 4.000 | 4.000-4.000 | 4.000-4.000 | 4.000 |"
        );
        let mut alone = series();
        alone.subjects.truncate(2);
        alone.measured.retain(|one| one.subject < 2);
        assert!(!tables(&alone).contains("quotient"), "nobody to compare with");
    }

    #[test]
    fn all_rounds_are_in_a_set() {
        assert_eq!(sets(25, 10).collect::<Vec<_>>(), [0..10, 10..20, 20..25]);
        assert_eq!(sets(6, 10).map(|rounds| rounds.len()).collect::<Vec<_>>(), [6]);
    }

    #[test]
    fn the_order_of_opening_turns() {
        assert_eq!(opening(3, 0).collect::<Vec<_>>(), [0, 1, 2]);
        assert_eq!(opening(3, 1).collect::<Vec<_>>(), [2, 1, 0]);
    }

    #[test]
    fn clients_have_ranges_of_connections_of_their_own() {
        let load = Load { connections: 15_000, outstanding: 500, payload: 512 };
        let plan = Plan {
            load,
            rounds: 40,
            reopen: 4,
            messages: 30_000,
            warmup: 100_000,
            slice_warmup: 2_000,
            link: false,
            budgets: &[],
        };
        let first = |place| options(&plan, place).last().cloned().unwrap();
        assert_eq!(first(0), "--first-number=0");
        assert_eq!(first(2), "--first-number=30000");
        assert!(head(&plan, Some(10_000_000)).contains("in steps of 10 ms"));
        assert!(head(&plan, Some(1)).contains("in nanoseconds"));
    }
}
