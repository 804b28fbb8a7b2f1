//! Servers and clients as children of a test.

#![allow(dead_code, reason = "not every test file starts everything")]

use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::thread;

use serde_json::Value;

/// A child that goes with its value.
pub(crate) struct Running(pub(crate) Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Builds and starts a C unit; its address and process.
pub(crate) fn unit(folder: &tempfile::TempDir, name: &str) -> (String, Running) {
    let source = PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR").unwrap())
        .join(format!("units/{name}.c"));
    let binary = folder.path().join(name);
    let compiled = Command::new("cc")
        .args(["-O2", "-Wall", "-Wextra", "-Werror", "-o"])
        .args([&binary, &source])
        .output()
        .expect("a C compiler");
    assert!(compiled.status.success(), "{}", String::from_utf8_lossy(&compiled.stderr));
    let mut child = Command::new(binary).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let ready = format!("{name} ready on ");
    let address = line.trim().strip_prefix(&ready).expect("the ready line");
    (address.to_owned(), Running(child))
}

/// A server in this process: `serve` gets every connection on a thread of its own.
pub(crate) fn serve(serve: impl Fn(TcpStream) + Send + Sync + Clone + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address: SocketAddr = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let serve = serve.clone();
            thread::spawn(move || {
                serve(stream);
                // A thread that ends takes its CPU time with it, and another client may be measuring this process.
                loop {
                    thread::park();
                }
            });
        }
    });
    address.to_string()
}

/// The report of a client that must have ended well.
pub(crate) fn report(output: &Output) -> Value {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}
