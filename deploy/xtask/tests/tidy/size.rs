//! A file is read in one sitting.

use crate::tree::Tree;

/// A file with more lines asks for a second room.
const MAX_LINES: usize = 500;
/// Manifests and data are not read like code.
const CODE: [&str; 7] = ["rs", "ts", "tsx", "mjs", "css", "c", "proto"];

/// Checks every source file.
pub(crate) fn check(tree: &Tree, faults: &mut Vec<String>) {
    for (path, text) in tree.files() {
        let extension = path.rsplit_once('.').map_or("", |(_, extension)| extension);
        let lines = text.lines().count();
        if CODE.contains(&extension) && lines > MAX_LINES {
            faults.push(format!("{path}: has {lines} lines, more than {MAX_LINES}"));
        }
    }
}
