//! A set of real servers: written to, killed, started again, ended.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::time::Duration;

use super::{Kind, Servers, quoted};
use crate::interrupt::Interrupt;

fn talk(port: u16, question: &[u8], until: &str) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream.write_all(question).unwrap();
    let (mut answer, mut part) = (String::new(), [0; 4096]);
    while !answer.contains(until) {
        let length = stream.read(&mut part).unwrap();
        assert!(length > 0, "closed after {answer:?}");
        answer.push_str(&String::from_utf8_lossy(&part[..length]));
    }
    answer
}

/// Writes to each server. Kafka makes a topic by its own tool.
fn write(servers: &Servers, kind: Kind) {
    let port = servers.port(kind).unwrap();
    match kind {
        Kind::Redis => {
            assert_eq!(talk(port, b"SET place here\r\n", "\n"), "+OK\r\n");
            std::thread::sleep(Duration::from_millis(1500)); // synced every second
        }
        Kind::Etcd => {
            // {"key": "place", "value": "here"}, both in base64.
            etcd(port, "put", r#"{"key":"cGxhY2U=","value":"aGVyZQ=="}"#, "header");
        }
        Kind::MariaDb => {
            sql(port, "CREATE DATABASE d; CREATE TABLE d.t (a INT); INSERT INTO d.t VALUES (42)");
        }
        Kind::Kafka => {
            topics(servers, &["--create", "--topic", "place", "--partitions", "3"]);
        }
    }
}

fn read(servers: &Servers, kind: Kind) {
    let port = servers.port(kind).unwrap();
    match kind {
        Kind::Redis => assert!(talk(port, b"GET place\r\n", "here").contains("here")),
        Kind::Etcd => etcd(port, "range", r#"{"key":"cGxhY2U="}"#, "aGVyZQ=="),
        Kind::MariaDb => assert_eq!(sql(port, "SELECT a FROM d.t").trim(), "42"),
        Kind::Kafka => assert_eq!(topics(servers, &["--list"]).trim(), "place"),
    }
}

fn etcd(port: u16, call: &str, body: &str, until: &str) {
    let length = body.len();
    let request =
        format!("POST /v3/kv/{call} HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n{body}");
    assert!(talk(port, request.as_bytes(), until).starts_with("HTTP/1.1 200"));
}

fn sql(port: u16, statement: &str) -> String {
    let port = format!("--port={port}");
    let mut command = Command::new("mariadb");
    command.args(["--no-defaults", "--host=127.0.0.1", "--user=root", "--batch", &port]);
    output(command.args(["--skip-column-names", "--execute", statement]))
}

fn topics(servers: &Servers, arguments: &[&str]) -> String {
    let mut command = Command::new("java");
    let jars = servers.kafka_jars().join("*");
    command.arg("-cp").arg(jars).arg("org.apache.kafka.tools.TopicCommand");
    let address = servers.address(Kind::Kafka).unwrap();
    let text = output(command.args(["--bootstrap-server", &address]).args(arguments));
    text.lines().filter(|line| !line.starts_with("Created")).collect()
}

fn output(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    text
}

#[test]
#[ignore = "starts Kafka, MariaDB, Redis and etcd"]
fn a_private_set_keeps_its_data_over_a_kill_and_leaves_nothing() {
    let interrupt = Interrupt::default();
    let mut say = |line: &str| eprintln!("{line}");
    let mut servers = Servers::private("servers-test", &Kind::ALL, &interrupt, &mut say).unwrap();
    let folder = servers.folder().to_path_buf();
    let mut pids = Vec::new();
    for kind in Kind::ALL {
        write(&servers, kind);
        let before = servers.running(kind).unwrap().unwrap();
        let port = servers.port(kind);
        servers.kill(kind).unwrap();
        assert!(servers.running(kind).unwrap().is_none());
        servers.start(kind, &interrupt, &mut say).unwrap();
        let after = servers.running(kind).unwrap().unwrap();
        assert_ne!(before.pid(), after.pid());
        assert_eq!(servers.port(kind), port);
        read(&servers, kind);
        pids.extend([before, after]);
    }
    assert_eq!(servers.up(&interrupt, &mut say).unwrap(), []);
    drop(servers);
    assert!(pids.iter().all(|daemon| !daemon.runs()));
    assert!(!folder.exists());
}

#[test]
#[ignore = "starts Redis"]
fn an_interrupted_start_leaves_nothing() {
    let interrupt = Interrupt::default();
    interrupt.raise();
    let mut said = Vec::new();
    let mut say = |line: &str| said.push(line.to_owned());
    let kinds = [Kind::Redis, Kind::Etcd];
    let outcome = Servers::private("servers-interrupted", &kinds, &interrupt, &mut say);
    let folder =
        std::env::temp_dir().join(format!("corelane-servers-interrupted-{}", std::process::id()));
    assert!(outcome.is_err());
    assert!(!folder.exists());
}

#[test]
fn addresses_are_words_of_a_shell() {
    assert_eq!(quoted("mysql://root@127.0.0.1:3306"), "mysql://root@127.0.0.1:3306");
    assert_eq!(quoted("mysql://a:it's$x@h"), r"'mysql://a:it'\''s$x@h'");
}
