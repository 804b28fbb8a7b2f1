//! The arrows of ARCHITECTURE.md, as a test.
//!
//! Reads every manifest and every `use` line and path of this repository, without compiling,
//! and fails when a crate or a room imports what it must not know, when a name appears outside
//! the room it belongs to, when `unsafe` leaves its room, or when a file outgrows one sitting.
//! The rules are tables in [`rules`]; [`samples`] holds a small bad example for each of them.

mod arrows;
mod lexer;
mod manifest;
mod names;
mod order;
mod paths;
mod rules;
mod samples;
mod size;
mod tree;

use tree::Tree;

/// All faults of a tree, sorted, one line each.
fn faults(tree: &Tree) -> Vec<String> {
    let mut faults = Vec::new();
    size::check(tree, &mut faults);
    for rules in rules::CRATES {
        manifest::check(tree, rules, &mut faults);
        let files = paths::read_crate(tree, rules);
        arrows::check(rules, &files, &mut faults);
        names::check(rules, &files, &mut faults);
    }
    manifest::check_members(tree, &mut faults);
    faults.sort();
    faults.dedup();
    faults
}

/// Asked for when it runs: a build folder may outlive the checkout that it was filled from.
fn root() -> std::path::PathBuf {
    std::path::Path::new(&std::env::var_os("CARGO_MANIFEST_DIR").unwrap()).join("../..")
}

#[test]
fn the_repository_is_tidy() {
    let root = root();
    let tree = Tree::read(&root);
    let faults = faults(&tree);
    assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
    // A reader that finds nothing would find no fault either.
    assert!(tree.count("rs") > 50, "only {} Rust files were read", tree.count("rs"));
}

/// The page for people and the table for this test say the same.
#[test]
fn the_architecture_page_shows_the_orders() {
    let path = root().join("ARCHITECTURE.md");
    let page = std::fs::read_to_string(path).unwrap().replace('`', "");
    let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    for rules in
        rules::CRATES.iter().filter(|rules| ["gateway", "logic-svc"].contains(&rules.package))
    {
        assert!(words(&page).contains(&words(rules.order)), "{}: {}", rules.package, rules.order);
    }
}
