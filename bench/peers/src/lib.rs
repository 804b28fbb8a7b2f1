//! What the echo servers of this folder have in common: one thread, one listener, one ready line.

pub mod websocket;

use std::future::Future;
use std::io;
use std::net::SocketAddr;

use socket2::{Domain, Socket, Type};
use tokio::net::{TcpListener, TcpStream};

/// As many as Corelane queues: a herd must not lose its first packets here.
const BACKLOG: i32 = 4096;

/// Accepts connections on the address after `--listen` and starts `serve` on each of them, all on
/// this thread.
///
/// # Errors
/// When the address is missing or taken.
pub fn run<F>(name: &str, serve: fn(TcpStream) -> F) -> io::Result<()>
where
    F: Future<Output = ()> + 'static,
{
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    let tasks = tokio::task::LocalSet::new();
    tasks.block_on(&runtime, async {
        let listener = TcpListener::from_std(listen(address()?)?.into())?;
        println!("{name} ready on {}", listener.local_addr()?);
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            // As the authors of these crates do in their own benchmarks: a task that is never
            // made to give way.
            tokio::task::spawn_local(tokio::task::unconstrained(serve(stream)));
        }
    })
}

/// The address after `--listen`, the only option.
///
/// # Errors
/// When the command line says anything else.
pub fn address() -> io::Result<SocketAddr> {
    let usage = || io::Error::other("usage: PROGRAM --listen ADDRESS:PORT");
    let mut arguments = std::env::args().skip(1);
    match (arguments.next().as_deref(), arguments.next(), arguments.next()) {
        (Some("--listen"), Some(address), None) => address.parse().map_err(|_| usage()),
        _ => Err(usage()),
    }
}

/// A listener that never blocks.
///
/// # Errors
/// When the address is taken.
pub fn listen(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket)
}
