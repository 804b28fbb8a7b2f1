//! Servers of others: built from their registries' sources with the authors' own settings. And a
//! floor of our own, the bare probe, which is built beside them.
//!
//! Nothing of theirs lies in this repository but our small main files (`bench/peers`). What is
//! downloaded and built goes to `peers` in cargo's target folder.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, bail};
use serde::Deserialize;

use super::instrument::Subject;
use crate::interrupt::Interrupt;
use crate::job::{self, Line};
use crate::repo::{Repo, cargo, on_path};

/// A cold build on one busy core stays well below.
const LIMIT: Duration = Duration::from_secs(20 * 60);

/// A server of others, or our bare probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Peer {
    BareProbe,
    Uws,
    Fastwebsockets,
    TokioTungstenite,
    TokioWebsockets,
    Gws,
    Gorilla,
    Ws,
}

/// How a peer is built.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Build {
    /// A binary of the workspace in `bench/peers`.
    Cargo,
    /// C++, with the source inside a crate.
    Uws,
    /// A package of the module in `bench/peers/go`.
    Go,
    /// The package in `bench/peers/ws`.
    Npm,
}

impl Peer {
    /// Its name in tables, on the command line, and of its program.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::BareProbe => "bare-probe",
            Self::Uws => "uws",
            Self::Fastwebsockets => "fastwebsockets",
            Self::TokioTungstenite => "tokio-tungstenite",
            Self::TokioWebsockets => "tokio-websockets",
            Self::Gws => "gws",
            Self::Gorilla => "gorilla",
            Self::Ws => "ws",
        }
    }

    fn build(self) -> Build {
        match self {
            Self::Uws => Build::Uws,
            Self::BareProbe
            | Self::Fastwebsockets
            | Self::TokioTungstenite
            | Self::TokioWebsockets => Build::Cargo,
            Self::Gws | Self::Gorilla => Build::Go,
            Self::Ws => Build::Npm,
        }
    }

    /// Its binary, if cargo builds it.
    fn binary(self) -> String {
        match self {
            Self::BareProbe => String::from("bare_probe"),
            other => format!("{}_echo", other.name().replace('-', "_")),
        }
    }

    /// What its build needs and this machine does not have.
    pub(super) fn missing_tools(self) -> Vec<&'static str> {
        let tools: &[&str] = match self.build() {
            Build::Cargo => &[],
            Build::Uws => &["cc", "c++"],
            Build::Go => &["go"],
            Build::Npm => &["node", "npm"],
        };
        tools.iter().copied().filter(|tool| !on_path(tool)).collect()
    }
}

/// Builds peers below one folder.
#[derive(Debug)]
pub(super) struct Workshop<'a> {
    repo: &'a Repo,
    folder: PathBuf,
    interrupt: &'a Interrupt,
}

impl<'a> Workshop<'a> {
    /// Next to `built`, a program of ours: in the same target folder, as `peers`.
    ///
    /// # Errors
    /// When that folder cannot be made.
    pub(super) fn beside(
        built: &Path,
        repo: &'a Repo,
        interrupt: &'a Interrupt,
    ) -> anyhow::Result<Self> {
        let target = built.ancestors().nth(2).context("a program outside a target folder")?;
        let folder = target.join("peers");
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        Ok(Self { repo, folder, interrupt })
    }

    /// Builds a peer and describes it as an echo server, or as one that sends every message to
    /// all.
    ///
    /// # Errors
    /// When a tool is missing or the build fails, with the reason: the peer is then left out.
    pub(super) fn subject(&self, peer: Peer, broadcast: bool) -> anyhow::Result<Subject> {
        let missing = peer.missing_tools();
        if !missing.is_empty() {
            bail!("not on the path: {}", missing.join(", "));
        }
        let (program, script) = self.build(peer)?;
        let mut arguments: Vec<String> = script.into_iter().collect();
        arguments.extend(["--listen", "127.0.0.1:0"].map(String::from));
        arguments.extend(broadcast.then(|| String::from("--broadcast")));
        Ok(Subject {
            name: peer.name().to_owned(),
            program,
            arguments,
            client_options: vec![String::from("--protocol=ws")],
            ..Subject::default()
        })
    }

    /// Our own gateway with a feature that it is not built with by default, as a copy of
    /// `program`, which is overwritten.
    ///
    /// # Errors
    /// When it does not build.
    pub(super) fn build_gateway(
        &self,
        feature: &str,
        profile: &str,
        program: &Path,
    ) -> anyhow::Result<PathBuf> {
        eprintln!("building gateway with {feature}");
        let mut command = Command::new(cargo());
        command.current_dir(self.repo.root()).args(["build", "--locked", "--profile", profile]);
        command.args(["--package=gateway", "--bin=gateway", "--features", feature]);
        self.run(&mut command)?;
        let copy = self.folder.join(format!("gateway-{feature}"));
        fs::copy(program, &copy).with_context(|| format!("cannot copy {}", program.display()))?;
        Ok(copy)
    }

    /// The program, and the script it runs if it is an interpreter.
    fn build(&self, peer: Peer) -> anyhow::Result<(PathBuf, Option<String>)> {
        match peer.build() {
            Build::Cargo => self.build_with_cargo(peer).map(|program| (program, None)),
            Build::Uws => self.build_uws().map(|program| (program, None)),
            Build::Go => self.build_with_go(peer).map(|program| (program, None)),
            Build::Npm => {
                let script = self.build_with_npm()?;
                Ok((PathBuf::from("node"), Some(script.display().to_string())))
            }
        }
    }

    fn build_with_cargo(&self, peer: Peer) -> anyhow::Result<PathBuf> {
        let binary = peer.binary();
        let mut command = self.cargo("build");
        command.args(["--profile=dist", "--bin", &binary]);
        command.arg("--target-dir").arg(&self.folder);
        self.run(&mut command)?;
        Ok(self.folder.join("dist").join(binary))
    }

    /// As its own makefile does, without TLS and compression; warnings are its authors'.
    fn build_uws(&self) -> anyhow::Result<PathBuf> {
        const COMMON: [&str; 5] = ["-w", "-O3", "-march=native", "-flto=auto", "-DLIBUS_NO_SSL"];
        let source = self.uws_source()?;
        let main = self.repo.path("bench/peers/uws/main.cpp");
        let folder = self.folder.join("uws-build");
        let program = folder.join("uws");
        let stamp = format!("{}\n{COMMON:?}\n{}", source.display(), fs::read_to_string(&main)?);
        if self.is_done(&folder, &stamp) && program.is_file() {
            return Ok(program);
        }
        fs::create_dir_all(&folder)?;
        let sockets = source.join("uSockets/src");
        let mut compile = Command::new("cc");
        compile.current_dir(&folder).args(COMMON).args(["-std=c11", "-c"]);
        compile.arg("-I").arg(&sockets);
        for part in ["", "eventing", "crypto"] {
            compile.args(files(&sockets.join(part), "c")?);
        }
        self.run(&mut compile)?;
        let mut link = Command::new("c++");
        link.current_dir(&folder).args(COMMON).args(["-std=c++20", "-DUWS_NO_ZLIB"]);
        link.arg("-I").arg(source.join("src")).arg("-I").arg(&sockets);
        link.arg(&main).args(files(&folder, "o")?).arg("-o").arg(&program);
        self.run(&mut link)?;
        fs::write(folder.join("stamp"), stamp)?;
        Ok(program)
    }

    /// Where cargo unpacked the crate with the source of uWebSockets inside.
    fn uws_source(&self) -> anyhow::Result<PathBuf> {
        #[derive(Deserialize)]
        struct Metadata {
            packages: Vec<Package>,
        }
        #[derive(Deserialize)]
        struct Package {
            name: String,
            manifest_path: PathBuf,
        }
        let mut command = self.cargo("metadata");
        command.args(["--format-version=1", "--features=uws-source"]);
        let json = self.run(&mut command)?;
        let metadata: Metadata = serde_json::from_str(&json).context("cargo's metadata")?;
        let package = metadata.packages.iter().find(|one| one.name == "libuwebsockets-sys");
        let folder = package.and_then(|package| package.manifest_path.parent());
        let source = folder.context("no libuwebsockets-sys in the lock file")?.join("uWebSockets");
        if !source.join("src/App.h").is_file() {
            bail!("{} holds no uWebSockets", source.display());
        }
        Ok(source)
    }

    fn build_with_go(&self, peer: Peer) -> anyhow::Result<PathBuf> {
        let program = self.folder.join("go").join(peer.name());
        let mut command = Command::new("go");
        command.current_dir(self.repo.path("bench/peers/go"));
        command.args(["build", "-mod=readonly", "-buildvcs=false", "-o"]);
        command.arg(&program).arg(format!("./{}", peer.name()));
        self.run(&mut command)?;
        Ok(program)
    }

    fn build_with_npm(&self) -> anyhow::Result<PathBuf> {
        let from = self.repo.path("bench/peers/ws");
        let folder = self.folder.join("ws");
        fs::create_dir_all(&folder)?;
        for file in ["package.json", "package-lock.json", "server.mjs"] {
            fs::copy(from.join(file), folder.join(file))
                .with_context(|| format!("cannot copy {file}"))?;
        }
        let stamp = fs::read_to_string(folder.join("package-lock.json"))?;
        if !self.is_done(&folder, &stamp) {
            let mut command = Command::new("npm");
            command.current_dir(&folder).args(["ci", "--no-audit", "--no-fund"]);
            self.run(&mut command)?;
            fs::write(folder.join("stamp"), stamp)?;
        }
        Ok(folder.join("server.mjs"))
    }

    fn cargo(&self, what: &str) -> Command {
        let mut command = Command::new(cargo());
        command.current_dir(self.repo.root()).args([what, "--locked", "--manifest-path"]);
        command.arg(self.repo.path("bench/peers/Cargo.toml"));
        command
    }

    /// Whether the last build in this folder was of the same things.
    fn is_done(&self, folder: &Path, stamp: &str) -> bool {
        fs::read_to_string(folder.join("stamp")).is_ok_and(|text| text == stamp)
    }

    /// Runs one step of a build; its standard output.
    fn run(&self, command: &mut Command) -> anyhow::Result<String> {
        let name = command.get_program().to_string_lossy().into_owned();
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let (mut output, mut faults) = (String::new(), Vec::new());
        let ending = job::run(command, LIMIT, self.interrupt, |line| match line {
            Line::Out(text) => output += &(text + "\n"),
            Line::Err(text) => faults.push(text),
        })?;
        let last = &faults[faults.len().saturating_sub(8)..];
        ending.check(&name).with_context(|| last.join("\n  "))?;
        Ok(output)
    }
}

/// The files of a folder with this extension, sorted.
fn files(folder: &Path, extension: &str) -> anyhow::Result<Vec<PathBuf>> {
    let entries =
        fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let mut files = Vec::new();
    for entry in entries {
        let path = entry?.path();
        if path.extension().is_some_and(|found| found == extension) {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_found_by_extension() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["b.c", "a.c", "c.h", "c"] {
            fs::write(folder.path().join(name), "").unwrap();
        }
        let names: Vec<_> = files(folder.path(), "c").unwrap();
        let names: Vec<_> = names.iter().map(|path| path.file_name().unwrap()).collect();
        assert_eq!(names, ["a.c", "b.c"]);
        assert!(files(&folder.path().join("none"), "c").is_err());
    }

    /// The sources named here are where they are said to be.
    #[test]
    fn the_sources_are_there() {
        let repo = Repo::find().unwrap();
        let [a, b, c] = [Peer::Fastwebsockets, Peer::TokioTungstenite, Peer::TokioWebsockets];
        for peer in [Peer::BareProbe, a, b, c] {
            assert!(repo.path(&format!("bench/peers/src/bin/{}.rs", peer.binary())).is_file());
        }
        for peer in [Peer::Gws, Peer::Gorilla] {
            assert!(repo.path(&format!("bench/peers/go/{}/main.go", peer.name())).is_file());
        }
        assert!(repo.path("bench/peers/uws/main.cpp").is_file());
        assert!(repo.path("bench/peers/ws/server.mjs").is_file());
    }
}
