//! What may be in `Cargo.lock`: nothing with a known hole, nothing under a licence we cannot
//! pass on, no second crypto backend, and no optional server client in the default build.
//!
//! The advisory database is not at hand everywhere; these minimum versions stand in for it.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use toml::Table;

/// Lowest versions without a published advisory that concerns us.
const MINIMUM: &[(&str, [u64; 3])] = &[
    ("tungstenite", [0, 20, 1]),
    ("h2", [0, 4, 16]),
    ("bytes", [1, 11, 1]),
    ("rustls", [0, 23, 18]),
    ("rustls-webpki", [0, 103, 13]),
    ("sqlx", [0, 8, 1]),
    ("tokio", [1, 44, 2]),
    ("slab", [0, 4, 11]),
    ("crossbeam-channel", [0, 5, 15]),
    ("time", [0, 3, 47]),
    ("jsonwebtoken", [10, 3, 0]),
];

/// Crates that must not be there at all: other crypto backends, and one that is abandoned.
const BANNED: &[&str] =
    &["aws-lc-rs", "aws-lc-sys", "aws-lc-fips-sys", "openssl", "openssl-sys", "native-tls", "ws"];

/// Clients of servers that the embedded form does without.
const NOT_BY_DEFAULT: &[&str] = &[
    "glommio",
    "rdkafka",
    "rdkafka-sys",
    "sqlx",
    "sqlx-mysql",
    "mysql",
    "mysql_async",
    "etcd-client",
    "redis",
];

/// Licences under which the binaries can be handed out as MIT OR Apache-2.0. The same list as
/// in deny.toml.
const LICENCES: &[&str] = &[
    "MIT",
    "MIT-0",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "ISC",
    "Zlib",
    "0BSD",
    "CC0-1.0",
    "Unicode-3.0",
    "Unlicense",
    "BSL-1.0",
];

fn root() -> PathBuf {
    // Asked for when it runs: a build folder may outlive the checkout that it was filled from.
    Path::new(&std::env::var_os("CARGO_MANIFEST_DIR").unwrap()).join("../..")
}

/// Names and versions of a lock file.
fn packages(lock: &str) -> Vec<(String, String)> {
    let lock: Table = lock.parse().expect("a lock file");
    let text = |package: &toml::Value, key: &str| package[key].as_str().unwrap().to_owned();
    let packages = lock["package"].as_array().expect("packages");
    packages.iter().map(|package| (text(package, "name"), text(package, "version"))).collect()
}

fn too_old(packages: &[(String, String)]) -> Vec<String> {
    let number = |part: Option<&str>| part.and_then(|part| part.parse().ok()).unwrap_or(0);
    let mut faults = Vec::new();
    for (name, version) in packages {
        let minimum = MINIMUM.iter().find(|(crate_name, _)| crate_name == name);
        let mut parts = version.split(['.', '-', '+']);
        let have: [u64; 3] = std::array::from_fn(|_| number(parts.next()));
        if let Some((_, least)) = minimum.filter(|(_, least)| have < *least) {
            faults.push(format!("{name} {version} is older than {least:?}"));
        }
    }
    faults
}

fn banned(packages: &[(String, String)]) -> Vec<String> {
    packages
        .iter()
        .map(|(name, _)| name.clone())
        .filter(|name| BANNED.contains(&name.as_str()))
        .collect()
}

/// Crates under other licences that may be passed on unchanged, and that only optional features bring.
const EXCEPTIONS: [(&str, &str); 1] = [("bitmaps", "MPL-2.0+")];

fn excepted(package: &Value) -> bool {
    let own = (package["name"].as_str(), package["license"].as_str());
    EXCEPTIONS.iter().any(|(name, licence)| own == (Some(name), Some(licence)))
}

/// Whether an SPDX expression leaves a choice we can take. `AND` binds closer than `OR`.
fn allowed(expression: &str) -> bool {
    let flat = expression.replace('/', " OR ");
    if let Some(inner) = split_brackets(&flat) {
        return inner;
    }
    flat.split(" OR ")
        .any(|choice| choice.split(" AND ").all(|licence| LICENCES.contains(&licence.trim())))
}

/// Evaluates an expression with brackets by replacing the innermost pair with a licence that
/// stands for its value.
fn split_brackets(expression: &str) -> Option<bool> {
    let close = expression.find(')')?;
    let open = expression[..close].rfind('(')?;
    let value = if allowed(&expression[open + 1..close]) { "MIT" } else { "refused" };
    Some(allowed(&format!("{}{value}{}", &expression[..open], &expression[close + 1..])))
}

fn cargo(arguments: &[&str]) -> String {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo).current_dir(root()).args(arguments).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// The platform this compiler builds for by default.
fn host() -> String {
    let output = Command::new("rustc").arg("-vV").output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().find_map(|line| line.strip_prefix("host: ")).unwrap().to_owned()
}

#[test]
fn nothing_is_too_old_or_banned() {
    let lock = std::fs::read_to_string(root().join("Cargo.lock")).unwrap();
    let packages = packages(&lock);
    assert!(packages.len() > 100, "only {} packages were read", packages.len());
    assert_eq!(too_old(&packages), Vec::<String>::new());
    assert_eq!(banned(&packages), Vec::<String>::new());
}

#[test]
fn everything_may_be_passed_on() {
    // Only what this platform needs is downloaded, so only that can be asked offline; what only
    // optional features need comes with `cargo fetch`.
    let host = host();
    let host = ["--filter-platform", &host];
    let query = ["metadata", "--format-version=1", "--offline", "--locked", "--all-features"];
    let metadata: Value = serde_json::from_str(&cargo(&[&query[..], &host].concat())).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    assert!(packages.len() > 100, "only {} packages were read", packages.len());
    let refused: Vec<String> = packages
        .iter()
        .filter(|package| !package["license"].as_str().is_some_and(allowed) && !excepted(package))
        .map(|package| {
            format!("{} {}: {}", package["name"], package["version"], package["license"])
        })
        .collect();
    assert_eq!(refused, Vec::<String>::new());
}

#[test]
fn the_default_build_needs_no_server_client() {
    let edges = ["--edges", "normal,build", "--prefix", "none", "--format", "{p}"];
    let tree = cargo(
        &[&["tree", "--offline", "--locked", "--package", "standalone"][..], &edges].concat(),
    );
    let names: Vec<&str> = tree.lines().filter_map(|line| line.split(' ').next()).collect();
    assert!(names.contains(&"gateway") && names.contains(&"logic-svc"), "{tree}");
    let found: Vec<_> = names.iter().filter(|name| NOT_BY_DEFAULT.contains(name)).collect();
    assert!(found.is_empty(), "compiled by default: {found:?}");
}

#[test]
fn cargo_deny_knows_the_same_licences_and_bans() {
    let deny: Table = std::fs::read_to_string(root().join("deny.toml")).unwrap().parse().unwrap();
    let licences = deny["licenses"]["allow"].as_array().unwrap();
    let licences: Vec<_> = licences.iter().map(|licence| licence.as_str().unwrap()).collect();
    assert_eq!(licences, LICENCES);
    let exceptions = deny["licenses"]["exceptions"].as_array().unwrap();
    let exceptions: Vec<_> = exceptions.iter().map(|one| one["crate"].as_str().unwrap()).collect();
    assert_eq!(exceptions, EXCEPTIONS.map(|(name, _)| name));
    for ban in deny["bans"]["deny"].as_array().unwrap() {
        assert!(BANNED.contains(&ban["crate"].as_str().unwrap()), "{ban}");
    }
}

#[test]
fn the_rules_can_fail() {
    let of = |name: &str, version: &str| vec![(name.to_owned(), version.to_owned())];
    assert_eq!(too_old(&of("slab", "0.4.10")).len(), 1);
    assert_eq!(too_old(&of("tokio", "1.44.1")).len(), 1);
    assert_eq!(too_old(&of("jsonwebtoken", "9.3.1")).len(), 1);
    assert_eq!(too_old(&of("slab", "0.4.11")), Vec::<String>::new());
    assert_eq!(too_old(&of("tungstenite", "0.29.0")), Vec::<String>::new());
    assert_eq!(banned(&of("openssl-sys", "0.9.1")).len(), 1);
    let parsed = packages("[[package]]\nname = \"ws\"\nversion = \"0.9.2\"\n");
    assert_eq!(banned(&parsed), ["ws"]);
}

#[test]
fn licence_expressions_are_understood() {
    for good in [
        "MIT",
        "MIT OR Apache-2.0",
        "MIT/Apache-2.0",
        "GPL-3.0 OR MIT",
        "(MIT OR GPL-3.0) AND Unicode-3.0",
        "Apache-2.0 WITH LLVM-exception OR Apache-2.0 OR MIT",
    ] {
        assert!(allowed(good), "{good}");
    }
    for bad in ["GPL-3.0", "MIT AND CDDL-1.0", "(MIT OR Apache-2.0) AND GPL-2.0", "", "MPL-2.0"] {
        assert!(!allowed(bad), "{bad}");
    }
}
