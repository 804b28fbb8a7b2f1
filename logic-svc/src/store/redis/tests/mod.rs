//! Against real servers: keys of their own on the shared one, servers of their own for what breaks them.

mod caches;
mod clocks;
mod faults;
mod nodes;
mod reports;
pub(crate) mod server;
mod sessions;
mod warm;
mod watches;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::*;
use crate::domain::delivery::ConnectionId;
use crate::gateways::Gateways;
use crate::ports::{Clock, Login, SessionChange, Sessions, StoreError};
use server::Server;

/// A time of day that tests move; far from the server's, which nothing may depend on.
struct Hand(AtomicU64);

impl Clock for Hand {
    fn now_ms(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Makes what lies in Redis older, as if time passed there: the server's own cannot be moved.
/// `KEYS`: any keys; `ARGV`: by how many ms.
const AGE: &str = r"
local by = tonumber(ARGV[1])
local function earlier(time, by) return string.format('%.0f', math.max(0, tonumber(time) - by)) end
local function change(key, pattern, to)
  local all = redis.call('HGETALL', key)
  for i = 1, #all, 2 do redis.call('HSET', key, all[i], (string.gsub(all[i + 1], pattern, to))) end
end
for _, key in ipairs(KEYS) do
  if string.find(key, 'user_session:', 1, true) then
    change(key, '|(%d+)$', function(s) return '|' .. earlier(s, math.floor(by / 1000)) end)
  elseif string.find(key, 'routes_marker', 1, true) then
    change(key, '^(%d+)|(%d+)|', function(epoch, ms) return epoch .. '|' .. earlier(ms, by) .. '|' end)
  elseif string.find(key, 'presence_told:', 1, true) then
    local state, ms = string.match(redis.call('GET', key), '^(%d)|(%d+)$')
    redis.call('SET', key, state .. '|' .. earlier(ms, by), 'KEEPTTL')
  end
end
";

/// However long an answer takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(10);

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
        Self::with(address, |options| options.tick_timeout = PATIENCE)
    }

    /// As [`Space::at`], but a tick waits for a silent server only as long as that of the product does.
    fn hasty(address: &str) -> Self {
        Self::with(address, |_| ())
    }

    fn with(address: &str, change: fn(&mut Options)) -> Self {
        let prefix = format!("t{}:", uuid::Uuid::new_v4().simple());
        let mut options = Options::new(address, &prefix).expect("a good address");
        (options.connect_timeout, options.batch_timeout) = (PATIENCE, PATIENCE);
        change(&mut options);
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
        let settings =
            WarmSettings { inbox_messages: 1000, sends: true, ..WarmSettings::default() };
        Warm::new(self.client.clone(), Arc::clone(&self.gateways), clock, settings)
    }

    /// Time passes, here and for what lies in Redis.
    fn pass_ms(&self, more: u64) {
        self.clock.0.fetch_add(more, Ordering::Relaxed);
        let client = ::redis::Client::open(self.address.as_str()).expect("a good address");
        let mut connection = client.get_connection().expect("the server answers");
        let keys = self.keys(&mut connection).expect("the server answers");
        if !keys.is_empty() {
            let mut age = ::redis::cmd("EVAL");
            age.arg(AGE).arg(keys.len()).arg(keys).arg(more);
            age.exec(&mut connection).expect("the server answers");
        }
    }

    /// All keys of this test.
    fn keys(&self, connection: &mut ::redis::Connection) -> ::redis::RedisResult<Vec<Vec<u8>>> {
        let pattern = format!("{}*", self.prefix);
        let mut keys = Vec::new();
        let mut cursor = 0_u64;
        loop {
            let mut scan = ::redis::cmd("SCAN");
            scan.arg(cursor).arg("MATCH").arg(&pattern).arg("COUNT").arg(10_000);
            let (next, found): (u64, Vec<Vec<u8>>) = scan.query(connection)?;
            keys.extend(found);
            cursor = next;
            if cursor == 0 {
                return Ok(keys);
            }
        }
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
        let Ok(keys) = self.keys(&mut connection) else { return };
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
