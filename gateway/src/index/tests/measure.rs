//! What a message to a large conversation costs here: finding its members' connections, for each shard. In a release
//! build: `cargo test --release -p gateway --lib what_expansion_costs -- --ignored --nocapture`.

use super::*;

#[test]
#[ignore = "prints figures"]
fn what_expansion_costs() {
    const SESSIONS: u32 = 100_000;
    const PLACES: u32 = 2_000_000;
    for members in [50, 100, 500, 1000, 10_000] {
        let index = Index::default();
        for n in 0..SESSIONS {
            let connection = on(n % 2, n / 2, 0);
            let entered = Change::Entered(entrant(connection, u64::from(n) + 1));
            let large: &[&str] = if n % (SESSIONS / members) == 0 { &["g"] } else { &[] };
            let interests = interests(connection, u64::from(n) + 1, large);
            index.finish_changes([entered], &[interests]);
        }
        let mut shards = [Vec::new(), Vec::new()];
        let begun = std::time::Instant::now();
        for _ in 0..PLACES / members {
            shards.iter_mut().for_each(Vec::clear);
            let to = |at: ConnId| shards[at.shard as usize].push((at.slot, at.generation));
            index.open().of_conversation("g", to);
            assert_eq!(shards.iter().map(Vec::len).sum::<usize>(), members as usize);
        }
        let us = begun.elapsed().as_secs_f64() * 1e6 / f64::from(PLACES / members);
        println!("{members} members connected: {us:.2} us a message");
    }
}
