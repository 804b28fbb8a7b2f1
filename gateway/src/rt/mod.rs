//! The only room that names a runtime. A shard needs three things of one: to wait until a descriptor is
//! readable, a timer, and a place to run its two tasks.

mod monoio_rt;

pub use monoio_rt::{Awaitable, IoDriver, block_on, sleep, spawn};
