//! Echo with tokio-tungstenite.

use futures_util::{SinkExt, StreamExt};
use tokio::net::TcpStream;

fn main() -> std::io::Result<()> {
    peers::run("tokio-tungstenite", serve)
}

/// One loop instead of the two halves of the crate's example, which cost a lock a message.
async fn serve(stream: TcpStream) {
    let Ok(mut socket) = tokio_tungstenite::accept_async(stream).await else { return };
    while let Some(Ok(message)) = socket.next().await {
        let data = message.is_text() || message.is_binary();
        if data && socket.send(message).await.is_err() {
            return;
        }
    }
}
