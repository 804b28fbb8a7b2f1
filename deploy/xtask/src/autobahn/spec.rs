//! Which cases there are, and the file that tells the suite.

use std::path::Path;

use serde_json::json;

/// A choice of cases.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Profile {
    /// Framing, fragments, UTF-8, closing: groups 1-7 and 10, at the limits of production.
    Quick,
    /// The same and group 9: messages of up to 16 MiB.
    Core,
    /// Small cases of permessage-deflate, a thousand messages each: five of each of groups
    /// 12.1-12.5 and 13.1-13.7.
    Deflate,
    /// All of them.
    Full,
}

/// Subgroups about permessage-deflate: by content, and by the parameters agreed on.
const DEFLATE_GROUPS: [&str; 12] = [
    "12.1", "12.2", "12.3", "12.4", "12.5", "13.1", "13.2", "13.3", "13.4", "13.5", "13.6", "13.7",
];
/// In each: messages of 16, 64 and 256 bytes, and two sizes cut in fragments.
const SMALL: [&str; 5] = ["1", "2", "3", "10", "11"];

impl Profile {
    /// As on the command line.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Quick => "quick",
            Self::Core => "core",
            Self::Deflate => "deflate",
            Self::Full => "full",
        }
    }

    /// Cases it has, in the version of the suite that we build. A report with fewer is not
    /// whole.
    pub(super) fn cases(self) -> usize {
        match self {
            Self::Quick => 247,
            Self::Core => 301,
            Self::Deflate => DEFLATE_GROUPS.len() * SMALL.len(),
            Self::Full => 517,
        }
    }

    /// Far beyond what it takes.
    pub(super) fn limit_minutes(self) -> u64 {
        match self {
            Self::Quick => 8,
            Self::Deflate | Self::Core => 20,
            Self::Full => 120,
        }
    }

    /// Whether messages exceed the limit of production.
    pub(super) fn large_messages(self) -> bool {
        self != Self::Quick
    }

    /// Whether permessage-deflate is offered.
    pub(super) fn compressed(self) -> bool {
        matches!(self, Self::Deflate | Self::Full)
    }

    /// Patterns of case numbers.
    fn patterns(self) -> Vec<String> {
        let groups = |groups: &[u32]| groups.iter().map(|group| format!("{group}.*")).collect();
        match self {
            Self::Quick => groups(&[1, 2, 3, 4, 5, 6, 7, 10]),
            Self::Core => groups(&[1, 2, 3, 4, 5, 6, 7, 9, 10]),
            Self::Deflate => DEFLATE_GROUPS
                .iter()
                .flat_map(|group| SMALL.iter().map(move |case| format!("{group}.{case}")))
                .collect(),
            Self::Full => vec![String::from("*")],
        }
    }
}

/// The specification that `wstest -m fuzzingclient` reads.
pub(super) fn spec(profile: Profile, agent: &str, url: &str, reports: &Path) -> String {
    let spec = json!({
        // After a fault the suite closes as the protocol says, and waits for our close.
        "options": { "failByDrop": false },
        "outdir": reports,
        "servers": [{ "agent": agent, "url": url, "options": { "version": 18 } }],
        "cases": profile.patterns(),
        "exclude-cases": [],
        "exclude-agent-cases": {},
    });
    format!("{spec:#}\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::ValueEnum;
    use serde_json::Value;

    fn read(profile: Profile) -> Value {
        let text = spec(profile, "it", "ws://127.0.0.1:7/", Path::new("/tmp/out/report"));
        serde_json::from_str(&text).unwrap()
    }

    #[test]
    fn the_file_names_server_cases_and_folder() {
        let spec = read(Profile::Quick);
        assert_eq!(spec["outdir"], "/tmp/out/report");
        assert_eq!(spec["servers"][0]["agent"], "it");
        assert_eq!(spec["servers"][0]["url"], "ws://127.0.0.1:7/");
        assert_eq!(spec["options"]["failByDrop"], false);
        let cases: Vec<_> = spec["cases"].as_array().unwrap().iter().collect();
        assert_eq!(cases, ["1.*", "2.*", "3.*", "4.*", "5.*", "6.*", "7.*", "10.*"]);
    }

    #[test]
    fn only_core_and_full_have_the_large_messages_of_group_9() {
        let has = |profile| read(profile)["cases"].as_array().unwrap().contains(&"9.*".into());
        assert!(has(Profile::Core) && !has(Profile::Quick) && !has(Profile::Deflate));
        assert_eq!(read(Profile::Full)["cases"], json!(["*"]));
    }

    #[test]
    fn the_small_deflate_cases_are_named_one_by_one() {
        let spec = read(Profile::Deflate);
        let cases = spec["cases"].as_array().unwrap();
        assert_eq!(cases.len(), Profile::Deflate.cases());
        assert!(cases.contains(&"12.1.1".into()) && cases.contains(&"13.7.11".into()));
        assert!(cases.iter().all(|case| !case.as_str().unwrap().contains('*')));
    }

    #[test]
    fn names_are_those_of_the_command_line() {
        for profile in Profile::value_variants() {
            assert_eq!(Profile::from_str(profile.name(), false), Ok(*profile));
        }
    }
}
