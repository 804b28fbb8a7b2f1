//! The only room that touches a database; presence lives here too, in the embedded form in memory.

pub mod presence;
pub mod sqlite;
