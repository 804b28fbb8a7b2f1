//! `bench idle-memory`: what an idle connection holds in the server's own memory.

use std::fmt::Write;
use std::path::Path;

use anyhow::bail;

use super::instrument::{Instrument, Report, Subject, gateway_echo};
use super::ratio::Spread;
use super::{Common, host};
use crate::build::{self, CORELANE, GATEWAY};
use crate::interrupt::Interrupt;
use crate::pinned::raise_file_limit;
use crate::repo::Repo;
use crate::scratch::Scratch;

/// Connections opened before the first reading, so that what is made once is not counted.
const WARM_CONNECTIONS: &str = "100";

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    common: Common,
    /// Fresh servers of each kind.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
}

/// Measures both servers and writes the result.
///
/// # Errors
/// When something does not build or a server answers wrongly.
pub(super) fn run(args: &Args, repo: &Repo, interrupt: &Interrupt) -> anyhow::Result<()> {
    if args.rounds == 0 {
        bail!("--rounds must be at least 1");
    }
    raise_file_limit()?;
    let instrument = Instrument::build(repo, &args.common, interrupt)?;
    let profile = &args.common.profile;
    let gateway = gateway_echo(build::build(repo, GATEWAY, profile, interrupt)?);
    let corelane = build::build(repo, CORELANE, profile, interrupt)?;
    let every = args.common.connections.to_string();
    let mut rows = vec![(gateway.name.clone(), Vec::new()), (String::from("corelane"), Vec::new())];
    for round in 0..args.rounds {
        let options = ["--messages", "100000", "--warmup", "0"];
        rows[0].1.push(instrument.measure(&gateway, &with_warm(&options))?);
        let data = Scratch::create(&format!("idle-{round}"))?;
        let subject = logged_in(&corelane, data.path(), args.common.connections);
        // One heartbeat a connection.
        let options = ["--messages", &every, "--warmup", "0", "--order", "sweep"];
        rows[1].1.push(instrument.measure(&subject, &with_warm(&options))?);
        for (name, reports) in &rows {
            let Some(Report { memory, connect_ms, .. }) = reports.last() else { continue };
            eprintln!(
                "{name:<14} idle {:>6.0} after {:>6.0} bytes a connection, connected in {connect_ms:.0} ms",
                memory.idle_bytes_per_connection, memory.after_bytes_per_connection,
            );
        }
    }
    let text =
        host::head("Idle memory: user bytes per WebSocket connection", repo) + &result(args, &rows);
    eprint!("{text}");
    if !args.common.dry_run {
        eprintln!("written to {}", host::write(repo, "idle-memory", &text)?.display());
    }
    Ok(())
}

fn with_warm<'a>(options: &[&'a str]) -> Vec<&'a str> {
    [options, &["--warm-connections", WARM_CONNECTIONS]].concat()
}

/// The embedded server; every connection logs in as a user of its own.
fn logged_in(program: &Path, data: &Path, connections: usize) -> Subject {
    let words = |line: &str| line.split(' ').map(String::from).collect::<Vec<_>>();
    let mut arguments = words("--listen 127.0.0.1:0 --dev-login --shards 1 --data-dir");
    arguments.push(data.display().to_string());
    let limit = (connections + 1_000).to_string();
    Subject {
        name: String::from("corelane"),
        program: program.to_path_buf(),
        arguments,
        environment: vec![(String::from("CORELANE_MAX_CONNECTIONS"), limit)],
        client_options: words("--protocol corelane --path /ws?user_id=u{n}"),
        stops_cleanly: true,
    }
}

fn result(args: &Args, rows: &[(String, Vec<Report>)]) -> String {
    let Common { connections, outstanding, payload, .. } = args.common;
    let mut text = format!(
        "\n{connections} connections, the first {WARM_CONNECTIONS} of them opened before the \
         first reading. Growth of the process's private dirty pages, divided by the connections \
         opened since.\nAfter: for gateway echo 100,000 echoes of {payload} bytes, {outstanding} \
         outstanding; for corelane one heartbeat on each connection, each a user of its own.\n\
         Median (smallest-largest) of {} fresh servers.\n\n\
         | who | user bytes a connection, idle | after | RSS before, MB | idle | after | of it in huge pages | \
         connections/s |\n|---|---|---|---|---|---|---|---|\n",
        args.rounds,
    );
    let measured = connections as f64 - WARM_CONNECTIONS.parse().unwrap_or(0.0);
    for (name, reports) in rows {
        let spread = |figure: &dyn Fn(&Report) -> f64, decimals| {
            Spread::of(reports.iter().map(figure))
                .map_or(String::from("-"), |spread| spread.show(decimals))
        };
        let mb = |bytes: u64| bytes as f64 / 1e6;
        let columns = [
            name.clone(),
            spread(&|report| report.memory.idle_bytes_per_connection, 0),
            spread(&|report| report.memory.after_bytes_per_connection, 0),
            spread(&|report| mb(report.memory.before.rss_bytes), 1),
            spread(&|report| mb(report.memory.idle.rss_bytes), 1),
            spread(&|report| mb(report.memory.after.rss_bytes), 1),
            spread(&|report| mb(report.memory.after.huge_page_bytes), 1),
            spread(&|report| measured / report.connect_ms * 1e3, 0),
        ];
        let _ = writeln!(text, "| {} |", columns.join(" | "));
    }
    text
}
