//! Asks one endpoint, again and again, whether it is well.

use std::sync::Arc;
use std::time::Duration;

use ::metrics::gauge;
use tonic::transport::Channel;
use tonic::{Code, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use super::liveness::{Liveness, Mark};
use super::settings::EndpointsSettings;
use super::status::never_sent;

/// Runs until it is aborted.
pub(crate) async fn run(
    channel: Channel,
    mark: Arc<Mark>,
    settings: EndpointsSettings,
    service: String,
    uri: String,
) {
    let mut client = HealthClient::new(channel);
    let timeout = Duration::from_millis(settings.probe_timeout_ms);
    let interval = Duration::from_millis(settings.probe_interval_ms.max(1));
    loop {
        let liveness = match tokio::time::timeout(timeout, ask(&mut client)).await {
            Ok(liveness) => liveness,
            Err(_) => Liveness::Suspect,
        };
        let before = mark.set(liveness);
        if before != liveness {
            tracing::info!(service, uri, ?before, ?liveness, "gRPC endpoint");
            show(&service, &uri, f64::from(u8::from(liveness == Liveness::Alive)));
        }
        // A doubt shortens the wait, but not to nothing: whoever fails fast must not make it spin.
        tokio::time::sleep(interval / 8).await;
        let _ = tokio::time::timeout(interval - interval / 8, mark.doubt.notified()).await;
    }
}

async fn ask(client: &mut HealthClient<Channel>) -> Liveness {
    // The empty name asks for the server as a whole.
    match client.check(HealthCheckRequest { service: String::new() }).await {
        Ok(answer) => match answer.into_inner().status() {
            ServingStatus::Serving => Liveness::Alive,
            _ => Liveness::Dead,
        },
        Err(status) => judge(&status),
    }
}

fn judge(status: &Status) -> Liveness {
    use std::error::Error as _;
    if never_sent(status) {
        return Liveness::Dead;
    }
    // With a source it comes from the connection, without one from the server.
    match (status.source().is_some(), status.code()) {
        (true, _) => Liveness::Suspect,
        // A server that answers at all is well; not every one has this service.
        (false, Code::Unavailable) => Liveness::Dead,
        (false, _) => Liveness::Alive,
    }
}

pub(crate) fn show(service: &str, uri: &str, alive: f64) {
    gauge!("corelane_rpc_endpoint_alive", "service" => service.to_owned(),
        "endpoint" => uri.to_owned())
    .set(alive);
}
