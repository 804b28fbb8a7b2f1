//! Brokers that are not there, or go away: errors in time, nothing hangs.

use rdkafka::mocking::MockCluster;

use super::*;
use crate::own_address::own_address;

/// A port that nobody listens on.
fn nobody() -> Settings {
    Settings {
        brokers: own_address().to_string(),
        message_timeout_ms: 1_000,
        statistics_interval_ms: 100,
        ..Settings::default()
    }
}

/// Runs something that must not take longer than [`PATIENCE`].
fn in_time<T>(what: &str, run: impl FnOnce() -> T) -> T {
    let before = Instant::now();
    let outcome = run();
    assert!(before.elapsed() < PATIENCE / 2, "{what} took {:?}", before.elapsed());
    outcome
}

#[test]
fn a_producer_without_a_broker_gives_records_back() {
    let (producer, told) = recording(&Settings { message_timeout_ms: 5_000, ..nobody() });
    producer.send("t", 0, None, b"x", &Headers::default(), 1).expect("the queue has room");
    assert_eq!(producer.in_flight(), 1);
    assert!(!producer.is_up());
    assert!(in_time("flush", || producer.flush(PATIENCE)));
    assert_eq!(notes(&told).remove(&1), Some(vec![Err(DeliveryError::TimedOut)]));
}

#[test]
fn a_producer_that_is_dropped_accounts_for_its_records() {
    let (producer, told) = recording(&Settings { message_timeout_ms: 60_000, ..nobody() });
    for token in 0..100 {
        producer.send("t", 0, None, b"x", &Headers::default(), token).expect("room");
    }
    assert!(!producer.flush(Duration::from_millis(10)));
    in_time("drop", || drop(producer));
    let told = notes(&told);
    assert_eq!(told.len(), 100);
    assert!(told.values().all(|one| *one == [Err(DeliveryError::Closed)]));
}

#[test]
fn the_queue_of_a_producer_is_bounded() {
    let extra = vec![("producer.queue.buffering.max.messages".to_owned(), "10".to_owned())];
    let settings = Settings { extra, message_timeout_ms: 60_000, ..nobody() };
    let (producer, told) = recording(&settings);
    let sent = (0..11).map(|token| producer.send("t", 0, None, b"", &Headers::default(), token));
    let refused: Vec<_> = sent.filter_map(Result::err).collect();
    assert_eq!(refused, [SendError::QueueFull]);
    let large = vec![0; 2_000_000];
    let refused = producer.send("t", 0, None, &large, &Headers::default(), 99);
    assert_eq!(refused, Err(SendError::TooLarge));
    drop(producer);
    assert_eq!(notes(&told).len(), 10, "what is refused is not told again");
}

#[test]
fn a_callback_that_panics_stops_nothing() {
    let count = Arc::new(AtomicU32::new(0));
    let seen = Arc::clone(&count);
    let producer = Producer::new(&nobody(), move |_, _| {
        seen.fetch_add(1, Ordering::Relaxed);
        panic!("on purpose");
    })
    .expect("good settings");
    for token in 0..3 {
        producer.send("t", 0, None, b"x", &Headers::default(), token).expect("room");
    }
    assert!(producer.flush(PATIENCE));
    assert_eq!(count.load(Ordering::Relaxed), 3);
}

#[test]
fn a_consumer_without_a_broker_waits_and_hangs_nowhere() {
    let settings = nobody();
    let topics = ["t".to_owned()];
    let mut group = Consumer::group(&settings, "g", &topics, None, ()).expect("good settings");
    let mut alone = Consumer::assigned(&settings, "t", 0, From::End).expect("good settings");
    for consumer in [&mut group, &mut alone] {
        let mut records = Vec::new();
        for _ in 0..5 {
            let polled =
                in_time("poll", || consumer.poll(&mut records, Duration::from_millis(100), 10));
            assert_eq!(polled, Ok(Polled::Nothing));
        }
        assert!(!consumer.is_up());
        assert!(consumer.lag().is_err());
        assert!(consumer.health().poll_age() < PATIENCE);
        let offsets = [("t".to_owned(), 0, 1)];
        let commit = in_time("commit", || consumer.commit(&offsets, CommitMode::Sync));
        assert!(commit.is_err(), "nobody has taken it");
    }
    in_time("drop", || drop((group, alone)));
}

#[test]
fn topics_without_a_broker_are_an_error_in_time() {
    let topics = Topics::new(&nobody()).expect("good settings");
    let limit = Duration::from_millis(300);
    let ensured = in_time("ensure", || topics.ensure(&[spec("t", 1)], limit));
    assert!(matches!(ensured, Err(TopicsError::Unavailable(_))), "{ensured:?}");
    let deleted = in_time("delete", || topics.delete(&["t".to_owned()]));
    assert!(matches!(deleted, Err(TopicsError::Unavailable(_))), "{deleted:?}");
    in_time("drop", || drop(topics));
}

#[test]
fn bad_properties_are_told_by_name() {
    let with = |name: &str, value: &str| Settings {
        extra: vec![(name.to_owned(), value.to_owned())],
        ..nobody()
    };
    for (name, value) in
        [("no.such.property", "1"), ("linger.ms", "soon"), ("compression.type", "sideways")]
    {
        let error = Producer::new(&with(name, value), |_, _| {}).expect_err(name);
        assert!(
            matches!(&error, SetupError::Property { name: told, .. } if told == name),
            "{error:?}"
        );
        let error = Consumer::assigned(&with(name, value), "t", 0, From::End).expect_err(name);
        assert!(matches!(error, SetupError::Property { .. }), "{error}");
    }
    // Each is good alone, together they are not.
    let error =
        Producer::new(&with("producer.max.in.flight.requests.per.connection", "99"), |_, _| {})
            .expect_err("an idempotent producer may have five");
    assert!(matches!(error, SetupError::Client(_)), "{error}");
}

#[test]
fn a_client_tells_when_its_brokers_go_and_come_back() {
    let cluster = MockCluster::new(1).expect("a simulated cluster");
    cluster.create_topic("t", 1, 1).expect("it takes topics");
    let settings = Settings {
        brokers: cluster.bootstrap_servers(),
        message_timeout_ms: 30_000,
        statistics_interval_ms: 100,
        // The simulated cluster speaks no idempotence that outlives a lost connection.
        extra: vec![("producer.enable.idempotence".to_owned(), "false".to_owned())],
        ..Settings::default()
    };
    let (producer, told) = recording(&settings);
    let mut consumer = Consumer::assigned(&settings, "t", 0, From::Beginning).expect("good");
    let send = |token| producer.send("t", 0, None, b"x", &Headers::default(), token);
    send(1).expect("room");
    assert!(producer.flush(PATIENCE));
    let first = poll_until(&mut consumer, |records| !records.is_empty());
    assert_eq!(first.len(), 1);
    assert!(producer.is_up() && consumer.is_up());

    cluster.broker_down(1).expect("it obeys");
    let mut records = Vec::new();
    eventually("both notice", || {
        consumer.poll(&mut records, Duration::from_millis(20), 10).expect("no error to act upon");
        !producer.is_up() && !consumer.is_up()
    });
    send(2).expect("room");
    cluster.broker_up(1).expect("it obeys");
    assert!(producer.flush(PATIENCE), "it connects anew by itself");
    assert_eq!(notes(&told).remove(&2), Some(vec![Ok(())]));
    eventually("the consumer goes on", || {
        consumer.poll(&mut records, Duration::from_millis(20), 10).expect("no error to act upon");
        !records.is_empty() && consumer.is_up() && producer.is_up()
    });
}

#[test]
fn a_broker_that_freezes_holds_nobody_for_long() {
    let cluster = MockCluster::new(1).expect("a simulated cluster");
    cluster.create_topic("t", 1, 1).expect("it takes topics");
    cluster.create_topic("other", 1, 1).expect("it takes topics");
    let settings = Settings {
        brokers: cluster.bootstrap_servers(),
        message_timeout_ms: 1_000,
        statistics_interval_ms: 100,
        extra: vec![("socket.timeout.ms".to_owned(), "2000".to_owned())],
        ..Settings::default()
    };
    let (producer, told) = recording(&settings);
    let topics = ["t".to_owned()];
    let mut consumer = Consumer::group(&settings, "g", &topics, None, ()).expect("good");
    // A second may be too short before there is a connection.
    let (patient, _) = recording(&Settings { message_timeout_ms: 30_000, ..settings.clone() });
    patient.send("t", 0, None, b"x", &Headers::default(), 1).expect("room");
    assert!(patient.flush(PATIENCE));
    drop(patient);
    poll_until(&mut consumer, |records| records.len() == 1);
    let mut token = 1;
    eventually("it is connected", || {
        token += 1;
        producer.send("other", 0, None, b"x", &Headers::default(), token).expect("room");
        producer.flush(PATIENCE) && notes(&told).remove(&token) == Some(vec![Ok(())])
    });

    // It takes requests, and answers none.
    cluster.broker_round_trip_time(1, 10 * PATIENCE).expect("it obeys");
    producer.send("t", 0, None, b"x", &Headers::default(), token + 1).expect("room");
    assert!(in_time("flush", || producer.flush(PATIENCE)));
    assert_eq!(notes(&told).remove(&(token + 1)), Some(vec![Err(DeliveryError::TimedOut)]));
    let offsets = [("t".to_owned(), 0, 1)];
    let commit = in_time("commit", || consumer.commit(&offsets, CommitMode::Sync));
    assert!(matches!(commit, Err(ConsumeError::Unavailable(_))), "nobody has answered: {commit:?}");
    in_time("drop", || drop((consumer, producer)));
}

#[test]
fn a_consumer_to_whom_nothing_new_comes_has_not_stalled() {
    let cluster = MockCluster::new(1).expect("a simulated cluster");
    cluster.create_topic("t", 1, 1).expect("it takes topics");
    let settings = Settings {
        brokers: cluster.bootstrap_servers(),
        statistics_interval_ms: 50,
        extra: vec![("producer.enable.idempotence".to_owned(), "false".to_owned())],
        ..Settings::default()
    };
    let (producer, _) = recording(&settings);
    for token in 0..5 {
        producer.send("t", 0, None, b"x", &Headers::default(), token).expect("room");
    }
    assert!(producer.flush(PATIENCE));
    let mut consumer = Consumer::assigned(&settings, "t", 0, From::End).expect("good settings");
    let mut records = Vec::new();
    eventually("it knows how far behind it is", || {
        consumer.poll(&mut records, Duration::from_millis(20), 10).expect("no error to act upon");
        consumer.lag() == Ok(0)
    });
    for _ in 0..10 {
        consumer.poll(&mut records, Duration::from_millis(20), 10).expect("no error to act upon");
        assert_eq!(consumer.health().stalled_for(), None);
    }
    assert!(records.is_empty());
}
