//! Which words may stand where: runtimes and databases in their room, `unsafe` in its room,
//! nothing impure in pure code.

use std::collections::BTreeSet;

use crate::paths::File;
use crate::rules::{Crate, KEPT_WORDS};

/// Checks every file of a crate.
pub(crate) fn check(rules: &Crate, files: &[File], faults: &mut Vec<String>) {
    for file in files {
        kept_words(rules, file, faults);
        pure(rules, file, faults);
    }
    unsafe_rooms(rules, files, faults);
}

/// Words with a room of their own appear nowhere else.
fn kept_words(rules: &Crate, file: &File, faults: &mut Vec<String>) {
    let homes = |word: &str| rules.only_in.iter().find(|(only, _)| *only == word);
    for (at, token) in file.tokens.iter().enumerate() {
        let word = token.text.as_str();
        // A field or a variable may be called so too.
        if !names_a_path(file, at) {
            continue;
        }
        let allowed = match homes(word) {
            Some((_, rooms)) => rooms.contains(&file.room.as_str()),
            None => !KEPT_WORDS.contains(&word),
        };
        if !allowed {
            faults.push(format!(
                "{}:{}: {word} belongs to {}",
                file.path,
                token.line,
                homes(word).map_or("another crate".to_owned(), |(_, rooms)| rooms.join(", "))
            ));
        }
    }
}

/// Whether the token is part of a path: `redis::..`, `..::redis`, `use redis`, `{redis}` behind `::`.
fn names_a_path(file: &File, at: usize) -> bool {
    let text = |at: usize| file.tokens.get(at).map_or("", |token| token.text.as_str());
    let follows = text(at + 1) == ":" && text(at + 2) == ":";
    let before = if at == 0 { "" } else { text(at - 1) };
    let inside = at >= 2 && before == ":" && text(at - 2) == ":";
    follows || inside || ["use", "crate", "extern"].contains(&before)
}

/// Pure rooms name no sockets, files, clocks or keywords of concurrency.
fn pure(rules: &Crate, file: &File, faults: &mut Vec<String>) {
    if file.room.is_empty() {
        return;
    }
    let holds = |room: &str| room == "*" || room == file.room;
    for (_, forbidden) in rules.pure.iter().filter(|(room, _)| holds(room)) {
        let mut report = |line: usize, name: &str| {
            faults.push(format!("{}:{line}: pure code must not name {name}", file.path));
        };
        for named in file.named.iter().filter(|named| !named.test) {
            let path = named.parts.join("::");
            let inside = |name: &&&str| path == ***name || path.starts_with(&format!("{name}::"));
            if forbidden.iter().any(|name| inside(&name)) {
                report(named.line, &path);
            }
        }
        for (token, _) in file.tokens.iter().zip(&file.in_test).filter(|(_, test)| !**test) {
            let keyword = ["async", "await"].contains(&token.text.as_str());
            if keyword && forbidden.contains(&token.text.as_str()) {
                report(token.line, &token.text);
            }
        }
    }
}

/// `unsafe` has one room in a crate, or the ones named for it.
fn unsafe_rooms(rules: &Crate, files: &[File], faults: &mut Vec<String>) {
    let mut rooms = BTreeSet::new();
    for file in files {
        for line in allowances(file) {
            rooms.insert(file.room.clone());
            let named =
                rules.unsafe_rooms.is_empty() || rules.unsafe_rooms.contains(&file.room.as_str());
            if !named {
                faults.push(format!(
                    "{}:{line}: unsafe code belongs to {}",
                    file.path,
                    rules.unsafe_rooms.join(", ")
                ));
            }
        }
    }
    if rules.unsafe_rooms.is_empty() && rooms.len() > 1 {
        let rooms: Vec<_> = rooms.into_iter().collect();
        faults.push(format!(
            "{}: unsafe code in several rooms: {}",
            rules.folder,
            rooms.join(", ")
        ));
    }
}

/// Lines where the file allows itself unsafe code.
fn allowances(file: &File) -> Vec<usize> {
    let mut lines = Vec::new();
    for (at, token) in file.tokens.iter().enumerate() {
        let lint = token.text == "unsafe_code";
        let attribute = file.tokens[..at].iter().rev().take_while(|token| token.text != "[");
        let granted = attribute
            .clone()
            .any(|token| ["allow", "expect", "warn"].contains(&token.text.as_str()));
        if lint && granted {
            lines.push(token.line);
        }
    }
    lines
}
