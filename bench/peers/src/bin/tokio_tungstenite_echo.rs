//! Echo with tokio-tungstenite.

use futures_util::{SinkExt, StreamExt};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;

/// The default of 128 KiB is filled with zeros before every read, which would double the CPU of a
/// small message and cost each connection as much memory.
const READ_BUFFER_BYTES: usize = 4096;

fn main() -> std::io::Result<()> {
    peers::run("tokio-tungstenite", serve)
}

/// One loop instead of the two halves of the crate's example, which cost a lock a message.
async fn serve(stream: TcpStream) {
    let config = WebSocketConfig::default().read_buffer_size(READ_BUFFER_BYTES);
    let accepted = tokio_tungstenite::accept_async_with_config(stream, Some(config)).await;
    let Ok(mut socket) = accepted else { return };
    while let Some(Ok(message)) = socket.next().await {
        let data = message.is_text() || message.is_binary();
        if data && socket.send(message).await.is_err() {
            return;
        }
    }
}
