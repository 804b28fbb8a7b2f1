//! Who imports whom: our crates among each other, rooms inside a crate.

use std::collections::BTreeSet;

use crate::order::{Order, circle};
use crate::paths::{File, MAIN, Named};
use crate::rules::{CRATES, Crate};

/// Checks every path of a crate's files.
pub(crate) fn check(rules: &Crate, files: &[File], faults: &mut Vec<String>) {
    for file in files {
        for named in &file.named {
            crate_arrow(rules, file, named, faults);
        }
    }
    room_places(rules, files, faults);
    room_arrows(rules, files, faults);
}

fn crate_arrow(rules: &Crate, file: &File, named: &Named, faults: &mut Vec<String>) {
    let first = named.parts[0].as_str();
    let Some(other) = CRATES.iter().find(|other| other.library() == first) else { return };
    // A room of our own may share the name of a crate; `use` of that room begins with `crate`.
    let allowed = rules.imports.contains(&other.package)
        || named.test && rules.test_imports.contains(&other.package);
    if !allowed && named.parts.len() > 1 && !file.rooms.contains(first) {
        faults.push(format!(
            "{}:{}: {} must not import {}",
            file.path, named.line, rules.package, other.package
        ));
    }
}

/// Every room has its place in the order, so that a new one cannot hide from it.
fn room_places(rules: &Crate, files: &[File], faults: &mut Vec<String>) {
    if rules.order.is_empty() {
        return;
    }
    let order = Order::parse(rules.order);
    let rooms = files.first().map(|file| file.rooms.clone()).unwrap_or_default();
    for room in rooms.iter().filter(|room| !order.knows(room)) {
        faults.push(format!(
            "{}/src/{room}: has no place in the order \"{}\" (tests/tidy/rules.rs)",
            rules.folder, rules.order
        ));
    }
}

fn room_arrows(rules: &Crate, files: &[File], faults: &mut Vec<String>) {
    let order = (!rules.order.is_empty()).then(|| Order::parse(rules.order));
    let mut edges = BTreeSet::new();
    for file in files.iter().filter(|file| !file.room.is_empty() && file.room != MAIN) {
        let imports = file.named.iter().filter(|named| !named.test && named.parts[0] == "crate");
        for named in imports {
            let Some(to) = target(file, named, order.as_ref()) else { continue };
            let reason = order.as_ref().and_then(|order| order.forbids(&file.room, &to));
            if let Some(reason) = reason {
                faults.push(format!(
                    "{}:{}: {} must not import {to}, which {reason} ({})",
                    file.path,
                    named.line,
                    file.room,
                    named.parts.join("::")
                ));
            }
            edges.insert((file.room.clone(), to));
        }
    }
    if let Some(circle) = circle(&edges) {
        faults.push(format!("{}: rooms import each other in a circle: {circle}", rules.folder));
    }
}

/// The room a path leads to, when it leads out of this one. What stands in the root itself
/// belongs to `main`, above all rooms.
fn target(file: &File, named: &Named, order: Option<&Order>) -> Option<String> {
    let is_room =
        |name: &String| file.rooms.contains(name) || order.is_some_and(|order| order.knows(name));
    let to = match named.parts.get(1) {
        Some(room) if is_room(room) => room.clone(),
        _ => MAIN.to_owned(),
    };
    (to != file.room).then_some(to)
}
