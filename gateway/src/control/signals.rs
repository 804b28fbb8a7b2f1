//! SIGTERM and SIGINT: the first asks to stop in good order, the second at once.

use tokio::signal::unix::{Signal, SignalKind, signal};

/// Both signals. From the moment it is made none of them ends the process by itself.
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// Begins to listen; inside a tokio runtime.
    ///
    /// # Errors
    /// The system does not let us.
    pub fn new() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// Waits for the next of either kind.
    pub async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }

    /// Whoever asks twice does not want to wait.
    pub async fn second(mut self) {
        self.next().await;
        tracing::warn!("stopped at once by a second signal; what was acknowledged is stored");
        std::process::exit(130);
    }
}
