//! The files of a checkout, or of a made-up one.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// Folders that hold no source of ours.
const LEFT_OUT: [&str; 8] =
    ["target", "node_modules", "dist", ".git", ".corelane", "coverage", ".vite", "results"];
/// Files that are read.
const READ: [&str; 9] = ["rs", "toml", "ts", "tsx", "mjs", "css", "c", "proto", "sql"];

/// Text of files by their path from the root, with `/` between the parts.
#[derive(Debug, Default)]
pub(crate) struct Tree(BTreeMap<String, String>);

impl Tree {
    /// Reads a checkout.
    pub(crate) fn read(root: &Path) -> Self {
        let mut tree = Self::default();
        tree.read_folder(root, "");
        tree
    }

    fn read_folder(&mut self, folder: &Path, prefix: &str) {
        for entry in fs::read_dir(folder).expect("a readable checkout") {
            let entry = entry.expect("a readable checkout");
            let name = entry.file_name().to_string_lossy().into_owned();
            let path = format!("{prefix}{name}");
            let extension = name.rsplit_once('.').map_or("", |(_, extension)| extension);
            let kind = entry.file_type().expect("a readable checkout");
            if kind.is_dir() && !LEFT_OUT.contains(&name.as_str()) {
                self.read_folder(&entry.path(), &format!("{path}/"));
            } else if kind.is_file() && READ.contains(&extension) {
                // Files come and go while others build; one that went is no fault.
                if let Ok(text) = fs::read_to_string(entry.path()) {
                    self.0.insert(path, text);
                }
            }
        }
    }

    /// A made-up checkout.
    pub(crate) fn of(files: &[(&str, &str)]) -> Self {
        Self(files.iter().map(|(path, text)| (path.to_string(), text.to_string())).collect())
    }

    /// One file.
    pub(crate) fn get(&self, path: &str) -> Option<&str> {
        self.0.get(path).map(String::as_str)
    }

    /// All files.
    pub(crate) fn files(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(path, text)| (path.as_str(), text.as_str()))
    }

    /// The Rust files below a folder, by their path from that folder.
    pub(crate) fn rust_below(&self, folder: &str) -> impl Iterator<Item = (&str, &str)> {
        let prefix = format!("{folder}/");
        self.files().filter_map(move |(path, text)| {
            let inside = path.strip_prefix(&prefix)?;
            inside.ends_with(".rs").then_some((inside, text))
        })
    }

    /// How many files have this extension.
    pub(crate) fn count(&self, extension: &str) -> usize {
        let ending = format!(".{extension}");
        self.0.keys().filter(|path| path.ends_with(&ending)).count()
    }
}
