//! Brokers that tell of topics and of no brokers, as one does that its controller has not let in yet.

use std::collections::HashMap;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::AtomicBool;

use rdkafka::mocking::MockCluster;

use super::*;

/// The api key of requests for metadata.
const METADATA: i16 = 3;
/// From this version on lengths are varints and structures end with tags.
const FLEXIBLE: i16 = 9;

/// Stands before a broker, and in its place in all answers; those about metadata name nobody if it forgets.
struct Forgetful {
    address: SocketAddr,
    forgets: Arc<AtomicBool>,
}

impl Forgetful {
    fn before(broker: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has ports");
        let address = listener.local_addr().expect("it is bound");
        let forgets = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&forgets);
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let Ok(server) = TcpStream::connect(broker) else { continue };
                let asked = Arc::new(Mutex::new(HashMap::new()));
                let (from, to) = (client.try_clone().unwrap(), server.try_clone().unwrap());
                let noted = Arc::clone(&asked);
                std::thread::spawn(move || pass(from, to, |frame| note(frame, &noted)));
                let told = Arc::clone(&told);
                let edit = move |frame: &mut Vec<u8>| {
                    let forgets = told.load(Ordering::Relaxed);
                    edit(frame, &asked, (broker.port(), address.port()), forgets);
                };
                std::thread::spawn(move || pass(server, client, edit));
            }
        });
        Self { address, forgets }
    }
}

/// Passes frames on, each as `look` leaves it.
fn pass(mut from: TcpStream, mut to: TcpStream, mut look: impl FnMut(&mut Vec<u8>)) {
    let mut length = [0; 4];
    while from.read_exact(&mut length).is_ok() {
        let mut frame = vec![0; u32::from_be_bytes(length) as usize];
        if from.read_exact(&mut frame).is_err() {
            break;
        }
        look(&mut frame);
        let length = u32::try_from(frame.len()).unwrap().to_be_bytes();
        if to.write_all(&[&length[..], &frame].concat()).is_err() {
            break;
        }
    }
    let _ = (from.shutdown(std::net::Shutdown::Both), to.shutdown(std::net::Shutdown::Both));
}

/// Requests for metadata under way: the version by the number of the request.
type Asked = Mutex<HashMap<[u8; 4], i16>>;

fn note(frame: &[u8], asked: &Asked) {
    let key = i16::from_be_bytes(frame[..2].try_into().unwrap());
    let version = i16::from_be_bytes(frame[2..4].try_into().unwrap());
    if key == METADATA {
        asked.lock().unwrap().insert(frame[4..8].try_into().unwrap(), version);
    }
}

fn edit(frame: &mut Vec<u8>, asked: &Asked, ports: (u16, u16), forgets: bool) {
    lead_here(frame, ports);
    let number: [u8; 4] = frame[..4].try_into().unwrap();
    let Some(version) = asked.lock().unwrap().remove(&number) else { return };
    if forgets {
        let none: &[u8] = if version < FLEXIBLE { &[0; 4] } else { &[1] };
        frame.splice(brokers(frame, version), none.iter().copied());
    }
}

/// Answers name the proxy wherever they name the broker.
fn lead_here(frame: &mut [u8], (broker, here): (u16, u16)) {
    let address = |port: u16| [b"127.0.0.1", &u32::from(port).to_be_bytes()[..]].concat();
    let (old, new) = (address(broker), address(here));
    for at in 0..frame.len() {
        if frame[at..].starts_with(&old) {
            frame[at..at + old.len()].copy_from_slice(&new);
        }
    }
}

/// Where the brokers of an answer about metadata stand.
fn brokers(frame: &[u8], version: i16) -> std::ops::Range<usize> {
    let flexible = version >= FLEXIBLE;
    // The number of the request, tags, and how long the client is to wait.
    let begin = 4 + usize::from(flexible) + if version >= 3 { 4 } else { 0 };
    let be = |at: usize, bytes: usize| {
        frame[at..at + bytes].iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte))
    };
    // All lengths here fit into one byte of a varint, which is one more than the length.
    let short = |at: usize| usize::from(frame[at]).saturating_sub(1);
    let string = |at: usize| match flexible {
        true => at + 1 + short(at),
        false if be(at, 2) == 0xffff => at + 2,
        false => at + 2 + be(at, 2),
    };
    let (count, mut at) =
        if flexible { (short(begin), begin + 1) } else { (be(begin, 4), begin + 4) };
    for _ in 0..count {
        // Number, host, port, rack, tags.
        at = string(at + 4) + 4;
        if version >= 1 {
            at = string(at);
        }
        at += usize::from(flexible);
    }
    begin..at
}

#[test]
fn clients_that_are_told_of_no_broker_find_their_way_back() {
    let cluster = MockCluster::new(1).expect("a simulated cluster");
    cluster.create_topic("t", 1, 1).expect("it takes topics");
    let proxy = Forgetful::before(cluster.bootstrap_servers().parse().expect("one address"));
    let extra =
        [("producer.enable.idempotence", "false"), ("topic.metadata.refresh.interval.ms", "100")];
    let settings = Settings {
        brokers: proxy.address.to_string(),
        message_timeout_ms: 30_000,
        statistics_interval_ms: 100,
        extra: extra.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec(),
        ..Settings::default()
    };
    let (producer, told) = recording(&settings);
    let mut consumer = Consumer::assigned(&settings, "t", 0, From::Beginning).expect("good");
    let send = |token| producer.send("t", 0, None, b"x", &Headers::default(), token);
    for round in 0..3 {
        send(round).expect("room");
        assert!(producer.flush(PATIENCE), "round {round}");
        assert_eq!(notes(&told).remove(&round), Some(vec![Ok(())]), "round {round}");
        assert_eq!(poll_until(&mut consumer, |records| !records.is_empty()).len(), 1);

        proxy.forgets.store(true, Ordering::Relaxed);
        let (mut records, mut lost) = (Vec::new(), [false; 2]);
        eventually("both have lost their broker", || {
            consumer.poll(&mut records, Duration::from_millis(5), 10).expect("no error");
            lost = [lost[0] || !producer.is_up(), lost[1] || !consumer.is_up()];
            lost == [true; 2]
        });
        proxy.forgets.store(false, Ordering::Relaxed);
    }
}
