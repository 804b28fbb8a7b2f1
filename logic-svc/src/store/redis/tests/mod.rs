//! Against real servers: keys of their own on the shared one, servers of their own for what breaks them.

mod caches;
mod faults;
mod nodes;
mod reports;
mod server;
mod sessions;
mod warm;
mod watches;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::*;
use crate::domain::delivery::ConnectionId;
use crate::gateways::Gateways;
use crate::ports::{Clock, Login, SessionChange, Sessions, StoreError};
use server::Server;

/// A time of day that tests move.
struct Hand(AtomicU64);

impl Hand {
    fn pass_ms(&self, more: u64) {
        self.0.fetch_add(more, Ordering::Relaxed);
    }
}

impl Clock for Hand {
    fn now_ms(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Keys of one test, gone when it ends; with two gateways that live.
struct Space {
    client: Client,
    address: String,
    prefix: String,
    gateways: Arc<Gateways>,
    clock: Arc<Hand>,
}

impl Space {
    /// On the shared server.
    fn shared() -> Self {
        let address = std::env::var("CORELANE_TEST_REDIS")
            .expect("CORELANE_TEST_REDIS names the server, see `cargo xtask servers env`");
        Self::at(&address)
    }

    fn at(address: &str) -> Self {
        let prefix = format!("t{}:", uuid::Uuid::new_v4().simple());
        let options = Options::new(address, &prefix).expect("a good address");
        let gateways = Gateways::default();
        gateways.set_live([("gw-1".to_owned(), 11), ("gw-2".to_owned(), 12)]);
        Self {
            client: Client::new(options),
            address: address.to_owned(),
            prefix,
            gateways: Arc::new(gateways),
            clock: Arc::new(Hand(AtomicU64::new(1_790_000_000_000))),
        }
    }

    fn table(&self) -> SessionTable {
        self.table_with(RouteSettings::default())
    }

    fn table_with(&self, settings: RouteSettings) -> SessionTable {
        let clock: Arc<dyn Clock> = self.clock.clone();
        SessionTable::new(self.client.clone(), Arc::clone(&self.gateways), clock, settings)
    }

    fn warm(&self) -> Warm {
        let clock: Arc<dyn Clock> = self.clock.clone();
        let settings = WarmSettings::default();
        Warm::new(self.client.clone(), Arc::clone(&self.gateways), clock, settings)
    }

    fn gateway(&self, number: u64) -> u32 {
        self.gateways.number_of(&format!("gw-{number}"), 10 + number)
    }

    fn on(&self, gateway: u64, slot: u32) -> ConnectionId {
        ConnectionId { gateway: self.gateway(gateway), shard: 0, slot, generation: 1 }
    }

    /// The answer to a plain command.
    fn ask(&self, command: &str, key: &str, words: &[&str]) -> ::redis::Value {
        let mut batch = self.client.batch();
        batch.command(command, 1 + words.len()).key_text(key, "");
        for word in words {
            batch.argument(word.as_bytes());
        }
        self.client.run(&batch).expect("the server answers").remove(0)
    }
}

impl Drop for Space {
    fn drop(&mut self) {
        // A server of the test's own is gone already, or its keys go with it.
        if std::env::var("CORELANE_TEST_REDIS").ok().as_ref() != Some(&self.address) {
            return;
        }
        let Ok(client) = ::redis::Client::open(self.address.as_str()) else { return };
        let Ok(mut connection) = client.get_connection() else { return };
        let pattern = format!("{}*", self.prefix);
        let mut keys = Vec::new();
        let mut cursor = 0_u64;
        loop {
            let mut scan = ::redis::cmd("SCAN");
            scan.arg(cursor).arg("MATCH").arg(&pattern).arg("COUNT").arg(10_000);
            let Ok((next, found)) = scan.query::<(u64, Vec<Vec<u8>>)>(&mut connection) else {
                return;
            };
            keys.extend(found);
            cursor = next;
            if cursor == 0 {
                break;
            }
        }
        for keys in keys.chunks(1000) {
            let _ = ::redis::cmd("UNLINK").arg(keys).exec(&mut connection);
        }
    }
}

fn login(user: u64, device: &str, connection: ConnectionId) -> SessionChange {
    let (device_id, device_class) = (device.to_owned(), "web".to_owned());
    SessionChange::Login { user, connection, device_id, device_class }
}

fn closed(user: u64, connection: ConnectionId) -> SessionChange {
    SessionChange::Closed { user, connection }
}

fn change(
    table: &impl Sessions,
    most: usize,
    changes: Vec<SessionChange>,
) -> Result<Vec<Login>, StoreError> {
    let mut given = Some(changes);
    let mut outcomes = Vec::new();
    table.change(most, &mut || given.take().unwrap_or_default(), &mut |got| outcomes = got)?;
    Ok(outcomes)
}

/// Connections of one user, sorted.
fn of(table: &impl Sessions, user: u64) -> Vec<(u32, u32, u32, u32)> {
    let found = table.of(&[user]).expect("the server answers");
    let mut found: Vec<_> =
        found.iter().map(|one| (one.gateway, one.shard, one.slot, one.generation)).collect();
    found.sort_unstable();
    found
}
