//! REST requests, passed on to a logic service. Bodies stream both ways; nothing is kept.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::{
    CONNECTION, CONTENT_TYPE, HeaderName, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, RETRY_AFTER, TE,
    TRAILER, TRANSFER_ENCODING, UPGRADE,
};
use axum::http::{HeaderMap, StatusCode, Uri, Version};
use axum::response::{IntoResponse, Response};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::timeout;

use super::discovery::Service;

/// How long a connection may take to come about.
const CONNECT: Duration = Duration::from_secs(1);
/// From a request to the head of its answer. Below what the public side allows a request.
const DEADLINE: Duration = Duration::from_secs(20);
/// Connections kept for later to one service.
const KEPT: usize = 32;

type Sender = SendRequest<Body>;

/// Passes requests on to one service after another.
pub struct Proxy {
    services: watch::Receiver<Arc<Vec<Service>>>,
    next: AtomicUsize,
    kept: Arc<Mutex<HashMap<String, Vec<Sender>>>>,
}

impl Proxy {
    /// To whatever services there are at the time.
    #[must_use]
    pub fn new(services: watch::Receiver<Arc<Vec<Service>>>) -> Arc<Self> {
        Arc::new(Self { services, next: AtomicUsize::new(0), kept: Arc::default() })
    }

    /// Everything that comes is passed on.
    pub fn router(self: &Arc<Self>) -> Router {
        Router::new().fallback(forward).with_state(Arc::clone(self))
    }

    /// Addresses in the order in which they are tried.
    fn addresses(&self) -> Vec<String> {
        let services = Arc::clone(&self.services.borrow());
        let mut addresses: Vec<String> =
            services.iter().filter_map(|service| address(&service.http)).collect();
        if !addresses.is_empty() {
            let first = self.next.fetch_add(1, Ordering::Relaxed) % addresses.len();
            addresses.rotate_left(first);
        }
        addresses
    }

    /// The first answer. A request that was not taken goes to the next service; one that was is not asked
    /// twice.
    async fn pass_on(&self, mut request: Request) -> Result<Response, &'static str> {
        let mut why = "no logic service is known";
        for address in self.addresses() {
            while let Some(mut sender) = self.take_kept(&address) {
                match self.ask(&mut sender, request).await {
                    Ok(answer) => return Ok(self.answered(answer, sender, address)),
                    Err(Some(back)) => request = *back,
                    Err(None) => return Err("the logic service broke the connection off"),
                }
            }
            let Some(mut sender) = connect(&address).await else {
                why = "no logic service can be reached";
                continue;
            };
            match self.ask(&mut sender, request).await {
                Ok(answer) => return Ok(self.answered(answer, sender, address)),
                Err(Some(back)) => request = *back,
                Err(None) => return Err("the logic service broke the connection off"),
            }
        }
        Err(why)
    }

    /// An error with the request in it: it was not sent.
    async fn ask(
        &self,
        sender: &mut Sender,
        request: Request,
    ) -> Result<Response, Option<Box<Request>>> {
        match sender.try_send_request(request).await {
            Ok(answer) => Ok(answer.map(Body::new)),
            Err(mut error) => Err(error.take_message().map(Box::new)),
        }
    }

    /// Once the answer's body has gone through, the connection serves others.
    fn answered(&self, mut answer: Response, mut sender: Sender, address: String) -> Response {
        strip(answer.headers_mut());
        let kept = Arc::clone(&self.kept);
        tokio::spawn(async move {
            if sender.ready().await.is_err() {
                return;
            }
            let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
            let senders = kept.entry(address).or_default();
            if senders.len() < KEPT {
                senders.push(sender);
            }
        });
        answer
    }

    fn take_kept(&self, address: &str) -> Option<Sender> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let senders = kept.get_mut(address)?;
        while let Some(sender) = senders.pop() {
            if !sender.is_closed() {
                return Some(sender);
            }
        }
        kept.remove(address);
        None
    }
}

async fn forward(State(proxy): State<Arc<Proxy>>, mut request: Request) -> Response {
    strip(request.headers_mut());
    // What a client writes as a whole address goes on as a path: the service is not a proxy.
    let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
    let Ok(uri) = path.parse::<Uri>() else {
        return problem(StatusCode::BAD_REQUEST, "BAD_REQUEST", "the path cannot be read");
    };
    *request.uri_mut() = uri;
    *request.version_mut() = Version::HTTP_11;
    match timeout(DEADLINE, proxy.pass_on(request)).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(why)) => problem(StatusCode::SERVICE_UNAVAILABLE, "BUSY", why),
        Err(_) => {
            problem(StatusCode::GATEWAY_TIMEOUT, "BUSY", "the logic service did not answer in time")
        }
    }
}

async fn connect(address: &str) -> Option<Sender> {
    let stream = timeout(CONNECT, TcpStream::connect(address)).await.ok()?.ok()?;
    // Requests are small and wait for their answers.
    let _ = stream.set_nodelay(true);
    let (sender, connection) = handshake(TokioIo::new(stream)).await.ok()?;
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "a connection to a logic service ended");
        }
    });
    Some(sender)
}

/// `host:port` of `http://host:port`.
fn address(url: &str) -> Option<String> {
    let address = url.strip_prefix("http://")?.trim_end_matches('/');
    (!address.is_empty()).then(|| address.to_owned())
}

/// Takes out what is meant for one hop only (RFC 9110, 7.6.1).
fn strip(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    let always = [
        CONNECTION,
        PROXY_AUTHENTICATE,
        PROXY_AUTHORIZATION,
        TE,
        TRAILER,
        TRANSFER_ENCODING,
        UPGRADE,
        HeaderName::from_static("keep-alive"),
        HeaderName::from_static("proxy-connection"),
    ];
    for name in named.into_iter().chain(always) {
        headers.remove(name);
    }
}

fn problem(status: StatusCode, code: &str, detail: &str) -> Response {
    let body = serde_json::json!({
        "type": "about:blank",
        "title": status.canonical_reason().unwrap_or_default(),
        "status": status.as_u16(),
        "code": code,
        "detail": detail,
    });
    let mut answer =
        (status, [(CONTENT_TYPE, "application/problem+json")], body.to_string()).into_response();
    if status.is_server_error() {
        answer.headers_mut().insert(RETRY_AFTER, axum::http::HeaderValue::from_static("1"));
    }
    answer
}

#[cfg(test)]
mod tests {
    use super::*;
    use socket2::{Domain, Socket, Type};
    use std::io::{Read as _, Write as _};
    use std::net::TcpListener;
    use std::time::Instant;
    use tower::ServiceExt as _;

    /// A server that answers each request with what it got, `answers` times a connection, then hangs up.
    /// `lasting`: connections that will answer once more; known before their last answer goes out.
    fn server(answers: usize, lasting: &Arc<AtomicUsize>) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let lasting = Arc::clone(lasting);
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let lasting = Arc::clone(&lasting);
                lasting.fetch_add(1, Ordering::SeqCst);
                std::thread::spawn(move || {
                    for left in (0..answers).rev() {
                        let mut got = vec![0; 65_536];
                        let Ok(count @ 1..) = stream.read(&mut got) else { return };
                        if left == 0 {
                            lasting.fetch_sub(1, Ordering::SeqCst);
                        }
                        let head = format!(
                            "HTTP/1.1 200 OK\r\nContent-Length: {count}\r\nKeep-Alive: timeout=9\r\n\r\n"
                        );
                        let _ = stream.write_all(head.as_bytes());
                        let _ = stream.write_all(&got[..count]);
                    }
                });
            }
        });
        format!("http://{addr}")
    }

    /// An address where nobody listens, and nobody else may for as long as it is held.
    fn nobody() -> (Socket, String) {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.bind(&std::net::SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
        let addr = socket.local_addr().unwrap().as_socket().unwrap();
        (socket, format!("http://{addr}"))
    }

    fn proxy(urls: &[&str]) -> Arc<Proxy> {
        let service =
            |&url: &&str| Service { id: url.to_owned(), grpc: String::new(), http: url.to_owned() };
        let (_, services) = watch::channel(Arc::new(urls.iter().map(service).collect()));
        Proxy::new(services)
    }

    /// Kept connections that are not known to have ended; `None`: one may still be put there.
    fn kept(proxy: &Proxy) -> Option<usize> {
        let all_are_there = Arc::strong_count(&proxy.kept) == 1;
        let kept = proxy.kept.lock().unwrap();
        let open = kept.values().flatten().filter(|sender| !sender.is_closed()).count();
        all_are_there.then_some(open)
    }

    async fn ask(router: &Router, request: Request) -> (StatusCode, HeaderMap, String) {
        let answer = router.clone().oneshot(request).await.unwrap();
        let (parts, body) = answer.into_parts();
        let body = axum::body::to_bytes(body, usize::MAX).await.unwrap();
        (parts.status, parts.headers, String::from_utf8_lossy(&body).into_owned())
    }

    fn request(path: &str) -> Request {
        let request = Request::builder().uri(path).header("Host", "chat.example.org");
        let request = request.header("Connection", "close, X-Hop").header("X-Hop", "1");
        request.header("Authorization", "Bearer t").body(Body::empty()).unwrap()
    }

    #[tokio::test]
    async fn a_request_goes_on_without_what_is_for_one_hop() {
        let router = proxy(&[&server(9, &Arc::default())]).router();
        let (status, headers, got) = ask(&router, request("http://elsewhere/api/v1/me?a=b")).await;
        assert_eq!(status, StatusCode::OK);
        assert!(got.starts_with("GET /api/v1/me?a=b HTTP/1.1\r\n"), "{got}");
        let got = got.to_lowercase();
        assert!(got.contains("host: chat.example.org") && got.contains("authorization: bearer t"));
        assert!(!got.contains("x-hop") && !got.contains("connection: close"), "{got}");
        assert!(!headers.contains_key("keep-alive"));
    }

    /// Kept connections that were hung up meanwhile, and services that are gone, cost nobody an answer.
    #[tokio::test]
    async fn who_cannot_be_reached_is_passed_over() {
        let ((_a, a), (_b, b), lasting) = (nobody(), nobody(), Arc::default());
        let proxy = proxy(&[&a, &server(1, &lasting), &b, &server(2, &lasting)]);
        let router = proxy.router();
        for n in 0..24 {
            let (status, _, got) = ask(&router, request(&format!("/api/{n}"))).await;
            assert_eq!(status, StatusCode::OK, "{got}");
            assert!(got.starts_with(&format!("GET /api/{n} ")), "{got}");
            // A connection is kept, and its end seen, a moment after the answer.
            let answered = Instant::now();
            while kept(&proxy) != Some(lasting.load(Ordering::SeqCst)) {
                assert!(answered.elapsed() < Duration::from_secs(10), "{:?}", kept(&proxy));
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
    }

    #[tokio::test]
    async fn when_nobody_is_there_it_says_so() {
        let (_held, nobody) = nobody();
        for proxy in [proxy(&[]), proxy(&[&nobody])] {
            let (status, headers, body) = ask(&proxy.router(), request("/api/v1/me")).await;
            assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
            assert_eq!(headers[CONTENT_TYPE], "application/problem+json");
            assert_eq!(headers[RETRY_AFTER], "1");
            let problem: serde_json::Value = serde_json::from_str(&body).unwrap();
            assert_eq!((&problem["code"], &problem["status"]), (&"BUSY".into(), &503.into()));
        }
    }
}
