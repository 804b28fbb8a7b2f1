//! What lies behind the uplink. `direct`: the logic service in the same process.

pub mod direct;
