use std::time::{Duration, Instant};

use cluster::kafka::{TopicSpec, Topics};
use prost::Message as _;
use proto::ids::direct_conversation_id;
use proto::v1::{GatewayRef, PushRecord, UpstreamRecord};

use crate::world::{LIMIT, World, counter, kept_address, replies_to};

/// What Kafka did not take is worked and sent again by the same consumer. Another one would have to wait until the
/// group has given up the one before it.
#[test]
#[ignore = "needs the servers of `cargo xtask servers up`"]
fn records_that_kafka_did_not_take_are_read_again_by_the_same_consumer() {
    let mut world = World::new();
    let (_keeper, metrics) = kept_address();
    let a = world.start("a", &["--metrics-listen", &metrics.to_string()], &[]);
    let (alice, bob) = (world.login(a, "alice", 1).0, world.login(a, "bob", 2).0);
    world.report(a, &[(alice, 1), (bob, 2)]);
    let id = direct_conversation_id(alice.min(bob), alice.max(bob));
    // A gateway that is there while its topic is not.
    let late = world.runtime.block_on(world.etcd.register("gateways", "late", "{}", true)).unwrap();
    let (first, payload) = world.message((alice, 1), &id, "from the late one");
    let mut record = UpstreamRecord::decode(payload.as_slice()).unwrap();
    record.gateway = Some(GatewayRef { id: "late".to_owned(), epoch: late.epoch() });
    let payload = record.encode_to_vec();
    let until = Instant::now() + LIMIT;
    // Again and again: at first the service may not know the gateway yet.
    while counter(metrics, "corelane_logic_read_again_total") == 0 {
        assert!(Instant::now() < until, "the lost answer is not noticed");
        world.produce(&id, &payload);
        std::thread::sleep(Duration::from_millis(500));
    }
    let topic = world.kafka.push("late");
    let spec = TopicSpec { name: topic.clone(), partitions: 1, replication: 1, retention_ms: None };
    Topics::new(&world.kafka).unwrap().ensure(&[spec], LIMIT).unwrap();
    assert_eq!(world.sent((alice, 1), &id, "from the other").seq, 2);
    let came = PushRecord::decode(world.read(&topic, 1)[0].payload.clone()).unwrap();
    assert_eq!(replies_to(&[came], &first)[0].ack.as_ref().map(|ack| ack.seq), Some(1));
    assert_eq!(world.sent((alice, 1), &id, "and on").seq, 3);
    assert_eq!(world.history(a, bob, &id).len(), 3);
    assert_eq!(counter(metrics, "corelane_logic_consumers_made_anew_total"), 0);
}
