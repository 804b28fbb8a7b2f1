//! Against a real Kafka.

use super::*;

#[test]
#[ignore = "needs the servers of `cargo xtask servers up`"]
fn records_come_back_with_headers_and_in_order() {
    let scratch = Scratch::new();
    let topic = scratch.upstream(3);
    let (producer, told) = recording(&scratch.settings);
    let trace = TraceContext::new_random(true);
    for number in 0..90_u64 {
        let headers = Headers { traceparent: number.is_multiple_of(2).then_some(trace) };
        let key = number.to_string();
        let key = number.is_multiple_of(3).then_some(key.as_bytes());
        let payload = format!("record {number}");
        producer
            .send(&topic, (number % 3) as u32, key, payload.as_bytes(), &headers, number)
            .expect("the queue has room");
    }
    assert!(producer.flush(PATIENCE));
    assert_eq!(producer.in_flight(), 0);
    assert!(producer.is_up());
    assert_eq!(notes(&told), (0..90).map(|number| (number, vec![Ok(())])).collect());

    for partition in 0..3 {
        let mut consumer =
            Consumer::assigned(&scratch.settings, &topic, partition, From::Beginning)
                .expect("the settings are good");
        let records = poll_until(&mut consumer, |records| records.len() >= 30);
        for (at, record) in records.iter().enumerate() {
            let number = at as u64 * 3 + u64::from(partition);
            assert_eq!(record.payload, format!("record {number}").as_bytes());
            assert_eq!((&*record.topic, record.partition), (topic.as_str(), partition));
            assert_eq!(record.offset, at as i64);
            assert_eq!(record.headers.traceparent, number.is_multiple_of(2).then_some(trace));
            let key = number.is_multiple_of(3).then(|| number.to_string());
            assert_eq!(record.key.as_deref(), key.as_deref().map(str::as_bytes));
            assert!(record.timestamp_ms > 1_700_000_000_000);
        }
    }
}

#[test]
#[ignore = "needs the servers of `cargo xtask servers up`"]
fn reading_begins_where_it_is_told_to() {
    let scratch = Scratch::new();
    let topic = scratch.upstream(1);
    let (producer, _) = recording(&scratch.settings);
    let send = |text: &str| {
        producer
            .send(&topic, 0, None, text.as_bytes(), &Headers::default(), 0)
            .expect("the queue has room");
        assert!(producer.flush(PATIENCE));
    };
    (0..5).for_each(|number| send(&number.to_string()));
    let open = |from| Consumer::assigned(&scratch.settings, &topic, 0, from).expect("good");
    let mut third = open(From::Offset(3));
    assert_eq!(poll_until(&mut third, |records| !records.is_empty())[0].payload, "3");

    let mut end = open(From::End);
    // Wherever the end was when it was looked for: nothing older than that is read.
    let mut number = 5;
    let until = Instant::now() + PATIENCE;
    let mut records = Vec::new();
    while records.is_empty() && Instant::now() < until {
        send(&number.to_string());
        number += 1;
        end.poll(&mut records, Duration::from_millis(50), 10).expect("nothing goes wrong");
    }
    assert!(records[0].offset >= 5, "{records:?}");

    third.seek(&[(topic.clone(), 0, 1)]).expect("the partition is ours");
    let again = poll_until(&mut third, |records| records.iter().any(|one| one.payload == "1"));
    let first = again.iter().position(|one| one.payload == "1").expect("it was waited for");
    assert_eq!(again[first + 1].payload, "2");
}

#[test]
#[ignore = "needs the servers of `cargo xtask servers up`"]
fn a_poll_takes_what_is_there_and_no_more_than_it_may() {
    let scratch = Scratch::new();
    let topic = scratch.upstream(1);
    let (producer, _) = recording(&scratch.settings);
    for _ in 0..50 {
        producer.send(&topic, 0, None, b"x", &Headers::default(), 0).expect("room");
    }
    assert!(producer.flush(PATIENCE));
    let mut consumer =
        Consumer::assigned(&scratch.settings, &topic, 0, From::Beginning).expect("good");
    let mut records = Vec::new();
    while records.is_empty() {
        let polled = consumer.poll(&mut records, PATIENCE, 7).expect("nothing goes wrong");
        assert!(polled == Polled::Nothing || polled == Polled::Records(records.len()));
    }
    assert!(records.len() <= 7);
    // All others are there by now or soon: a poll does not wait for the number to be reached.
    while records.len() < 50 {
        let before = Instant::now();
        consumer.poll(&mut records, PATIENCE, 1_000).expect("nothing goes wrong");
        assert!(before.elapsed() < PATIENCE / 2, "it waited for more than there is");
    }
    let polled = consumer.poll(&mut records, Duration::from_millis(20), 10);
    assert_eq!(polled, Ok(Polled::Nothing));
}

#[test]
#[ignore = "needs the servers of `cargo xtask servers up`"]
fn paused_partitions_bring_nothing_and_count_as_lag() {
    let mut scratch = Scratch::new();
    let topic = scratch.upstream(1);
    let (producer, _) = recording(&scratch.settings);
    let group = scratch.group("paused");
    let mut consumer =
        Consumer::group(&scratch.settings, &group, std::slice::from_ref(&topic), None, ())
            .expect("good");
    assert!(consumer.lag().is_err(), "nobody has told it yet");
    let mut records = Vec::new();
    let poll = |consumer: &mut Consumer, records: &mut Vec<Record>| {
        consumer.poll(records, Duration::from_millis(20), 100).expect("nothing goes wrong");
    };
    eventually("the partition is assigned", || {
        poll(&mut consumer, &mut records);
        consumer.partitions() == [(topic.clone(), 0)]
    });
    consumer.pause(&[(topic.clone(), 0)]).expect("it is ours");
    assert_eq!(consumer.paused(), [(topic.clone(), 0)]);
    for _ in 0..10 {
        producer.send(&topic, 0, None, b"x", &Headers::default(), 0).expect("room");
    }
    assert!(producer.flush(PATIENCE));
    for _ in 0..20 {
        poll(&mut consumer, &mut records);
    }
    assert!(records.is_empty());
    consumer.resume(&[(topic.clone(), 0)]).expect("it is ours");
    assert!(consumer.paused().is_empty());
    eventually("all records", || {
        poll(&mut consumer, &mut records);
        records.len() == 10
    });
    eventually("what is not committed is lag", || {
        poll(&mut consumer, &mut records);
        consumer.lag() == Ok(10)
    });
    consumer.commit(&[(topic.clone(), 0, 8)], CommitMode::Sync).expect("it is ours");
    eventually("what is committed is not", || {
        poll(&mut consumer, &mut records);
        consumer.lag() == Ok(2)
    });
    assert!(consumer.health().stalled_for().is_none(), "all records were handed out");
    assert!(consumer.is_up());
}

#[test]
#[ignore = "needs the servers of `cargo xtask servers up`"]
fn topics_are_made_listed_and_deleted() {
    let scratch = Scratch::new();
    let (one, two) = (scratch.settings.upstream(), scratch.settings.push("gw-1"));
    let wanted = [spec(&one, 4), spec(&two, 1)];
    let made = scratch.topics.ensure(&wanted, PATIENCE);
    assert_eq!(made, Ok(vec![(one.clone(), 4), (two.clone(), 1)]));
    // What exists stays as it is.
    let again = scratch.topics.ensure(&[spec(&one, 9)], PATIENCE);
    assert_eq!(again, Ok(vec![(one.clone(), 4)]));
    assert_eq!(scratch.topics.partitions(&one), Ok(4));
    let listed = scratch.topics.list().expect("Kafka is there");
    assert!(listed.contains(&(one.clone(), 4)) && listed.contains(&(two.clone(), 1)));

    scratch.topics.delete(&[one.clone(), two]).expect("both exist");
    eventually("it is gone", || {
        scratch.topics.partitions(&one) == Err(TopicsError::Unknown(one.clone()))
    });
    scratch.topics.delete(std::slice::from_ref(&one)).expect("what is gone is no error");

    let bad = scratch.topics.ensure(&[spec("no spaces allowed", 1)], PATIENCE);
    assert!(matches!(bad, Err(TopicsError::Refused { .. })), "{bad:?}");
    let copies = TopicSpec { replication: 99, ..spec(&one, 1) };
    let bad = scratch.topics.ensure(&[copies], PATIENCE);
    assert!(matches!(bad, Err(TopicsError::Refused { .. })), "{bad:?}");
}

#[test]
#[ignore = "needs the servers of `cargo xtask servers up`"]
fn unknown_topics_are_told() {
    let mut scratch = Scratch::new();
    let nowhere = scratch.settings.push("nowhere");
    let (producer, told) = recording(&scratch.settings);
    producer.send(&nowhere, 0, None, b"x", &Headers::default(), 7).expect("not known yet");
    assert!(producer.flush(PATIENCE));
    assert_eq!(notes(&told).remove(&7), Some(vec![Err(DeliveryError::UnknownTopic)]));
    let refused = producer.send(&nowhere, 0, None, b"x", &Headers::default(), 8);
    assert_eq!(refused, Err(SendError::UnknownTopic), "known by now");

    let topic = scratch.upstream(2);
    producer.send(&topic, 5, None, b"x", &Headers::default(), 9).ok();
    assert!(producer.flush(PATIENCE));
    let told = notes(&told).remove(&9);
    assert_eq!(told, Some(vec![Err(DeliveryError::UnknownTopic)]), "no such partition");

    let group = scratch.group("unknown");
    let mut consumer =
        Consumer::group(&scratch.settings, &group, &[nowhere], None, ()).expect("the name is good");
    let mut records = Vec::new();
    eventually("the consumer is told", || {
        let polled = consumer.poll(&mut records, Duration::from_millis(50), 10);
        assert!(matches!(polled, Ok(Polled::Nothing) | Err(ConsumeError::UnknownTopic)));
        polled.is_err()
    });
}
