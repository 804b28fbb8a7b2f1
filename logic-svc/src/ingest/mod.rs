//! How messages come to the pipeline.

pub(crate) mod direct;
