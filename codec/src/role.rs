//! The two sides of a connection.

/// Which side of a connection we are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// We accepted the connection: input comes from a client.
    Server,
    /// We opened the connection: input comes from a server.
    Client,
}
