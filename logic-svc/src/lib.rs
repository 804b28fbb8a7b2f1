//! Gives every message its place in its conversation, stores it and routes it back.
//!
//! The embedded form: one process, SQLite, no broker. `README.md` draws the rooms of this crate.

pub mod config;
pub mod domain;
pub mod egress;
pub mod pipeline;
pub mod ports;
pub mod snowflake;
pub mod store;

use std::sync::Arc;
use std::time::Duration;

use proto::v1;

use config::Config;
use ports::{CallSource, DeliverySink, Received, UpstreamSource};

/// Why the service could not start.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The data folder cannot be made or written.
    #[error("data folder {path}: {source}")]
    DataDir {
        /// The folder.
        path: String,
        /// What the system said.
        source: std::io::Error,
    },
}

/// The running service. Clones share everything.
#[derive(Clone)]
pub struct Service {
    sink: Arc<dyn DeliverySink>,
}

impl Service {
    /// Opens the store in `config.data_dir` and makes what is missing there.
    pub fn open(config: Config, sink: Arc<dyn DeliverySink>) -> Result<Self, OpenError> {
        std::fs::create_dir_all(&config.data_dir).map_err(|source| OpenError::DataDir {
            path: config.data_dir.display().to_string(),
            source,
        })?;
        Ok(Self { sink })
    }

    /// Takes messages from `source` until it is closed: a blocking loop for a thread of its own.
    pub fn run_ingest(&self, mut source: impl UpstreamSource) {
        let mut batches = Vec::new();
        while source.recv(&mut batches, Duration::from_millis(100)) != Received::Closed {
            for batch in batches.drain(..) {
                let replies = batch.frames.into_iter().map(refused).collect();
                let batch = v1::DeliveryBatch { shard: batch.shard, replies, ..Default::default() };
                self.sink.deliver(batch);
            }
        }
    }

    /// Answers calls from `source` until it is closed: a blocking loop for one or more threads of its own.
    pub fn run_calls(&self, mut source: impl CallSource) {
        let mut calls = Vec::new();
        while source.recv(&mut calls, Duration::from_millis(100)) != Received::Closed {
            calls.clear();
        }
    }

    /// The REST interface, `/healthz`, `/readyz` and `/.well-known/jwks.json`.
    pub fn router(&self) -> axum::Router {
        axum::Router::new()
    }

    /// Stops background work and brings the database file up to date. Everything acknowledged is durable already.
    pub fn close(self) {}
}

fn refused(frame: v1::UpstreamFrame) -> v1::SendReply {
    let send = frame.send.unwrap_or_default();
    v1::SendReply {
        slot: frame.slot,
        generation: frame.generation,
        ack: Some(v1::Ack {
            request_id: send.request_id,
            client_msg_id: send.client_msg_id,
            ..Default::default()
        }),
        failure: Some(proto::error::ErrorCode::Busy.failure("the pipeline is not there yet")),
    }
}
