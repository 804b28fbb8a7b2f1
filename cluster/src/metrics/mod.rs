//! Prometheus text on an HTTP listener of its own.
