//! What has to happen at once for one key, in the server's own language. Loaded with every connection.
//!
//! Times are the server's own (`TIME`; what a script writes is replicated by its effects): those who call may have
//! clocks that differ.

use std::sync::LazyLock;

/// A script and its name at the server.
pub(super) struct Script {
    code: &'static str,
    sha: LazyLock<String>,
}

impl Script {
    /// Its text.
    pub(super) fn code(&self) -> &'static str {
        self.code
    }

    /// Its name at the server.
    pub(super) fn sha(&self) -> &str {
        &self.sha
    }
}

macro_rules! script {
    ($(#[$doc:meta])* $name:ident, $code:expr) => {
        $(#[$doc])*
        pub(super) static $name: Script = Script {
            code: $code,
            sha: LazyLock::new(|| redis::Script::new($code).get_hash().to_owned()),
        };
    };
}

/// All of them.
pub(super) fn all() -> [&'static Script; 11] {
    [
        &LOGIN,
        &CLOSED,
        &REGISTER,
        &REPORT,
        &REPORTED,
        &ADD_IF_THERE,
        &FILL,
        &LOCK,
        &UNLOCK,
        &WATCH,
        &TELL,
    ]
}

script!(
    /// A connection wants in.
    /// `KEYS[1]` user_session of the user. `ARGV`: field of the device, its value without times, most connections,
    /// lifetime of the key in ms, device class, policy of the class, how many s ago an entry may have been seen last;
    /// then fields and values of entries known to be dead, which are taken out.
    /// Gives 0 (in), 1 (too many), 2 (refused by the policy) or 3 (in, by the policy in place of others); the values that lost their place; fields and values of
    /// all others.
    LOGIN,
    r"
local key, time = KEYS[1], redis.call('TIME')
for i = 8, #ARGV, 2 do
  if redis.call('HGET', key, ARGV[i]) == ARGV[i + 1] then redis.call('HDEL', key, ARGV[i]) end
end
local all = redis.call('HGETALL', key)
local gone, others, same, count = {}, {}, {}, 0
local oldest = tonumber(time[1]) - tonumber(ARGV[7])
for i = 1, #all, 2 do
  local field, value = all[i], all[i + 1]
  if field == ARGV[1] then
    gone[1] = value
  else
    local class, seen = string.match(value, '|([^|]*)|%d+|(%d+)$')
    if not seen or tonumber(seen) < oldest then
      redis.call('HDEL', key, field)
    else
      count = count + 1
      others[#others + 1] = field
      others[#others + 1] = value
      if class == ARGV[5] then
        same[#same + 1] = field
        same[#same + 1] = value
      end
    end
  end
end
if ARGV[6] == '2' and #same > 0 and not gone[1] then return {2, {}, others} end
if ARGV[6] == '1' then count = count - #same / 2 end
if not gone[1] and count >= tonumber(ARGV[3]) then return {1, {}, others} end
local status = 0
if ARGV[6] == '1' and #same > 0 then
  status = 3
  for i = 1, #same, 2 do
    redis.call('HDEL', key, same[i])
    gone[#gone + 1] = same[i + 1]
  end
end
local login_ms = time[1] .. string.format('%03d', math.floor(tonumber(time[2]) / 1000))
redis.call('HSET', key, ARGV[1], ARGV[2] .. '|' .. login_ms .. '|' .. time[1])
redis.call('PEXPIRE', key, ARGV[4])
return {status, gone, others}
"
);

script!(
    /// A connection ended, or entries are dead.
    /// `KEYS[1]` user_session of the user. `ARGV`: beginnings of the values to be taken out, each up to the
    /// generation of the connection. Gives how many were taken out.
    CLOSED,
    r"
local all = redis.call('HGETALL', KEYS[1])
local out = 0
for i = 1, #all, 2 do
  for j = 1, #ARGV do
    if string.sub(all[i + 1], 1, #ARGV[j]) == ARGV[j] then
      redis.call('HDEL', KEYS[1], all[i])
      out = out + 1
    end
  end
end
return out
"
);

script!(
    /// A connection that is in tells so (again).
    /// `KEYS[1]` user_session of the user. `ARGV`: field of the device, its value without times, how many bytes of it
    /// name the connection, lifetime of the key in ms, the value known to be dead that may be replaced.
    /// Gives nothing, or the value of another connection that has the place.
    REGISTER,
    r"
local time = redis.call('TIME')
local login_ms = time[1] .. string.format('%03d', math.floor(tonumber(time[2]) / 1000))
local old = redis.call('HGET', KEYS[1], ARGV[1])
if old and old ~= ARGV[5] then
  local same = tonumber(ARGV[3])
  if string.sub(old, 1, same) ~= string.sub(ARGV[2], 1, same) then return old end
  login_ms = string.match(old, '|(%d+)|%d+$') or login_ms
end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2] .. '|' .. login_ms .. '|' .. time[1])
redis.call('PEXPIRE', KEYS[1], ARGV[4])
return false
"
);

script!(
    /// A gateway reports. Its field in the marker is `epoch|ms|state|registered`: `asked` to register all its
    /// connections, `partly` when parts came, `done` when no more part came for a while and enough were registered.
    /// `KEYS[1]` routes_marker. `ARGV`: run id of the server, id of the gateway, its epoch, its connections, age in ms
    /// from which on everything is registered anew, lifetime of the key in ms, time in ms after the last part from
    /// which on no more is expected.
    /// Gives 1 if the gateway has to register all its connections.
    REPORT,
    r"
local key, field = KEYS[1], 'g:' .. ARGV[2]
local connections, time = tonumber(ARGV[4]), redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
if redis.call('HGET', key, 'run') ~= ARGV[1] then
  redis.call('DEL', key)
  redis.call('HSET', key, 'run', ARGV[1])
end
redis.call('PEXPIRE', key, ARGV[6])
local old = redis.call('HGET', key, field) or ''
local epoch, at, state, count = string.match(old, '^(%d+)|(%d+)|(%a+)|(%d+)$')
if epoch ~= ARGV[3] then state = 'asked' end
local age = now - (tonumber(at) or now)
if state == 'done' then
  if age < tonumber(ARGV[5]) then return 0 end
  return 1
end
if state == 'partly' and age < tonumber(ARGV[7]) then return 0 end
local enough = state == 'partly' and tonumber(count) >= connections * 0.9 - 100
state = (enough or connections == 0) and 'done' or 'asked'
redis.call('HSET', key, field, string.format('%s|%.0f|%s|0', ARGV[3], now, state))
return state == 'done' and 0 or 1
"
);

script!(
    /// A part of a gateway's connections was registered.
    /// `KEYS[1]` routes_marker. `ARGV`: run id of the server, id of the gateway, its epoch, how many.
    REPORTED,
    r"
local key, field = KEYS[1], 'g:' .. ARGV[2]
if redis.call('HGET', key, 'run') ~= ARGV[1] then return 0 end
local old = redis.call('HGET', key, field) or ''
local epoch, at, state, count = string.match(old, '^(%d+)|(%d+)|(%a+)|(%d+)$')
if epoch ~= ARGV[3] then return 0 end
if state == 'asked' then state = 'partly' end
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
count = tonumber(count) + tonumber(ARGV[4])
redis.call('HSET', key, field, string.format('%s|%.0f|%s|%.0f', epoch, now, state, count))
return 1
"
);

script!(
    /// Adds to a set that exists. `KEYS[1]` the set; `ARGV`: lifetime of the key in ms, then what is added.
    ADD_IF_THERE,
    r"
if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
redis.call('PEXPIRE', KEYS[1], ARGV[1])
return redis.call('SADD', KEYS[1], unpack(ARGV, 2))
"
);

script!(
    /// Makes a list that is not there. `KEYS[1]` the list; `ARGV`: lifetime of the key in ms, then the items.
    FILL,
    r"
if redis.call('EXISTS', KEYS[1]) == 1 then return 0 end
for i = 2, #ARGV do redis.call('RPUSH', KEYS[1], ARGV[i]) end
redis.call('PEXPIRE', KEYS[1], ARGV[1])
return 1
"
);

script!(
    /// Takes a lock. `KEYS[1]` the lock, `KEYS[2]` its last token; `ARGV`: the owner, lifetime in ms.
    /// Gives the fencing token, or 0 if somebody has the lock.
    LOCK,
    r"
if not redis.call('SET', KEYS[1], ARGV[1], 'NX', 'PX', ARGV[2]) then return '0' end
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])
local token = math.max(tonumber(redis.call('GET', KEYS[2]) or '0') + 1, now)
token = string.format('%.0f', token)
redis.call('SET', KEYS[2], token)
return token
"
);

script!(
    /// Gives a lock back (lifetime 0) or keeps it longer, if it is still the owner's.
    /// `KEYS[1]` the lock; `ARGV`: its owner, lifetime in ms.
    UNLOCK,
    r"
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
if ARGV[2] == '0' then return redis.call('DEL', KEYS[1]) end
return redis.call('PEXPIRE', KEYS[1], ARGV[2])
"
);

script!(
    /// A connection wants to know of a user.
    /// `KEYS[1]` the user's watchers, by the time in ms until which they want to know. `ARGV`: time in ms, time until
    /// which, most watchers, lifetime of the key in ms, the connection. Gives 0 if there are too many.
    WATCH,
    r"
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', ARGV[1])
if redis.call('ZCARD', KEYS[1]) >= tonumber(ARGV[3]) and not redis.call('ZSCORE', KEYS[1], ARGV[5]) then return 0 end
redis.call('ZADD', KEYS[1], ARGV[2], ARGV[5])
redis.call('PEXPIRE', KEYS[1], ARGV[4])
return 1
"
);

script!(
    /// This is how things stand with a user.
    /// `KEYS[1]` what watchers were told last, and when: `1|ms` or `0|ms`. `ARGV`: 1 or 0, how far apart they are told
    /// in ms, lifetime of the key in ms.
    /// Gives 0 (nothing new), 1 (they are to be told) or 2 (it is too early).
    TELL,
    r"
local state, at = string.match(redis.call('GET', KEYS[1]) or '', '^(%d)|(%d+)$')
if state == ARGV[1] then
  redis.call('PEXPIRE', KEYS[1], ARGV[3])
  return 0
end
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local age = now - (tonumber(at) or 0)
if age >= 0 and age < tonumber(ARGV[2]) then return 2 end
redis.call('SET', KEYS[1], string.format('%s|%.0f', ARGV[1], now), 'PX', ARGV[3])
return 1
"
);
