//! A started `corelane` and clients for it: everything goes over its outside surface.
#![allow(dead_code, unreachable_pub, reason = "each test file uses its own part")]

mod distributed;

use std::io::{BufRead, BufReader};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;
use tungstenite::client::IntoClientRequest;
use tungstenite::{Message, WebSocket};

/// Logging in by name, and no rate limit in the way.
pub const DEV: &[&str] = &[
    "--dev-login",
    "--messages-per-second",
    "100000",
    "--message-burst",
    "100000",
    "--requests-per-second",
    "100000",
    "--request-burst",
    "100000",
];
pub const PATIENCE: Duration = Duration::from_secs(20);

/// The binary under test: the one this package builds, or the one that CORELANE_BIN names.
pub fn command() -> Command {
    let binary =
        std::env::var("CORELANE_BIN").unwrap_or_else(|_| env!("CARGO_BIN_EXE_corelane").to_owned());
    let mut command = Command::new(binary);
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("CORELANE_")) {
        command.env_remove(name);
    }
    // The same tests on another driver than the default.
    if let Ok(io) = std::env::var("CORELANE_TEST_IO") {
        command.env("CORELANE_IO", io);
    }
    command.stdin(Stdio::null()).stderr(Stdio::null());
    command
}

pub struct Server {
    /// `corelane`; in the cluster form all logic services and gateways.
    processes: Vec<Child>,
    pub addr: String,
    /// Where clients connect, in turns.
    addrs: Vec<String>,
    turn: AtomicUsize,
    pub ready_after: Duration,
}

impl Server {
    /// Starts it on a free port, or on `addr`, and waits for its ready line.
    pub fn start_on(addr: &str, data: &Path, options: &[&str]) -> Self {
        Self::spawn(command(), addr, data, options)
    }

    /// With so many open files allowed.
    pub fn start_with_files(files: u64, data: &Path, options: &[&str]) -> Self {
        let corelane = command();
        let mut limited = Command::new("sh");
        limited.args(["-c", &format!("ulimit -n {files} && exec \"$0\" \"$@\"")]);
        limited.arg(corelane.get_program());
        for (name, _) in corelane.get_envs() {
            limited.env_remove(name);
        }
        limited.stdin(Stdio::null()).stderr(Stdio::null());
        Self::spawn(limited, "127.0.0.1:0", data, options)
    }

    fn spawn(mut command: Command, addr: &str, data: &Path, options: &[&str]) -> Self {
        let started = Instant::now();
        if distributed::wanted() {
            let distributed::Started { processes, addrs } = distributed::start(data, options);
            return Self::of(processes, addrs, started);
        }
        let mut child = command
            .args(["--listen", addr, "--data-dir"])
            .arg(data)
            .args(options)
            .stdout(Stdio::piped())
            .spawn()
            .expect("corelane starts");
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let addr = line
            .trim_end()
            .strip_prefix("corelane ready on http://")
            .unwrap_or_else(|| panic!("not a ready line: {line:?}"));
        let addr = addr.to_owned();
        Self::of(vec![child], vec![addr], started)
    }

    fn of(processes: Vec<Child>, addrs: Vec<String>, started: Instant) -> Self {
        let addr = addrs[0].clone();
        Self { processes, addr, addrs, turn: AtomicUsize::new(0), ready_after: started.elapsed() }
    }

    fn next_addr(&self) -> &str {
        &self.addrs[self.turn.fetch_add(1, Ordering::Relaxed) % self.addrs.len()]
    }

    pub fn start(data: &Path, options: &[&str]) -> Self {
        Self::start_on("127.0.0.1:0", data, options)
    }

    /// With logging in by name and no rate limit in the way.
    pub fn dev(data: &Path) -> Self {
        Self::start(data, DEV)
    }

    pub fn pid(&self) -> u32 {
        self.processes[0].id()
    }

    pub fn signal(&self, signal: Signal) {
        for process in &self.processes {
            kill_process(Pid::from_child(process), signal).unwrap();
        }
    }

    pub fn wait(&mut self) -> ExitStatus {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let ended: Option<Vec<ExitStatus>> =
                self.processes.iter_mut().map(|process| process.try_wait().unwrap()).collect();
            if let Some(ended) = ended {
                // Of several the one that did not end well, if any.
                return ended.iter().find(|status| !status.success()).copied().unwrap_or(ended[0]);
            }
            assert!(Instant::now() < deadline, "corelane does not end");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    pub fn stop(mut self) -> ExitStatus {
        self.signal(Signal::TERM);
        self.wait()
    }

    pub fn kill(mut self) {
        for process in &mut self.processes {
            process.kill().unwrap();
        }
        for process in &mut self.processes {
            process.wait().unwrap();
        }
    }

    /// Kills the gateway that listens on this port (gateways are the last processes, in the order of their addresses).
    pub fn kill_gateway(&mut self, port: u16) {
        let suffix = format!(":{port}");
        let at = self.addrs.iter().position(|addr| addr.ends_with(&suffix)).unwrap();
        let first = self.processes.len() - self.addrs.len();
        let gateway = &mut self.processes[first + at];
        gateway.kill().unwrap();
        gateway.wait().unwrap();
    }

    pub fn socket(&self, target: &str) -> Client {
        self.socket_with(target, &[]).unwrap()
    }

    pub fn socket_with(
        &self,
        target: &str,
        headers: &[(&'static str, &str)],
    ) -> tungstenite::Result<Client> {
        let addr = self.next_addr();
        let mut request = format!("ws://{addr}{target}").into_client_request()?;
        for (name, value) in headers {
            request.headers_mut().insert(*name, value.parse().unwrap());
        }
        let stream = TcpStream::connect(addr)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_nodelay(true)?;
        match tungstenite::client(request, stream) {
            Ok((socket, response)) => Ok(Client {
                socket,
                protocol: response
                    .headers()
                    .get("sec-websocket-protocol")
                    .map(|v| v.to_str().unwrap().to_owned()),
            }),
            Err(tungstenite::HandshakeError::Failure(error)) => Err(error),
            Err(tungstenite::HandshakeError::Interrupted(_)) => {
                panic!("the handshake was not answered")
            }
        }
    }

    pub fn dev_user(&self, name: &str) -> Client {
        self.socket(&format!("/ws?user_id={name}"))
    }

    pub fn rest(
        &self,
        method: &str,
        path: &str,
        token: Option<&str>,
        body: Option<Value>,
    ) -> Reply {
        rest(self.next_addr(), method, path, token, body)
    }

    /// Registers and logs in; the login's answer.
    pub fn user(&self, name: &str) -> Value {
        let made = self.rest(
            "POST",
            "/api/v1/users",
            None,
            Some(json!({"username": name, "password": "correct horse"})),
        );
        assert_eq!(made.status, 201, "{:?}", made.body);
        let login = self.rest(
            "POST",
            "/api/v1/login",
            None,
            Some(json!({"username": name, "password": "correct horse"})),
        );
        assert_eq!(login.status, 200, "{:?}", login.body);
        login.body
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        for process in &mut self.processes {
            let _ = process.kill();
        }
        for process in &mut self.processes {
            let _ = process.wait();
        }
    }
}

#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub content_type: String,
    pub body: Value,
}

pub fn rest(
    addr: &str,
    method: &str,
    path: &str,
    token: Option<&str>,
    body: Option<Value>,
) -> Reply {
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .timeout_global(Some(PATIENCE))
        .build()
        .into();
    let mut request =
        ureq::http::Request::builder().method(method).uri(format!("http://{addr}{path}"));
    if let Some(token) = token {
        request = request.header("Authorization", format!("Bearer {token}"));
    }
    let text = body.map(|body| body.to_string()).unwrap_or_default();
    let request = request.header("Content-Type", "application/json").body(text).unwrap();
    let mut response = agent.run(request).unwrap();
    let content_type = response
        .headers()
        .get("content-type")
        .map(|v| v.to_str().unwrap().to_owned())
        .unwrap_or_default();
    let text = response.body_mut().read_to_string().unwrap();
    let body = serde_json::from_str(&text).unwrap_or(Value::String(text));
    Reply { status: response.status().as_u16(), content_type, body }
}

pub struct Client {
    socket: WebSocket<TcpStream>,
    pub protocol: Option<String>,
}

impl Client {
    /// The port of the server it is connected to.
    pub fn peer(&self) -> u16 {
        self.socket.get_ref().peer_addr().unwrap().port()
    }

    pub fn text(&mut self, text: &str) {
        self.socket.send(Message::text(text)).unwrap();
    }

    pub fn json(&mut self, frame: &Value) {
        self.text(&frame.to_string());
    }

    /// Several frames in one piece, so that no time passes between them.
    pub fn together(&mut self, frames: &[Value]) {
        for frame in frames {
            self.socket.write(Message::text(frame.to_string())).unwrap();
        }
        self.socket.flush().unwrap();
    }

    /// The next data frame, or the close code.
    pub fn next(&mut self) -> Result<Value, u16> {
        loop {
            match self.socket.read() {
                Ok(Message::Text(text)) => return Ok(serde_json::from_str(&text).unwrap()),
                Ok(Message::Close(frame)) => {
                    return Err(frame.map_or(1005, |frame| frame.code.into()));
                }
                Ok(_) => {}
                Err(tungstenite::Error::Io(error))
                    if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(tungstenite::Error::ConnectionClosed | tungstenite::Error::Protocol(_)) => {
                    return Err(1006);
                }
                Err(error) => panic!("{error}"),
            }
        }
    }

    pub fn ask(&mut self, frame: &Value) -> Value {
        self.json(frame);
        self.next().unwrap_or_else(|code| panic!("closed with {code} after {frame}"))
    }

    /// Sends a message and returns its answer.
    pub fn send(&mut self, conversation: &str, msg_id: &str, content: &str) -> Value {
        self.ask(&message(conversation, msg_id, content))
    }

    pub fn pull(&mut self, conversation: &str, cursor_seq: u64, limit: u32) -> Value {
        self.ask(
            &json!({"cmd":3,"conversation_id":conversation,"cursor_seq":cursor_seq,"limit":limit}),
        )
    }

    pub fn close_code(&mut self) -> u16 {
        loop {
            if let Err(code) = self.next() {
                return code;
            }
        }
    }

    /// That nothing comes: a heartbeat's answer is the next frame.
    pub fn expect_silence(&mut self) {
        assert_eq!(self.ask(&json!({"cmd":0})), json!({"cmd":0,"code":0}));
    }
}

/// The frame that sends a message.
pub fn message(conversation: &str, msg_id: &str, content: &str) -> Value {
    json!({"cmd":2,"msg_id":msg_id,"conversation_id":conversation,"payload":{"content":content,"msg_type":1}})
}

pub fn data_dir() -> TempDir {
    tempfile::tempdir().unwrap()
}
