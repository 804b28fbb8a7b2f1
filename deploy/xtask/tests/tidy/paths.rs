//! The paths a file names, as seen from the root of its crate.

use std::collections::BTreeSet;

use crate::lexer::{Token, lex};
use crate::rules::{Crate, OUTSIDE};
use crate::tree::Tree;

/// A path named in a file, or a single word of its code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Named {
    /// `crate`, then the parts below; or the other crate's name, then its parts.
    pub(crate) parts: Vec<String>,
    /// Where.
    pub(crate) line: usize,
    /// Whether only tests compile it.
    pub(crate) test: bool,
}

/// One file of a crate.
#[derive(Debug)]
pub(crate) struct File {
    /// From the root of the repository.
    pub(crate) path: String,
    /// The room it belongs to: the top module below `src`; `main` for the roots and binaries,
    /// [`OUTSIDE`] for what is not below `src`.
    pub(crate) room: String,
    /// Rooms of the crate.
    pub(crate) rooms: BTreeSet<String>,
    /// Paths it names.
    pub(crate) named: Vec<Named>,
    /// Its code.
    pub(crate) tokens: Vec<Token>,
    /// For each token, whether only tests compile it.
    pub(crate) in_test: Vec<bool>,
}

/// The room of crate roots and binaries.
pub(crate) const MAIN: &str = "main";

/// All Rust files of a crate.
pub(crate) fn read_crate(tree: &Tree, rules: &Crate) -> Vec<File> {
    let mut rooms: BTreeSet<String> = tree
        .rust_below(rules.folder)
        .map(|(path, _)| room_of(path))
        .filter(|room| !room.is_empty() && room != MAIN)
        .collect();
    let root = tree.get(&format!("{}/src/lib.rs", rules.folder)).unwrap_or_default();
    rooms.extend(inline_modules(&lex(root)));
    let mut files: Vec<File> = tree
        .rust_below(rules.folder)
        .map(|(path, text)| read_file(rules, path, text, &rooms))
        .collect();
    mark_test_files(rules, &mut files);
    files
}

/// Modules written out in the crate's root are rooms too (those of tests are not).
fn inline_modules(tokens: &[Token]) -> Vec<String> {
    let in_test = mark_tests(tokens);
    let mut depth = 0;
    let mut modules = Vec::new();
    for (index, token) in tokens.iter().enumerate() {
        match token.text.as_str() {
            "{" => depth += 1,
            "}" => depth -= 1,
            "mod" if depth == 0 && !in_test[index] => {
                let opened = tokens.get(index + 2).is_some_and(|token| token.text == "{");
                modules
                    .extend(tokens.get(index + 1).filter(|_| opened).map(|name| name.text.clone()));
            }
            _ => {}
        }
    }
    modules
}

/// The room of a file, by its path below the crate's folder.
fn room_of(path: &str) -> String {
    let Some(inside) = path.strip_prefix("src/") else { return OUTSIDE.to_owned() };
    let first = inside.split('/').next().unwrap_or_default();
    match first.trim_end_matches(".rs") {
        "lib" | "main" | "bin" => MAIN.to_owned(),
        room => room.to_owned(),
    }
}

/// The module a file holds, from its crate's root.
fn module_of(path: &str) -> Vec<String> {
    let inside = path.strip_prefix("src/").unwrap_or_default().trim_end_matches(".rs");
    if inside.starts_with("bin/") || ["lib", "main", ""].contains(&inside) {
        return Vec::new();
    }
    let inside = inside.strip_suffix("/mod").unwrap_or(inside);
    inside.split('/').map(String::from).collect()
}

fn read_file(rules: &Crate, path: &str, text: &str, rooms: &BTreeSet<String>) -> File {
    let tokens = lex(text);
    let mut in_test = mark_tests(&tokens);
    let mut named = Reader { tokens: &tokens, in_test: &in_test, own_name: &rules.library() }
        .read(module_of(path));
    let path_from_root = format!("{}/{path}", rules.folder);
    let room = room_of(path);
    let outside = room.is_empty() && path != "build.rs";
    if outside {
        in_test.fill(true);
        named.iter_mut().for_each(|named| named.test = true);
    }
    File { path: path_from_root, room, rooms: rooms.clone(), named, tokens, in_test }
}

/// Which tokens stand under `#[cfg(test)]` or `#[test]`.
fn mark_tests(tokens: &[Token]) -> Vec<bool> {
    let mut marks = vec![false; tokens.len()];
    let mut at = 0;
    while at < tokens.len() {
        let Some(after) = attribute(tokens, at) else {
            at += 1;
            continue;
        };
        let words = &tokens[at..after];
        let says = |word: &str| words.iter().any(|token| token.text == word);
        let always = says("not") || says("any");
        if says("test") && !always && (says("cfg") || words.len() == 4) {
            let end = item_end(tokens, after);
            marks[at..end].fill(true);
            at = end;
        } else {
            at = after;
        }
    }
    marks
}

/// The index behind the attribute `#[…]` that begins here, if one does.
fn attribute(tokens: &[Token], at: usize) -> Option<usize> {
    let is = |index: usize, text: &str| tokens.get(index).is_some_and(|token| token.text == text);
    if !is(at, "#") || !is(at + 1, "[") {
        return None;
    }
    Some(behind_match(tokens, at + 1, "[", "]"))
}

/// The index behind the bracket that matches the one at `at`.
fn behind_match(tokens: &[Token], at: usize, open: &str, close: &str) -> usize {
    let mut depth = 0;
    for (index, token) in tokens.iter().enumerate().skip(at) {
        if token.text == open {
            depth += 1;
        } else if token.text == close {
            depth -= 1;
            if depth == 0 {
                return index + 1;
            }
        }
    }
    tokens.len()
}

/// The index behind the item that begins here, its own attributes included.
fn item_end(tokens: &[Token], mut at: usize) -> usize {
    while let Some(after) = attribute(tokens, at) {
        at = after;
    }
    while let Some(token) = tokens.get(at) {
        match token.text.as_str() {
            ";" => return at + 1,
            "{" => return behind_match(tokens, at, "{", "}"),
            "(" => at = behind_match(tokens, at, "(", ")"),
            _ => at += 1,
        }
    }
    at
}

/// `#[cfg(test)] mod name;` makes the file of that module, and all below it, a test.
fn mark_test_files(rules: &Crate, files: &mut [File]) {
    let mut folders = Vec::new();
    for file in files.iter().filter(|file| !file.room.is_empty()) {
        let inside = file.path.strip_prefix(&format!("{}/", rules.folder)).unwrap_or_default();
        let module = module_of(inside);
        for (index, three) in file.tokens.windows(3).enumerate() {
            let declared = three[0].text == "mod" && three[2].text == ";";
            if declared && file.in_test[index] {
                let mut child = module.clone();
                child.push(three[1].text.clone());
                folders.push(format!("{}/src/{}", rules.folder, child.join("/")));
            }
        }
    }
    for file in files {
        let test = folders.iter().any(|folder| {
            file.path == format!("{folder}.rs") || file.path.starts_with(&format!("{folder}/"))
        });
        if test {
            file.in_test.fill(true);
            file.named.iter_mut().for_each(|named| named.test = true);
        }
    }
}

struct Reader<'a> {
    tokens: &'a [Token],
    in_test: &'a [bool],
    own_name: &'a str,
}

impl Reader<'_> {
    fn read(&self, file_module: Vec<String>) -> Vec<Named> {
        let mut named = Vec::new();
        let mut module = file_module;
        // Depth of braces at which each inline module ends.
        let mut inline: Vec<usize> = Vec::new();
        let (mut depth, mut at) = (0, 0);
        while at < self.tokens.len() {
            let start = at;
            match self.text(at) {
                "{" => depth += 1,
                "}" => {
                    depth -= 1;
                    if inline.last() == Some(&depth) {
                        inline.pop();
                        module.pop();
                    }
                }
                "mod" if self.text(at + 2) == "{" => {
                    module.push(self.text(at + 1).to_owned());
                    inline.push(depth);
                    at += 1;
                }
                "use" => {
                    at = self.use_tree(at + 1, &[], &mut |parts| {
                        named.extend(self.resolve(parts, &module, start));
                    })
                }
                _ if self.begins_path(at) => {
                    let (parts, end) = self.path(at);
                    named.extend(self.resolve(parts, &module, start));
                    at = end;
                    continue;
                }
                _ => {}
            }
            at += 1;
        }
        named
    }

    fn text(&self, at: usize) -> &str {
        self.tokens.get(at).map_or("", |token| &token.text)
    }

    fn joined(&self, at: usize) -> bool {
        self.text(at) == ":" && self.text(at + 1) == ":"
    }

    fn is_word(&self, at: usize) -> bool {
        self.text(at).starts_with(|c: char| c.is_alphabetic() || c == '_')
    }

    fn begins_path(&self, at: usize) -> bool {
        let continued = at >= 2 && self.joined(at - 2);
        let field = at >= 1 && self.text(at - 1) == ".";
        self.is_word(at) && self.joined(at + 1) && !continued && !field
    }

    /// The path that begins here, and the index behind it.
    fn path(&self, mut at: usize) -> (Vec<String>, usize) {
        let mut parts = vec![self.text(at).to_owned()];
        while self.joined(at + 1) && self.is_word(at + 3) {
            at += 3;
            parts.push(self.text(at).to_owned());
        }
        (parts, at + 1)
    }

    /// Reads the use tree that begins at `at`; returns the index of what ends it.
    fn use_tree(
        &self,
        mut at: usize,
        prefix: &[String],
        found: &mut dyn FnMut(Vec<String>),
    ) -> usize {
        let mut parts = prefix.to_vec();
        if self.joined(at) {
            at += 2;
        }
        loop {
            match self.text(at) {
                "{" => {
                    at += 1;
                    while self.text(at) != "}" && at < self.tokens.len() {
                        at = self.use_tree(at, &parts, found);
                        at += usize::from(self.text(at) == ",");
                    }
                    return at + 1;
                }
                "as" => at += 2,
                "self" if !parts.is_empty() => at += 1,
                word => {
                    parts.push(word.to_owned());
                    at += 1;
                }
            }
            if !self.joined(at) {
                if self.text(at) == "as" {
                    at += 2;
                }
                found(parts);
                return at;
            }
            at += 2;
        }
    }

    /// A path as seen from the crate's root.
    fn resolve(&self, parts: Vec<String>, module: &[String], at: usize) -> Option<Named> {
        let first = parts.first()?;
        let own = |rest: &[String]| [&[String::from("crate")], rest].concat();
        let parts = match first.as_str() {
            "crate" => own(&parts[1..]),
            name if name == self.own_name => own(&parts[1..]),
            "self" | "super" => {
                let steps =
                    parts.iter().take_while(|part| ["self", "super"].contains(&part.as_str()));
                let up = steps.clone().filter(|part| *part == "super").count();
                let base = &module[..module.len().saturating_sub(up)];
                own(&[base, &parts[steps.count()..]].concat())
            }
            _ => parts,
        };
        Some(Named { parts, line: self.tokens[at].line, test: self.in_test[at] })
    }
}
