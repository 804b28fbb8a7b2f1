//! CPU a login and an end of a connection on the calls thread: by name, by token, known and new.
//!
//! `cargo run --release -p logic-svc --example login_bench [-- LOGINS [TICK...]]`
//! Each TICK calls are found waiting together. The sink drops what it gets; commits are synced.

use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as B64;
use ed25519_dalek::{Signer, SigningKey};
use logic_svc::Service;
use logic_svc::config::Config;
use logic_svc::ports::{CallSource, DeliverySink, Received};
use proto::v1::call::Request;
use proto::v1::{Call, CallReply, Closed, DeliveryBatch, EventDelivery, Hello, Kick};
use rustix::time::{ClockId, clock_gettime};
use sha2::Digest;

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

struct Null;

impl DeliverySink for Null {
    fn deliver(&self, _: DeliveryBatch) {}
    fn reply(&self, _: CallReply) {}
    fn event(&self, _: u32, _: EventDelivery) {}
    fn kick(&self, _: Kick) {}
}

/// Calls that come `tick` at a time.
struct Calls {
    calls: std::vec::IntoIter<Call>,
    tick: usize,
}

impl CallSource for Calls {
    fn recv(&mut self, into: &mut Vec<Call>, timeout: Duration) -> Received {
        // Without a wait: whoever asks has a tick already.
        if timeout.is_zero() {
            return Received::Timeout;
        }
        let before = into.len();
        into.extend(self.calls.by_ref().take(self.tick));
        if into.len() == before { Received::Closed } else { Received::Some }
    }
}

fn main() -> Outcome<()> {
    let mut args = std::env::args().skip(1).map(|arg| arg.parse::<usize>());
    let logins = args.next().transpose()?.unwrap_or(15_000) as u64;
    let ticks: Vec<usize> = args.collect::<Result<_, _>>()?;
    let ticks = if ticks.is_empty() { vec![4, 16, 256] } else { ticks };
    for tick in ticks {
        measure(logins, tick)?;
    }
    Ok(())
}

fn measure(logins: u64, tick: usize) -> Outcome<()> {
    let dir = tempfile::tempdir()?;
    let config = Config { data_dir: dir.path().to_owned(), dev_login: true, ..Config::default() };
    let service = Service::open(config, Arc::new(Null))?;
    let tokens = tokens(dir.path(), logins)?;
    let by_name = || all(logins, |user| login(user, named(user)));
    let by_token = || all(logins, |user| login(user, shown(&tokens[user as usize])));
    let ends = || all(logins, |user| call(user, user, Request::Closed(Closed {})));
    let steps: [(&str, Vec<Call>); 8] = [
        ("by name, new", by_name()),
        ("end", ends()),
        ("by name, known", by_name()),
        ("end", ends()),
        ("by token, first", by_token()),
        ("by token, again", by_token()),
        ("end", ends()),
        ("by name, known", by_name()),
    ];
    let mut out = std::io::stdout();
    for (what, calls) in steps {
        let begun = cpu();
        service.run_calls(Calls { calls: calls.into_iter(), tick });
        let each = (cpu() - begun).as_secs_f64() * 1e6 / logins as f64;
        writeln!(out, "{tick:>4} a tick, {what:<16} CPU {each:>6.2} us")?;
    }
    service.close();
    Ok(())
}

fn all(logins: u64, call: impl Fn(u64) -> Call) -> Vec<Call> {
    (0..logins).map(call).collect()
}

fn named(user: u64) -> Hello {
    Hello { dev_user: format!("user-{user:06}"), ..Default::default() }
}

fn shown(token: &str) -> Hello {
    Hello { token: token.to_owned(), device_id: "phone".to_owned(), ..Default::default() }
}

fn login(user: u64, hello: Hello) -> Call {
    call(user, 0, Request::Login(hello))
}

fn call(slot: u64, user_id: u64, request: Request) -> Call {
    let slot = u32::try_from(slot).unwrap_or(0);
    Call { shard: slot % 2, slot: slot / 2, generation: 1, user_id, request: Some(request) }
}

/// Tokens as the service issues them, for users 1 to `logins`, signed with its own key.
fn tokens(data_dir: &Path, logins: u64) -> Outcome<Vec<String>> {
    let file: serde_json::Value =
        serde_json::from_slice(&std::fs::read(data_dir.join("signing-keys.json"))?)?;
    let text = |name: &str| file["keys"][0][name].as_str().unwrap_or_default().to_owned();
    let seed: [u8; 32] =
        B64.decode(text("d"))?.try_into().map_err(|_| "a key of another length")?;
    let key = SigningKey::from_bytes(&seed);
    let thumbprint = format!(r#"{{"crv":"Ed25519","kty":"OKP","x":"{}"}}"#, text("x"));
    let kid = B64.encode(sha2::Sha256::digest(thumbprint));
    let header = B64.encode(format!(r#"{{"typ":"JWT","alg":"EdDSA","kid":"{kid}"}}"#));
    let now_s =
        std::time::SystemTime::now().duration_since(std::time::SystemTime::UNIX_EPOCH)?.as_secs();
    let token = |user: u64| {
        let claims = serde_json::json!({
            "iss": "corelane", "aud": "corelane", "sub": user.to_string(),
            "iat": now_s, "nbf": now_s, "exp": now_s + 900, "epoch": 0
        });
        let message = format!("{header}.{}", B64.encode(claims.to_string()));
        let signature = key.sign(message.as_bytes());
        format!("{message}.{}", B64.encode(signature.to_bytes()))
    };
    Ok((1..=logins).map(token).collect())
}

/// What this thread has used.
fn cpu() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}
