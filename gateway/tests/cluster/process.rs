//! A gateway as a process, its clients, and the servers behind it.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use cluster::{etcd, kafka};
use serde_json::{Value, json};
use socket2::{Domain, Socket, Type};
use tungstenite::{Message, WebSocket};

pub(crate) const LONG: Duration = Duration::from_secs(30);

/// Names of one test's own on the servers that all tests share.
pub(crate) struct World {
    pub(crate) kafka: kafka::Settings,
    pub(crate) etcd_settings: etcd::Settings,
    pub(crate) etcd: etcd::Etcd,
}

fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set"))
}

impl World {
    pub(crate) async fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("gw-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::SeqCst));
        let kafka = kafka::Settings {
            brokers: variable("CORELANE_TEST_KAFKA"),
            topic_prefix: format!("{name}-"),
            ..kafka::Settings::default()
        };
        let etcd_settings = etcd::Settings {
            endpoints: vec![variable("CORELANE_TEST_ETCD")],
            root: format!("/{name}"),
            lease_ttl_s: 3,
            ..etcd::Settings::default()
        };
        let etcd = etcd::Etcd::connect(&etcd_settings).await.unwrap();
        Self { kafka, etcd_settings, etcd }
    }

    pub(crate) async fn end(self) {
        self.etcd.remove_root().await.unwrap();
        let kafka = self.kafka.clone();
        tokio::task::spawn_blocking(move || {
            let topics = kafka::Topics::new(&kafka).unwrap();
            let all = topics.list().unwrap();
            let ours = all.into_iter().map(|(name, _)| name);
            let ours: Vec<_> = ours.filter(|name| name.starts_with(&kafka.topic_prefix)).collect();
            topics.delete(&ours).unwrap();
        })
        .await
        .unwrap();
    }

    pub(crate) fn command(&self, gateway_id: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_gateway"));
        command
            .args(["--gateway-id", gateway_id, "--listen", "127.0.0.1:0", "--dev-login"])
            .args(["--shards", "2", "--lease-ttl-s", "3", "--message-burst", "1000"])
            .args(["--kafka", &self.kafka.brokers, "--topic-prefix", &self.kafka.topic_prefix])
            .args(["--etcd", &self.etcd_settings.endpoints[0]])
            .args(["--etcd-root", &self.etcd_settings.root]);
        command
    }

    pub(crate) fn gateway(&self, gateway_id: &str) -> Gateway {
        // Held, but without listening, until the gateway listens there: meanwhile nobody is given the port,
        // and whoever asks for it by its number gets it.
        let held = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        held.set_reuse_address(true).unwrap();
        held.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
        let unused = held.local_addr().unwrap().as_socket().unwrap();
        let mut command = self.command(gateway_id);
        command.args(["--metrics-listen", &unused.to_string()]);
        Gateway::ready(command.stdout(Stdio::piped()).spawn().unwrap(), unused)
    }
}

pub(crate) struct Gateway {
    child: Child,
    pub(crate) addr: String,
    metrics: SocketAddr,
}

impl Gateway {
    fn ready(mut child: Child, metrics: SocketAddr) -> Self {
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let addr = line.trim_end().strip_prefix("gateway ready on http://");
        let addr = addr.unwrap_or_else(|| panic!("{line:?}")).to_owned();
        Self { child, addr, metrics }
    }

    pub(crate) fn terminate(&self) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    }

    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Waits for its end.
    pub(crate) fn ended(mut self) -> ExitStatus {
        wait_for("the end of the gateway", || self.child.try_wait().unwrap())
    }

    pub(crate) fn client(&self, name: &str) -> Client {
        let stream = TcpStream::connect(&self.addr).unwrap();
        stream.set_read_timeout(Some(LONG)).unwrap();
        let url = format!("ws://{}/ws?user_id={name}", self.addr);
        Client(tungstenite::client(url, stream).unwrap().0)
    }

    /// Status and body of a plain request.
    pub(crate) fn get(&self, path: &str) -> (u16, String) {
        self.request(&format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"))
    }

    /// The sum of a metric over its labels; `None`: there is no such metric.
    pub(crate) fn metric(&self, name: &str) -> Option<f64> {
        let request = "GET /metrics HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
        let (_, text) = ask(&self.metrics.to_string(), request);
        let lines = text.lines().filter(|line| {
            line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']))
        });
        let values: Vec<f64> =
            lines.filter_map(|line| line.rsplit(' ').next()?.parse().ok()).collect();
        (!values.is_empty()).then(|| values.iter().sum())
    }

    pub(crate) fn request(&self, text: &str) -> (u16, String) {
        ask(&self.addr, text)
    }
}

fn ask(addr: &str, text: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(addr).unwrap();
    stream.set_read_timeout(Some(LONG)).unwrap();
    stream.write_all(text.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap();
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body).to_owned();
    (status, body)
}

impl Drop for Gateway {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

pub(crate) struct Client(WebSocket<TcpStream>);

impl Client {
    pub(crate) fn say(&mut self, frame: &Value) {
        self.0.send(Message::text(frame.to_string())).unwrap();
    }

    pub(crate) fn send(&mut self, conversation: &str, msg_id: &str) {
        self.send_all(conversation, [msg_id.to_owned()]);
    }

    /// Sends some messages as one piece.
    pub(crate) fn send_all(
        &mut self,
        conversation: &str,
        msg_ids: impl IntoIterator<Item = String>,
    ) {
        for id in msg_ids {
            let frame = json!({"cmd": 2, "msg_id": id, "conversation_id": conversation, "payload": {"content": id}});
            self.0.write(Message::text(frame.to_string())).unwrap();
        }
        self.0.flush().unwrap();
    }

    /// The next frame with this command; others are passed over.
    pub(crate) fn next(&mut self, cmd: u64) -> Value {
        loop {
            match self.0.read().unwrap() {
                Message::Text(text) => {
                    let frame: Value = serde_json::from_str(&text).unwrap();
                    if frame["cmd"] == cmd {
                        return frame;
                    }
                }
                Message::Close(frame) => panic!("closed: {frame:?}"),
                _ => {}
            }
        }
    }

    /// The close code, whatever comes before.
    pub(crate) fn closed(&mut self) -> u16 {
        loop {
            match self.0.read() {
                Ok(Message::Close(frame)) => return frame.map_or(1005, |frame| frame.code.into()),
                Ok(_) => {}
                Err(error) => panic!("{error}"),
            }
        }
    }
}

pub(crate) fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(begun.elapsed() < LONG, "{what} did not come");
        std::thread::sleep(Duration::from_millis(10));
    }
}
