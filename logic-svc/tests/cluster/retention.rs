//! Old messages go; nothing else changes.

use std::time::{Duration, Instant};

use proto::ids::direct_conversation_id;

use super::world::World;

#[test]
#[ignore = "needs the servers of `cargo xtask servers up`"]
fn what_is_beyond_the_number_kept_goes_and_the_conversation_goes_on() {
    let mut world = World::new();
    let keep = ["--retention-messages", "5", "--retention-every", "1s"];
    let a = world.start("a", &keep, &[]);
    let (ann, _) = world.login(a, "ann", 1);
    let (ben, _) = world.login(a, "ben", 2);
    world.report(a, &[(ann, 1), (ben, 2)]);
    let dm = direct_conversation_id(ann.min(ben), ann.max(ben));
    for n in 0..12 {
        assert_eq!(world.sent((ann, 1), &dm, &format!("m{n}")).seq, n + 1);
    }
    // Every message stays for an hour: this one is over.
    world.age_messages(Duration::from_secs(2 * 3600));
    let until = Instant::now() + Duration::from_secs(60);
    let left = loop {
        let left = world.history(a, ben, &dm);
        if left.len() == 5 {
            break left;
        }
        assert!(Instant::now() < until, "still there: {left:?}");
        std::thread::sleep(Duration::from_millis(50));
    };
    let text = |n: u64| (n + 1, format!("m{n}"));
    assert_eq!(left, (7..12).map(text).collect::<Vec<_>>());
    assert_eq!(world.sent((ben, 2), &dm, "on").seq, 13);
}
