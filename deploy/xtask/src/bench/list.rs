//! `bench --list`.

use std::fmt::Write;

use clap::ValueEnum;

use super::candidates::{Echo, Origin};

/// What can be measured, and by what.
pub(super) fn text() -> String {
    let mut text = String::from(
        "cargo xtask bench MEASUREMENT [OPTIONS]; each has --help\n\n\
         echo         core time a message against a bare epoll echo in C (budgets P2, P3);\n             \
                      with --slices all servers at once, taking turns: scatters less\n\
         fanout       core time a delivery, 1 sender to 10,000, against a bare send loop in C (P4):\n             \
                      corelane, uws, gws, ws, unit\n\
         idle-memory  bytes a connection, idle and after a load (P1): corelane and those of echo\n\
         establish    connections a second, upgrade and login included (P6):\n             \
                      corelane by name and by token; gateway echo and uws without login\n\
         codec        instructions and allocations a frame, beside two peers (P7)\n\
         large-group  the cluster form: 10,000 members, 2,000 online, 50 messages/s, switched between the two\n             \
                      ways of fan-out meanwhile; every delivery checked, latencies\n\
         all          echo, fanout, idle-memory and establish, one after the other\n\
         smoke        every candidate of every measurement with small numbers\n\n\
         Results go to bench/results. Candidates of echo:\n",
    );
    for candidate in Echo::value_variants() {
        let Some(value) = candidate.to_possible_value() else { continue };
        let help = value.get_help().map(ToString::to_string).unwrap_or_default();
        let _ = write!(text, "  {:<18} {help}", value.get_name());
        if let Origin::Theirs(peer) = candidate.origin() {
            let missing = peer.missing_tools();
            if !missing.is_empty() {
                let _ = write!(text, " (left out here: no {} on the path)", missing.join(", "));
            }
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_candidate_is_listed() {
        let text = text();
        for candidate in Echo::value_variants() {
            let value = candidate.to_possible_value().unwrap();
            assert!(text.contains(&format!("  {} ", value.get_name())), "{text}");
        }
        for name in ["echo", "fanout", "idle-memory", "establish", "large-group", "all", "smoke"] {
            assert!(text.contains(&format!("\n{name} ")), "{name}");
        }
    }
}
