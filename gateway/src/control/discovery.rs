//! Which logic services there are, as they come and go in etcd.

use std::sync::Arc;

use cluster::etcd::{Discovery, Member};
use serde::Deserialize;
use tokio::sync::watch;

/// A logic service that answers requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Its name.
    pub id: String,
    /// Where it speaks gRPC, such as `http://10.0.0.7:9090`.
    pub grpc: String,
    /// Where it speaks REST.
    pub http: String,
}

/// What a logic service says of itself.
#[derive(Deserialize)]
struct Said {
    #[serde(default)]
    grpc: String,
    #[serde(default)]
    http: String,
    #[serde(default)]
    roles: Vec<String>,
}

/// The ones with the role `rpc`. What cannot be read is left out.
#[must_use]
pub fn services(members: &[Member]) -> Vec<Service> {
    members.iter().filter_map(service).collect()
}

fn service(member: &Member) -> Option<Service> {
    let said: Said = serde_json::from_str(&member.value)
        .inspect_err(|error| tracing::warn!(id = member.id, %error, "not a logic service"))
        .ok()?;
    let answers = said.roles.iter().any(|role| role == "rpc");
    answers.then(|| Service { id: member.id.clone(), grpc: said.grpc, http: said.http })
}

/// Follows them for as long as the runtime lives.
#[must_use]
pub fn follow(mut discovery: Discovery) -> watch::Receiver<Arc<Vec<Service>>> {
    let first = Arc::new(services(&discovery.current()));
    let (sender, receiver) = watch::channel(first);
    tokio::spawn(async move {
        loop {
            let services = services(&discovery.changed().await);
            let names: Vec<&str> = services.iter().map(|service| service.id.as_str()).collect();
            tracing::info!(?names, "logic services");
            sender.send_replace(Arc::new(services));
        }
    });
    receiver
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(id: &str, value: &str) -> Member {
        Member { id: id.into(), value: value.into(), epoch: 1 }
    }

    #[test]
    fn those_that_answer_requests_are_found_whatever_else_is_there() {
        let members = [
            member("a", r#"{"grpc":"http://h:1","http":"http://h:2","roles":["ingest","rpc"]}"#),
            member("b", r#"{"grpc":"http://h:3","http":"http://h:4","roles":["ingest"]}"#),
            member("c", "not JSON"),
            member("d", r#"{"grpc":"http://h:5","roles":["rpc"],"more":1}"#),
        ];
        let found = services(&members);
        assert_eq!(found.iter().map(|s| s.id.as_str()).collect::<Vec<_>>(), ["a", "d"]);
        assert_eq!((found[0].grpc.as_str(), found[0].http.as_str()), ("http://h:1", "http://h:2"));
    }
}
