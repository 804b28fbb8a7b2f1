//! The bodies under proptest: random cases from fixed seeds, so that a run is the same everywhere.
//! `FUZZ_SEED=N` tries others, `FUZZ_CASES=N` more of them; both are printed.

mod strategies;

use fuzz_bodies::{binary, deflate, handshake, json, session, websocket};
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, RngSeed, TestRunner};

/// Seed of a run that asks for none.
const SEED: u64 = 20_261_121;

fn env(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// Checks `cases` random cases, or as many as `FUZZ_CASES` says.
fn check<S: Strategy>(name: &str, cases: u32, strategy: S, body: impl Fn(&S::Value)) {
    let seed = env("FUZZ_SEED").unwrap_or(SEED);
    let cases = env("FUZZ_CASES").and_then(|cases| u32::try_from(cases).ok()).unwrap_or(cases);
    eprintln!("{name}: FUZZ_SEED={seed} FUZZ_CASES={cases}");
    let mut runner = TestRunner::new(Config {
        cases,
        rng_seed: RngSeed::Fixed(seed),
        rng_algorithm: RngAlgorithm::ChaCha,
        // What is found becomes a test with a name, in `regressions.rs`.
        failure_persistence: None,
        max_shrink_iters: 20_000,
        ..Config::default()
    });
    let outcome = runner.run(&strategy, |case| {
        body(&case);
        Ok(())
    });
    if let Err(error) = outcome {
        panic!("{error}");
    }
}

#[test]
fn handshakes() {
    check("handshake", 1500, strategies::handshake(), handshake::check);
}

#[test]
fn websocket_streams() {
    check("websocket", 1500, strategies::websocket(), websocket::check);
}

#[test]
fn compressed_streams() {
    check("deflate", 1500, strategies::deflate(), deflate::check);
}

#[test]
fn binary_streams() {
    check("binary", 4000, strategies::binary(), binary::check);
}

#[test]
fn json_requests() {
    check("json", 8_000, strategies::json(), |text: &String| json::check(text));
}

#[test]
fn sessions() {
    check("session", 1500, strategies::session(), session::check);
}

/// What a fuzzer starts from without seeds: any bytes at all, and seeds with changes.
#[test]
fn noise_and_changed_seeds() {
    for target in fuzz_bodies::TARGETS {
        let seeds = fuzz_bodies::seeds::of(target.name);
        check(target.name, 250, strategies::changed(seeds), |data: &Vec<u8>| (target.run)(data));
    }
}
