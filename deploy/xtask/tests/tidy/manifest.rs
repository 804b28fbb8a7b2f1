//! What manifests say: dependencies on our own crates, shared lints, known members.

use toml::{Table, Value};

use crate::rules::{CRATES, Crate};
use crate::tree::Tree;

/// Checks one crate's manifest.
pub(crate) fn check(tree: &Tree, rules: &Crate, faults: &mut Vec<String>) {
    let path = format!("{}/Cargo.toml", rules.folder);
    let Some(text) = tree.get(&path) else {
        faults.push(format!("{path}: is missing, but has rules (tests/tidy/rules.rs)"));
        return;
    };
    let manifest: Table = match text.parse() {
        Ok(manifest) => manifest,
        Err(error) => {
            faults.push(format!("{path}: {error}"));
            return;
        }
    };
    let name = manifest.get("package").and_then(|package| package.get("name"));
    if name.and_then(Value::as_str) != Some(rules.package) {
        faults.push(format!("{path}: the package is not called {}", rules.package));
    }
    let lints = manifest.get("lints").and_then(|lints| lints.get("workspace"));
    if lints.and_then(Value::as_bool) != Some(true) {
        faults.push(format!("{path}: the workspace's lints are not taken over"));
    }
    dependencies(&path, rules, &manifest, faults);
    for target in
        manifest.get("target").and_then(Value::as_table).into_iter().flat_map(Table::values)
    {
        if let Some(target) = target.as_table() {
            dependencies(&path, rules, target, faults);
        }
    }
}

fn dependencies(path: &str, rules: &Crate, section: &Table, faults: &mut Vec<String>) {
    for kind in ["dependencies", "build-dependencies", "dev-dependencies"] {
        let Some(list) = section.get(kind).and_then(Value::as_table) else { continue };
        for (key, value) in list {
            // A dependency may be renamed; what counts is what it is.
            let package = value.get("package").and_then(Value::as_str).unwrap_or(key);
            let ours = CRATES.iter().any(|other| other.package == package);
            let allowed = rules.imports.contains(&package)
                || kind == "dev-dependencies" && rules.test_imports.contains(&package)
                || kind == "dev-dependencies" && package == rules.package;
            if ours && !allowed {
                faults
                    .push(format!("{path}: {} must not import {package} ({kind})", rules.package));
            }
        }
    }
}

/// Every member of the workspace has rules.
pub(crate) fn check_members(tree: &Tree, faults: &mut Vec<String>) {
    let Some(Ok(manifest)) = tree.get("Cargo.toml").map(str::parse::<Table>) else {
        faults.push(String::from("Cargo.toml: cannot be read"));
        return;
    };
    let members = manifest.get("workspace").and_then(|workspace| workspace.get("members"));
    let members = members.and_then(Value::as_array).into_iter().flatten();
    for member in members.filter_map(Value::as_str) {
        if CRATES.iter().all(|rules| rules.folder != member) {
            faults.push(format!("{member}: has no rules (tests/tidy/rules.rs)"));
        }
    }
}
