//! Stands between a store and its server and does something at one certain statement.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

/// How long the answer that is to be lost is waited for.
const ANSWER_LIMIT: Duration = Duration::from_secs(30);

/// What happens at the next statement that is waited for; 0 stands for nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum At {
    /// A commit reaches the server, its answer gets lost.
    CommitAnswer = 1,
    /// A commit does not reach the server.
    Commit = 2,
    /// A prepared statement reaches the server, its answer gets lost.
    ExecuteAnswer = 3,
}

/// Called with the connection's number when a commit passes, before the server has it.
type OnCommit = Box<dyn Fn() + Send>;

pub(super) struct Proxy {
    pub(super) port: u16,
    shared: Arc<Shared>,
}

struct Shared {
    server: String,
    at: AtomicU8,
    on_commit: Mutex<Option<OnCommit>>,
}

impl Proxy {
    /// `server` is host and port.
    pub(super) fn start(server: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let shared = Arc::new(Shared {
            server: server.to_owned(),
            at: AtomicU8::new(0),
            on_commit: Mutex::default(),
        });
        let for_all = Arc::clone(&shared);
        // Ends with the test's process.
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let shared = Arc::clone(&for_all);
                thread::spawn(move || shared.serve(client));
            }
        });
        Self { port, shared }
    }

    pub(super) fn set(&self, at: At) {
        self.shared.at.store(at as u8, Ordering::SeqCst);
    }

    pub(super) fn on_commit(&self, act: impl Fn() + Send + 'static) {
        *self.shared.on_commit.lock().unwrap() = Some(Box::new(act));
    }
}

impl Shared {
    fn serve(&self, mut client: TcpStream) {
        let Ok(mut server) = TcpStream::connect(&self.server) else { return };
        client.set_nodelay(true).unwrap();
        server.set_nodelay(true).unwrap();
        let (answers, to_client) = (server.try_clone().unwrap(), client.try_clone().unwrap());
        let lose = Arc::new(AtomicBool::new(false));
        let (lost, answered) = channel();
        let back = thread::spawn({
            let lose = Arc::clone(&lose);
            move || pass_back(answers, to_client, &lose, &lost)
        });
        let mut bytes = vec![0; 1 << 20];
        while let Ok(count) = client.read(&mut bytes) {
            let sent = &bytes[..count];
            let commit = sent.ends_with(b"COMMIT");
            if commit && let Some(act) = self.on_commit.lock().unwrap().take() {
                act();
            }
            let execute = sent.get(4) == Some(&0x17);
            let at = self.at.load(Ordering::SeqCst);
            let hit = match at {
                1 | 2 => commit,
                3 => execute,
                _ => false,
            };
            if hit {
                self.at.store(0, Ordering::SeqCst);
                // The client hears nothing from here on, and of the end only when the server is through with it.
                lose.store(true, Ordering::SeqCst);
                if at != At::Commit as u8 {
                    let _ = server.write_all(sent);
                    let _ = answered.recv_timeout(ANSWER_LIMIT);
                }
                let _ = client.shutdown(Shutdown::Both);
                break;
            }
            if count == 0 || server.write_all(sent).is_err() {
                break;
            }
        }
        let _ = server.shutdown(Shutdown::Both);
        let _ = back.join();
    }
}

/// Passes answers on, until they are to be lost.
fn pass_back(mut answers: TcpStream, mut client: TcpStream, lose: &AtomicBool, lost: &Sender<()>) {
    let mut bytes = vec![0; 1 << 16];
    while let Ok(count @ 1..) = answers.read(&mut bytes) {
        if lose.load(Ordering::SeqCst) {
            let _ = lost.send(());
        } else if client.write_all(&bytes[..count]).is_err() {
            break;
        }
    }
    let _ = client.shutdown(Shutdown::Both);
}
