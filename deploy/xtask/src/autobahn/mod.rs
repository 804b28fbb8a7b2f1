//! `cargo xtask autobahn`: the WebSocket conformance suite Autobahn|Testsuite against
//! `gateway echo`.

mod python;
mod report;
mod spec;
mod suite;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use anyhow::{Context, bail};

pub(crate) use report::Report;
pub(crate) use spec::Profile;
pub(crate) use suite::Suite;

use crate::build::{self, GATEWAY};
use crate::interrupt::Interrupt;
use crate::job::{self, Line};
use crate::repo::Repo;
use crate::server::Server;

/// How the report names the server.
const AGENT: &str = "corelane";
/// Lines of the suite shown when it ends badly.
const LAST_LINES: usize = 15;

/// Which cases to run, with what, and where the report goes.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Which cases.
    #[arg(value_enum, default_value_t = Profile::Quick)]
    profile: Profile,
    /// A folder with a ready suite (bin/wstest in it, or venv/bin/wstest) instead of the one
    /// built and kept in the user's cache folder.
    #[arg(long, env = "AUTOBAHN", value_name = "DIR")]
    suite: Option<PathBuf>,
    /// Where the report goes [default: autobahn/PROFILE in the build folder].
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Further options of `gateway echo`.
    #[arg(last = true, value_name = "OPTIONS")]
    server_options: Vec<String>,
}

/// Runs the cases and prints what came of them, a line for each group.
///
/// # Errors
/// When there is no suite and none can be built, when the gateway does not build, start or stop
/// as it should, or when the suite does not run to its end.
pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let (repo, interrupt) = (Repo::find()?, Interrupt::on_signals()?);
    let suite = match Suite::find(args.suite.as_deref())? {
        Some(suite) => suite,
        None => Suite::build(&interrupt, |line| eprintln!("{line}"))?,
    };
    let gateway = build::build(&repo, GATEWAY, "release", &interrupt)?;
    let bench = Bench {
        suite: &suite,
        gateway: &gateway,
        server_options: &args.server_options,
        interrupt: &interrupt,
        limit: Duration::MAX,
    };
    let report = bench.run(args.profile, args.out.as_deref(), |line| eprintln!("{line}"))?;
    report.lines().iter().for_each(|line| eprintln!("{line}"));
    Ok(if report.good() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The suite and what it tests.
pub(crate) struct Bench<'a> {
    pub(crate) suite: &'a Suite,
    /// A release build of the gateway.
    pub(crate) gateway: &'a Path,
    /// Further options of it.
    pub(crate) server_options: &'a [String],
    pub(crate) interrupt: &'a Interrupt,
    /// The longest that the cases may take, beside the limit that each profile has.
    pub(crate) limit: Duration,
}

impl Bench<'_> {
    /// Runs the cases of a profile against a gateway of its own, on loopback, and reads the
    /// report. `say` gets a line now and then.
    ///
    /// # Errors
    /// As [`run`].
    pub(crate) fn run(
        &self,
        profile: Profile,
        out: Option<&Path>,
        mut say: impl FnMut(&str),
    ) -> anyhow::Result<Report> {
        let out = out.map_or_else(|| self.build_folder(profile), Path::to_path_buf);
        std::fs::create_dir_all(&out).with_context(|| format!("cannot make {}", out.display()))?;
        let out = std::path::absolute(out)?;
        let arguments = self.server_arguments(profile)?;
        say(&format!("gateway {}", arguments.join(" ")));
        let mut command = Command::new(self.gateway);
        // Only the log's last lines are shown: a panic's message, not its backtrace.
        command.env("RUST_BACKTRACE", "0");
        let mut server = Server::start("gateway echo", command.args(&arguments), self.interrupt)?;
        let outcome = self.fuzz(profile, server.address(), &out, &mut say);
        outcome.with_context(|| format!("gateway echo{}", server.tail()))?;
        server.stop()?;
        Report::read(&out.join("report"), profile.cases())
    }

    /// Whether this gateway can compress.
    ///
    /// # Errors
    /// When it cannot be started.
    pub(crate) fn deflates(&self) -> anyhow::Result<bool> {
        Ok(self.help()?.contains("--deflate"))
    }

    fn help(&self) -> anyhow::Result<String> {
        let output = Command::new(self.gateway).args(["echo", "--help"]).output();
        let output = output.with_context(|| format!("cannot start {}", self.gateway.display()))?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Quick cases meet the limits of production. The others send up to 16 MiB, or compressed.
    fn server_arguments(&self, profile: Profile) -> anyhow::Result<Vec<&str>> {
        let mut arguments = vec!["echo", "--listen", "127.0.0.1:0", "--shards", "1"];
        if profile.large_messages() {
            arguments.extend(["--max-message", "67108864"]);
        }
        if profile.compressed() {
            let help = self.help()?;
            if help.contains("--deflate") {
                arguments.push("--deflate");
            } else if profile == Profile::Deflate {
                bail!("this gateway has no --deflate: there is nothing to test");
            }
            if help.contains("--deflate-min-bytes") {
                // In production short messages go as they are; here they are what is tested.
                arguments.extend(["--deflate-min-bytes", "0"]);
            }
        }
        arguments.extend(self.server_options.iter().map(String::as_str));
        Ok(arguments)
    }

    fn build_folder(&self, profile: Profile) -> PathBuf {
        // TARGET/release/gateway
        let target = self.gateway.ancestors().nth(2).unwrap_or_else(|| Path::new("."));
        target.join("autobahn").join(profile.name())
    }

    /// The suite as client. Leaves its report in `out/report`.
    fn fuzz(
        &self,
        profile: Profile,
        address: &str,
        out: &Path,
        say: &mut impl FnMut(&str),
    ) -> anyhow::Result<()> {
        let reports = out.join("report");
        // What an earlier run found must not be taken for ours.
        report::forget(&reports)?;
        let spec = out.join("spec.json");
        let text = spec::spec(profile, AGENT, &format!("ws://{address}/"), &reports);
        std::fs::write(&spec, text).with_context(|| format!("cannot write {}", spec.display()))?;
        let mut command = self.suite.wstest();
        command.args(["-m", "fuzzingclient", "-s"]).arg(&spec).current_dir(out);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut progress = Progress::default();
        let limit = self.limit.min(Duration::from_secs(profile.limit_minutes() * 60));
        let ending = job::run(&mut command, limit, self.interrupt, |line| {
            let (Line::Out(text) | Line::Err(text)) = line;
            if let Some(words) = progress.read(text) {
                say(&words);
            }
        })?;
        ending.check("wstest").with_context(|| progress.last.join("\n  "))
    }
}

/// What the suite says while it runs: one line of ours for each group, or for each subgroup where
/// a case sends a thousand messages.
#[derive(Debug, Default)]
struct Progress {
    group: String,
    last: Vec<String>,
}

impl Progress {
    fn read(&mut self, line: String) -> Option<String> {
        let group = line.strip_prefix("Running test case ID ").map(|rest| {
            let slow = ["9.", "12.", "13."].iter().any(|group| rest.starts_with(group));
            rest.split('.').take(if slow { 2 } else { 1 }).collect::<Vec<_>>().join(".")
        });
        if self.last.len() == LAST_LINES {
            self.last.remove(0);
        }
        self.last.push(line);
        let group = group.filter(|group| *group != self.group)?;
        let words = format!("running cases {group}.*");
        self.group = group;
        Some(words)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Writes programs that stand for the gateway and the suite; the suite reports `behavior`
    /// for as many cases as are asked for. Returns what came of the profile `deflate`.
    fn play(folder: &Path, help: &str, behavior: &str, cases: usize) -> anyhow::Result<Report> {
        use std::os::unix::fs::PermissionsExt;
        let write = |name: &str, text: String| {
            let path = folder.join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
            path
        };
        let gateway = write(
            "target/release/gateway",
            format!(
                "#!/bin/sh\n[ \"$2\" = --help ] && echo '{help}' && exit 0\n\
                 echo $$ > '{0}/gateway.pid'; echo \"$@\" > '{0}/gateway.args'\n\
                 trap 'exit 0' TERM; echo gateway echo ready on 127.0.0.1:1\n\
                 while :; do sleep 0.05; done\n",
                folder.display()
            ),
        );
        let entry = |number: usize| {
            format!(
                r#""12.1.{number}": {{"behavior": "{behavior}", "behaviorClose": "OK",
                    "remoteCloseCode": null, "reportfile": "case_{number}.json"}}"#
            )
        };
        let entries: Vec<String> = (1..=cases).map(entry).collect();
        let index = format!("{{\"it\": {{{}}}}}", entries.join(","));
        let script = format!(
            "#!/bin/sh\n# called as: python wstest -m fuzzingclient -s SPEC\n\
             folder=$(dirname \"$5\")/report; mkdir -p \"$folder\"\n\
             cat > \"$folder/index.json\" <<'END'\n{index}\nEND\n"
        );
        write("suite/bin/python", script);
        write("suite/bin/wstest", String::new());
        let suite = Suite::find(Some(&folder.join("suite"))).unwrap().unwrap();
        let (interrupt, limit) = (Interrupt::default(), Duration::from_secs(60));
        let bench = Bench {
            suite: &suite,
            gateway: &gateway,
            server_options: &[],
            interrupt: &interrupt,
            limit,
        };
        bench.run(Profile::Deflate, None, |_| {})
    }

    fn gateway_is_gone(folder: &Path) -> bool {
        let pid = std::fs::read_to_string(folder.join("gateway.pid")).unwrap();
        !Path::new("/proc").join(pid.trim()).exists()
    }

    #[test]
    fn a_run_ends_with_a_report_and_without_a_server() {
        let folder = tempfile::tempdir().unwrap();
        let report = play(folder.path(), "--deflate  compress", "OK", 60).unwrap();
        assert!(report.good());
        assert!(gateway_is_gone(folder.path()));
        let arguments = std::fs::read_to_string(folder.path().join("gateway.args")).unwrap();
        assert!(arguments.contains("127.0.0.1:0") && arguments.contains("--deflate"));
        let place = folder.path().join("target/autobahn/deflate/report/index.html");
        assert!(report.lines().iter().any(|line| line.ends_with(place.to_str().unwrap())));
    }

    #[test]
    fn a_bad_case_fails_the_run_and_so_does_a_missing_one() {
        let folder = tempfile::tempdir().unwrap();
        assert!(!play(folder.path(), "--deflate", "FAILED", 60).unwrap().good());
        assert!(play(folder.path(), "--deflate", "OK", 59).is_err());
        assert!(gateway_is_gone(folder.path()));
    }

    #[test]
    fn compressed_cases_need_a_gateway_that_compresses() {
        let folder = tempfile::tempdir().unwrap();
        let error = play(folder.path(), "--listen", "OK", 60).unwrap_err().to_string();
        assert!(error.contains("--deflate"), "{error}");
    }

    #[test]
    fn a_group_is_announced_once() {
        let mut progress = Progress::default();
        let mut read = |line: &str| progress.read(line.to_owned());
        let case = |id| format!("Running test case ID {id} for agent corelane from peer tcp4");
        assert_eq!(read("Using explicit spec file"), None);
        assert_eq!(read(&case("7.1.1")).as_deref(), Some("running cases 7.*"));
        assert_eq!(read(&case("7.13.2")), None);
        assert_eq!(read(&case("9.1.1")).as_deref(), Some("running cases 9.1.*"));
        assert_eq!(read(&case("9.1.2")), None);
        assert_eq!(read(&case("9.2.1")).as_deref(), Some("running cases 9.2.*"));
        assert_eq!(read(&case("10.1.1")).as_deref(), Some("running cases 10.*"));
        for number in 0..100 {
            read(&number.to_string());
        }
        assert_eq!(progress.last.len(), LAST_LINES);
        assert_eq!(progress.last.last().map(String::as_str), Some("99"));
    }
}
