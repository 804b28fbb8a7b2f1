//! Who may ask what administrators ask.

use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use tonic::metadata::MetadataMap;
use tonic::service::Interceptor;
use tonic::{Request, Status};

/// Lets in whoever names the token; without one, whoever is on this machine.
#[derive(Clone)]
pub(super) struct Gate {
    /// Of the token, so that comparing takes the same time whatever is presented.
    digest: Option<[u8; 32]>,
}

impl Gate {
    /// A gate that asks for this token.
    pub(super) fn new(token: Option<&str>) -> Self {
        Self { digest: token.map(|token| Sha256::digest(token).into()) }
    }

    fn look(&self, request: &Request<()>) -> Result<(), Status> {
        let Some(digest) = &self.digest else {
            let peer = request.remote_addr().map(|peer| peer.ip().to_canonical());
            return match peer {
                Some(ip) if ip.is_loopback() => Ok(()),
                _ => Err(Status::permission_denied(
                    "without admin_token administrators are answered on this machine only",
                )),
            };
        };
        let shown: [u8; 32] = Sha256::digest(bearer(request.metadata()).unwrap_or_default()).into();
        if bool::from(shown.ct_eq(digest)) {
            return Ok(());
        }
        Err(Status::unauthenticated("authorization must be \"Bearer\" and the admin_token"))
    }
}

impl Interceptor for Gate {
    fn call(&mut self, request: Request<()>) -> Result<Request<()>, Status> {
        self.look(&request).inspect_err(|_| {
            metrics::counter!("corelane_logic_admin_refused_total").increment(1);
            tracing::warn!(peer = ?request.remote_addr(), "an administrator was refused");
        })?;
        Ok(request)
    }
}

/// What follows `Bearer` in the one `authorization` there is.
fn bearer(metadata: &MetadataMap) -> Option<&str> {
    let mut all = metadata.get_all("authorization").iter();
    let only = all.next().filter(|_| all.next().is_none())?;
    let (scheme, token) = only.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(token)
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use tonic::Code;
    use tonic::transport::server::TcpConnectInfo;

    use super::*;

    fn ask(gate: &Gate, peer: Option<&str>, authorization: &[&str]) -> Result<(), Code> {
        let mut request = Request::new(());
        if let Some(peer) = peer {
            let remote_addr: Option<SocketAddr> = peer.parse().ok();
            request.extensions_mut().insert(TcpConnectInfo { local_addr: None, remote_addr });
        }
        for one in authorization {
            request.metadata_mut().append("authorization", one.parse().unwrap());
        }
        gate.clone().call(request).map(drop).map_err(|status| status.code())
    }

    #[test]
    fn whoever_names_the_token_is_let_in_from_anywhere() {
        let gate = Gate::new(Some("correct horse battery"));
        for peer in [Some("127.0.0.1:5"), Some("10.0.0.1:5"), None] {
            for good in ["Bearer correct horse battery", "bearer correct horse battery"] {
                assert_eq!(ask(&gate, peer, &[good]), Ok(()), "{peer:?} {good}");
            }
            for bad in [
                "Bearer correct horse batter",
                "Bearer correct horse battery2",
                "Bearer Correct horse battery",
                "Bearer ",
                "Bearer",
                "Basic correct horse battery",
                "correct horse battery",
            ] {
                assert_eq!(ask(&gate, peer, &[bad]), Err(Code::Unauthenticated), "{peer:?} {bad}");
            }
            assert_eq!(ask(&gate, peer, &[]), Err(Code::Unauthenticated), "{peer:?}");
            let two = ["Bearer correct horse battery", "Bearer correct horse battery"];
            assert_eq!(ask(&gate, peer, &two), Err(Code::Unauthenticated), "which one counts?");
        }
    }

    #[test]
    fn without_a_token_this_machine_is_answered_and_nobody_else() {
        let gate = Gate::new(None);
        for here in ["127.0.0.1:5", "127.9.9.9:5", "[::1]:5", "[::ffff:127.0.0.1]:5"] {
            assert_eq!(ask(&gate, Some(here), &[]), Ok(()), "{here}");
        }
        for there in [Some("10.0.0.1:5"), Some("[2001:db8::1]:5"), Some("0.0.0.0:5"), None] {
            let refused = Err(Code::PermissionDenied);
            assert_eq!(ask(&gate, there, &[]), refused, "{there:?}");
            assert_eq!(ask(&gate, there, &["Bearer "]), refused, "{there:?}");
        }
    }
}
