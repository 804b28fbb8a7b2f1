//! What becomes of acknowledgements, and of topics that are not there.

use super::*;

/// What was under way is told as lost, and the next record goes by another producer.
#[test]
fn a_producer_that_is_of_no_use_any_more_is_made_anew_once() {
    let settings = Settings { brokers: "127.0.0.1:1".to_owned(), ..Settings::default() };
    let outbox = Outbox::new(settings, topics(), Arc::default()).unwrap();
    let ledger = Arc::new(Ledger::new(3));
    outbox.begin(&ledger);
    let token = ledger.acks.begin(next(10));
    assert_eq!(outbox.send("d", 0, b"x", None, token), Ok(true));
    let broken = outbox.working_producer();
    let new = outbox.renew(&broken);
    assert!(!Arc::ptr_eq(&broken, &new));
    assert!(Arc::ptr_eq(&outbox.renew(&broken), &new), "by whoever was first");
    drop(broken);
    assert!(ledger.failed(), "the tick is worked again");
    assert_eq!(outbox.send("d", 0, b"y", None, token), Ok(true));
    assert_eq!((new.in_flight(), outbox.producer().in_flight()), (1, 1));
}

/// Requests that change members hold threads that others need: while Kafka is away not each of them waits for it.
#[test]
fn a_change_that_cannot_be_told_is_waited_for_once_and_not_by_everybody() {
    let settings = Settings { brokers: "127.0.0.1:1".to_owned(), ..Settings::default() };
    let outbox = Outbox::new(settings, topics(), Arc::default()).unwrap();
    let sent = || outbox.producer().in_flight();
    let partition = partition_of("g", 1);
    assert!(outbox.announce("g").is_err());
    assert_eq!(sent(), 1);
    let later = Instant::now() + Duration::from_secs(3600);
    outbox.untold.lock().unwrap().insert(partition, later);
    assert!(outbox.announce("g").is_err());
    assert_eq!(sent(), 1, "it is not tried");
    let before = Instant::now().checked_sub(ANNOUNCE_PAUSE).unwrap();
    outbox.untold.lock().unwrap().insert(partition, before);
    assert!(outbox.announce("g").is_err());
    assert_eq!(sent(), 2, "it is tried again");
}

fn topics() -> Topics {
    Topics {
        upstream: "u".to_owned(),
        upstream_partitions: 1,
        tasks: "t".to_owned(),
        task_partitions: 1,
        dead_letters: "d".to_owned(),
    }
}

fn ledger(tag: u16) -> (Deliveries, Arc<Ledger>) {
    let (deliveries, ledger) = (Deliveries::default(), Arc::new(Ledger::new(tag)));
    *deliveries.ledger.write().unwrap() = Some(Arc::clone(&ledger));
    (deliveries, ledger)
}

fn next(offset: i64) -> Vec<(String, u32, i64)> {
    vec![("t".to_owned(), 0, offset)]
}

#[test]
fn offsets_wait_for_every_record_of_their_tick() {
    let (deliveries, ledger) = ledger(3);
    let token = ledger.acks.begin(next(10));
    ledger.acks.expect(token, 3);
    deliveries.told(token, Ok(()));
    deliveries.told(token, Ok(()));
    assert!(ledger.acks.take_committable().is_empty(), "one is missing");
    deliveries.told(token, Err(DeliveryError::TooLarge));
    assert_eq!(ledger.acks.take_committable(), next(10), "nobody will ever take the last one");
    assert!(!ledger.failed());
}

#[test]
fn a_topic_that_is_not_there_is_a_loss_unless_its_gateway_is_gone() {
    let (deliveries, ledger) = ledger(3);
    let token = ledger.acks.begin(next(10));
    ledger.acks.expect(token, 1);
    deliveries.told(u64::from(TAG_LOOSE) << TAG_SHIFT, Err(DeliveryError::UnknownTopic));
    assert!(!ledger.failed() && ledger.acks.take_committable().is_empty());
    deliveries.told(token, Err(DeliveryError::UnknownTopic));
    assert!(ledger.failed() && ledger.acks.take_committable().is_empty());
}

#[test]
fn the_topic_of_a_registered_gateway_is_waited_for_once_and_not_for_ever() {
    let settings = Settings { brokers: "127.0.0.1:1".to_owned(), ..Settings::default() };
    let gateways = Arc::new(Gateways::default());
    gateways.set_live([("g1".to_owned(), 5)]);
    let outbox = Outbox::new(settings, topics(), Arc::clone(&gateways)).unwrap();
    assert!(outbox.is_awaited("im-push-g1") && !outbox.is_awaited("im-push-g2"));
    let long_ago = Instant::now().checked_sub(MISSING_LIMIT).unwrap();
    outbox.missing().insert("im-push-g1".to_owned(), long_ago);
    assert!(!outbox.is_awaited("im-push-g1"), "others wait meanwhile");
    outbox.missing().clear();
    gateways.set_live([]);
    assert!(!outbox.is_awaited("im-push-g1"), "it is gone");
}

/// Settings whose topics are nobody else's.
fn on_real_kafka() -> Settings {
    let brokers = std::env::var("CORELANE_TEST_KAFKA").expect("see `cargo xtask servers env`");
    Settings {
        brokers,
        topic_prefix: format!("t{}.", uuid::Uuid::new_v4().simple()),
        // Otherwise the client itself waits for half a minute.
        extra: vec![("producer.topic.metadata.propagation.max.ms".to_owned(), "0".to_owned())],
        ..Settings::default()
    }
}

fn until_known_as_missing(outbox: &Outbox, topic: &str) {
    let until = Instant::now() + Duration::from_secs(20);
    while !matches!(
        outbox.producer().send(topic, 0, None, b"x", &Headers::default(), u64::MAX),
        Err(SendError::UnknownTopic)
    ) {
        assert!(Instant::now() < until, "the client does not know that there is no topic");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Against a broker: only of a gateway that is gone nobody wants what it is sent.
#[test]
#[ignore = "needs the servers of `cargo xtask servers up`"]
fn what_others_have_to_read_is_not_done_without_its_topic() {
    let settings = on_real_kafka();
    let gateways = Arc::new(Gateways::default());
    let gone = gateways.number_of("gone", 4);
    let topics = Topics { upstream: settings.upstream(), tasks: settings.tasks(), ..topics() };
    let outbox = Outbox::new(settings.clone(), topics, gateways).unwrap();
    for topic in [settings.upstream(), settings.tasks(), settings.push("gone")] {
        until_known_as_missing(&outbox, &topic);
    }
    assert!(outbox.announce("g").is_err());
    assert!(outbox.hand_over("g", Task::default()).is_err());
    let records = vec![(gone, PushRecord::default())];
    outbox.push_and_wait(records, Duration::from_secs(5)).unwrap();
}

/// Against a broker: a record for a topic that is made late arrives, one for a gateway that is gone is let go.
#[test]
#[ignore = "needs the servers of `cargo xtask servers up`"]
fn a_record_reaches_a_topic_that_is_made_late() {
    let settings = on_real_kafka();
    let gateways = Arc::new(Gateways::default());
    gateways.set_live([("late".to_owned(), 5)]);
    let gone = gateways.number_of("gone", 4);
    let late = gateways.number_of("late", 5);
    let topic = settings.push("late");
    let outbox = Outbox::new(settings.clone(), topics(), gateways).unwrap();
    until_known_as_missing(&outbox, &topic);
    let admin = cluster::kafka::Topics::new(&settings).unwrap();
    let spec = cluster::kafka::TopicSpec {
        name: topic.clone(),
        partitions: 1,
        replication: 1,
        retention_ms: None,
    };
    let ledger = Arc::new(Ledger::new(3));
    outbox.begin(&ledger);
    let token = ledger.acks.begin(next(10));
    let made = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_secs(1));
        admin.ensure(&[spec], Duration::from_secs(20)).unwrap();
        admin
    });
    let records = vec![(gone, PushRecord::default()), (late, PushRecord::default())];
    let expected = outbox.send_tick(records, token, None).unwrap();
    ledger.acks.expect(token, expected);
    assert_eq!(expected, 1, "nobody waits for the one that is gone");
    assert!(outbox.flush(Duration::from_secs(20)));
    assert_eq!(ledger.acks.take_committable(), next(10));
    assert!(!ledger.failed());
    made.join().unwrap().delete(&[topic]).unwrap();
}

#[test]
fn a_lost_record_keeps_its_offsets_and_asks_for_another_reading() {
    let (deliveries, ledger) = ledger(3);
    let token = ledger.acks.begin(next(10));
    ledger.acks.expect(token, 1);
    deliveries.told(token, Err(DeliveryError::TimedOut));
    assert!(ledger.failed() && ledger.acks.take_committable().is_empty());
}

#[test]
fn what_an_earlier_life_sent_counts_for_nothing_now() {
    let (_, earlier) = ledger(3);
    let old = earlier.acks.begin(next(5));
    let (deliveries, ledger) = ledger(4);
    let token = ledger.acks.begin(next(10));
    ledger.acks.expect(token, 1);
    deliveries.told(old, Ok(()));
    deliveries.told(old, Err(DeliveryError::Closed));
    assert!(!ledger.failed() && ledger.acks.take_committable().is_empty());
    deliveries.told(token, Ok(()));
    assert_eq!(ledger.acks.take_committable(), next(10));
}

#[test]
fn whoever_waits_is_told_all_or_why_not() {
    let deliveries = Deliveries::default();
    let token = |n: u64| (u64::from(TAG_WAITED) << TAG_SHIFT) | n;
    let begin = |n: u64, missing| {
        deliveries.waits().insert(token(n), Wait { missing, lost: None });
    };
    begin(1, 2);
    deliveries.told(token(1), Ok(()));
    deliveries.told(token(1), Ok(()));
    assert_eq!(deliveries.wait(token(1), Duration::ZERO), Ok(()));
    begin(2, 2);
    deliveries.told(token(2), Ok(()));
    assert!(deliveries.wait(token(2), Duration::ZERO).is_err(), "one is missing");
    begin(3, 1);
    deliveries.told(token(3), Err(DeliveryError::TimedOut));
    assert!(deliveries.wait(token(3), Duration::ZERO).is_err());
    assert!(deliveries.waits().is_empty(), "nothing is kept");
}
