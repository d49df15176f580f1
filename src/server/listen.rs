//! The port: HTTP/1.1 and HTTP/2, plain or under TLS, at most so many connections, none of which may dawdle.
//!
//! ```text
//!   accept ─┬─ plain ──────────┬─ first bytes are HTTP/2's preface? ─┬─ HTTP/2 ── closed when idle for a minute
//!           └─ TLS ─┬─ no ALPN ┘                                     │
//!                   └─ ALPN says h2? ────────────────────────────────┴─ HTTP/1.1 ── closed without a header for a minute
//! ```
//! Every connection is a task of one set: when the server stops, each is told to finish what it answers, and what has not
//! finished in time is cut off, so that nothing outlives the listener.
//!
//! File map: `protocol` finds out which HTTP is spoken, `activity` counts what is being answered, `tls` reads certificates.

mod activity;
mod protocol;
pub(super) mod tls;

use super::ServerError;
use activity::Activity;
use axum::Router;
use axum::extract::Request;
use axum::middleware::{Next, from_fn};
use hyper::server::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use protocol::{Detected, Protocol};
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadHalf, WriteHalf};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream as TlsStreamOf;

type TlsStream = TlsStreamOf<TcpStream>;

/// How long a connection may be without a complete request header, also between two requests; a TLS handshake, and an
/// HTTP/2 connection on which nothing is asked, have as long.
const HEADER_TIMEOUT: Duration = Duration::from_secs(60);
/// The greatest header of a request, in bytes.
const HEADER_BYTES_MAX: usize = 64 * 1024;
/// Requests at a time on one HTTP/2 connection.
const STREAMS_MAX: u32 = 256;
/// Requests that a client may have opened and reset again before they were looked at; a client that does more of it only
/// wants to keep the server busy ("rapid reset", CVE-2023-44487).
const RESETS_PENDING_MAX: usize = 32;
/// Resets that the server itself may have to send because of a client's errors.
const RESETS_LOCAL_MAX: usize = 256;
/// Bytes of one request that an HTTP/2 client may send ahead of what was read.
const STREAM_WINDOW_BYTES: u32 = 1 << 20;
/// The same for a whole connection.
const CONNECTION_WINDOW_BYTES: u32 = 4 << 20;
/// Bytes of one answer that wait in memory for an HTTP/2 client.
const SEND_BUFFER_BYTES: usize = 256 << 10;
/// How often an HTTP/2 client is asked whether it is there still, and how long it may take to answer.
const PING_INTERVAL: Duration = Duration::from_secs(20);
/// How long requests in progress may take when the server stops.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);
/// How long answers may take to be written after that. Connections on which nothing was asked yet do not close by
/// themselves, and are not waited for longer.
const FLUSH_TIMEOUT: Duration = Duration::from_millis(250);

/// Takes the port.
///
/// # Errors
/// When it is taken, or may not be taken.
pub(super) async fn bind(address: SocketAddr) -> Result<TcpListener, ServerError> {
    TcpListener::bind(address).await.map_err(|source| {
        let hint = match source.kind() {
            ErrorKind::AddrInUse => "another program has this port: stop it, or choose another port with --listen",
            ErrorKind::PermissionDenied => "ports below 1024 need privileges: choose another port with --listen",
            ErrorKind::AddrNotAvailable => "this machine has no such address: choose another with --listen",
            _ => "choose another address with --listen",
        };
        ServerError::Listen { address, source, hint }
    })
}

/// A port that answers.
pub(super) struct Listener {
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Listener {
    /// Begins to answer; under TLS when there is an acceptor.
    pub(super) fn serve(socket: TcpListener, routes: Router, connections_max: usize, tls: Option<TlsAcceptor>) -> Self {
        let (stop, stopped) = oneshot::channel();
        Self {
            stop,
            task: tokio::spawn(accept(socket, routes, connections_max, tls, HEADER_TIMEOUT, stopped)),
        }
    }

    /// Takes no more connections, lets requests in progress end, and closes the rest.
    pub(super) async fn stop(self) {
        let _ = self.stop.send(());
        let _ = self.task.await;
    }
}

async fn accept(
    socket: TcpListener,
    routes: Router,
    connections_max: usize,
    tls: Option<TlsAcceptor>,
    header_timeout: Duration,
    mut stopped: oneshot::Receiver<()>,
) {
    let room = Arc::new(Semaphore::new(connections_max));
    let (in_progress, mut progress) = watch::channel(0usize);
    let routes = routes.layer(from_fn(move |request: Request, next: Next| {
        let in_progress = InProgress::begin(&in_progress);
        async move {
            let response = next.run(request).await;
            drop(in_progress);
            response
        }
    }));
    let stopping = watch::Sender::new(false);
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        // No connection is taken that could not be answered; the system holds it until there is room.
        let next = async {
            let permit = Arc::clone(&room).acquire_owned().await;
            (permit, socket.accept().await)
        };
        let (permit, accepted) = tokio::select! {
            next = next => next,
            _ = &mut stopped => break,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Out of file descriptors, most likely: trying again at once would only burn a core.
                tracing::warn!(%error, "cannot take a connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let _ = stream.set_nodelay(true);
        let connection = Connection {
            routes: routes.clone(),
            stopping: stopping.subscribe(),
            header_timeout,
            _permit: permit.ok(),
        };
        connections.spawn(connection.run(stream, tls.clone()));
    }
    drop(socket);
    stopping.send_replace(true);
    let _ = timeout(DRAIN_TIMEOUT, progress.wait_for(|&requests| requests == 0)).await;
    let all = async { while connections.join_next().await.is_some() {} };
    let _ = timeout(FLUSH_TIMEOUT, all).await;
    connections.shutdown().await;
}

/// One connection.
struct Connection {
    routes: Router,
    stopping: watch::Receiver<bool>,
    header_timeout: Duration,
    /// Given back when it is closed.
    _permit: Option<OwnedSemaphorePermit>,
}

impl Connection {
    async fn run(self, stream: TcpStream, tls: Option<TlsAcceptor>) {
        let opened = timeout(self.header_timeout, async {
            Ok::<_, std::io::Error>(match tls {
                Some(acceptor) => {
                    let stream = acceptor.accept(stream).await?;
                    match Protocol::of_alpn(stream.get_ref().1.alpn_protocol()) {
                        Some(protocol) => Opened::Tls(protocol, Box::new(stream)),
                        None => {
                            let (read, write) = tokio::io::split(stream);
                            let (protocol, stream) = protocol::detect(read, write).await?;
                            Opened::TlsDetected(protocol, Box::new(stream))
                        }
                    }
                }
                None => {
                    let (read, write) = stream.into_split();
                    let (protocol, stream) = protocol::detect(read, write).await?;
                    Opened::Plain(protocol, stream)
                }
            })
        });
        let error = match opened.await {
            Ok(Ok(Opened::Tls(protocol, stream))) => self.serve(protocol, stream).await.err(),
            Ok(Ok(Opened::TlsDetected(protocol, stream))) => self.serve(protocol, stream).await.err(),
            Ok(Ok(Opened::Plain(protocol, stream))) => self.serve(protocol, stream).await.err(),
            Ok(Err(error)) => Some(error.into()),
            Err(_) => Some("nothing was asked in time".into()),
        };
        if let Some(error) = error {
            tracing::debug!(%error, "a connection ended early");
        }
    }

    async fn serve(
        self,
        protocol: Protocol,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        let activity = Activity::new();
        let service = activity.service(self.routes);
        let io = TokioIo::new(stream);
        let mut stopping = self.stopping;
        match protocol {
            Protocol::Http1 => {
                let mut http = http1::Builder::new();
                http.timer(TokioTimer::new())
                    .header_read_timeout(self.header_timeout)
                    .max_buf_size(HEADER_BYTES_MAX);
                let mut connection = pin!(http.serve_connection(io, service));
                tokio::select! {
                    result = connection.as_mut() => return result.map_err(Into::into),
                    _ = stopping.wait_for(|stopping| *stopping) => {}
                }
                connection.as_mut().graceful_shutdown();
                Ok(connection.await?)
            }
            Protocol::Http2 => {
                let mut http = http2::Builder::new(TokioExecutor::new());
                http.timer(TokioTimer::new())
                    .max_concurrent_streams(STREAMS_MAX)
                    .max_header_list_size(HEADER_BYTES_MAX as u32)
                    .max_pending_accept_reset_streams(RESETS_PENDING_MAX)
                    .max_local_error_reset_streams(RESETS_LOCAL_MAX)
                    .initial_stream_window_size(STREAM_WINDOW_BYTES)
                    .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
                    .max_send_buf_size(SEND_BUFFER_BYTES)
                    .keep_alive_interval(PING_INTERVAL)
                    .keep_alive_timeout(PING_INTERVAL);
                let mut connection = pin!(http.serve_connection(io, service));
                tokio::select! {
                    result = connection.as_mut() => return result.map_err(Into::into),
                    _ = stopping.wait_for(|stopping| *stopping) => {}
                    () = activity.idle_for(self.header_timeout) => {}
                }
                connection.as_mut().graceful_shutdown();
                // A client that does not want to close is not waited for, unless it is being answered.
                tokio::select! {
                    result = connection.as_mut() => Ok(result?),
                    () = activity.idle_for(DRAIN_TIMEOUT) => Ok(()),
                }
            }
        }
    }
}

/// A connection whose protocol is known.
enum Opened {
    Tls(Protocol, Box<TlsStream>),
    TlsDetected(Protocol, Box<Detected<ReadHalf<TlsStream>, WriteHalf<TlsStream>>>),
    Plain(Protocol, Detected<OwnedReadHalf, OwnedWriteHalf>),
}

/// Counts a request until it is answered, or its client has gone away.
struct InProgress(watch::Sender<usize>);

impl InProgress {
    fn begin(count: &watch::Sender<usize>) -> Self {
        count.send_modify(|requests| *requests += 1);
        Self(count.clone())
    }
}

impl Drop for InProgress {
    fn drop(&mut self) {
        self.0.send_modify(|requests| *requests -= 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::routing::get;
    use rustls::crypto::ring::default_provider;
    use rustls::pki_types::pem::PemObject as _;
    use rustls::pki_types::{CertificateDer, ServerName};
    use rustls::{ClientConfig, RootCertStore};
    use std::path::{Path, PathBuf};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio_rustls::TlsConnector;
    use tokio_rustls::client::TlsStream as TlsStreamOfClient;

    /// The type of a frame of HTTP/2.
    const SETTINGS: u8 = 4;

    const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";

    /// A server with few connections and little patience.
    async fn serve(connections_max: usize, tls: Option<TlsAcceptor>) -> (Listener, SocketAddr) {
        let socket = bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let address = socket.local_addr().unwrap();
        let routes = Router::new().route("/", get(|| async { "here" }));
        let (stop, stopped) = oneshot::channel();
        let patience = Duration::from_secs(3);
        let task = tokio::spawn(accept(socket, routes, connections_max, tls, patience, stopped));
        (Listener { stop, task }, address)
    }

    async fn connect(address: SocketAddr, said: &[u8]) -> TcpStream {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(said).await.unwrap();
        stream
    }

    async fn answer(mut stream: TcpStream) -> String {
        let mut answer = Vec::new();
        // A connection that is cut off may also end in an error.
        let _ = stream.read_to_end(&mut answer).await;
        String::from_utf8_lossy(&answer).into_owned()
    }

    #[tokio::test]
    async fn connections_that_dawdle_are_closed_and_make_room_for_others() {
        let (listener, address) = serve(3, None).await;
        let silent = connect(address, b"").await;
        let half_a_header = connect(address, b"GET / HTTP/1.1\r\nHost: localhost\r\nX-Slow: ").await;
        let half_a_preface = connect(address, b"PRI * HTTP/2.0\r\n").await;
        let waiting = connect(address, REQUEST).await;
        let answered = answer(waiting).await;
        assert!(
            answered.starts_with("HTTP/1.1 200") && answered.ends_with("here"),
            "{answered}"
        );
        for dawdler in [silent, half_a_header, half_a_preface] {
            let said = answer(dawdler).await;
            assert!(!said.contains("200"), "{said}");
        }
        listener.stop().await;
    }

    #[tokio::test]
    async fn a_header_has_a_limit() {
        let (listener, address) = serve(8, None).await;
        let mut request = REQUEST[..REQUEST.len() - 2].to_vec();
        request.extend_from_slice(b"X-Large: ");
        request.resize(2 * HEADER_BYTES_MAX, b'x');
        let mut stream = TcpStream::connect(address).await.unwrap();
        // The server may close before it has read all.
        let _ = stream.write_all(&request).await;
        let mut status = [0; 12];
        let read = stream.read_exact(&mut status).await;
        assert!(read.is_err() || status == *b"HTTP/1.1 431", "{status:?}");
        let answered = answer(connect(address, REQUEST).await).await;
        assert!(answered.starts_with("HTTP/1.1 200"), "{answered}");
        listener.stop().await;
    }
    fn fixture(name: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("tests/tests/e2e/tls")
            .join(name)
    }

    /// Connects under TLS with these protocols to choose from; also answers which one was agreed on.
    async fn connect_tls(address: SocketAddr, alpn: &[&str]) -> (TlsStreamOfClient<TcpStream>, Option<Vec<u8>>) {
        let mut trusted = RootCertStore::empty();
        trusted
            .add(CertificateDer::from_pem_file(fixture("ca.pem")).unwrap())
            .unwrap();
        let mut config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(trusted)
            .with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        let stream = TcpStream::connect(address).await.unwrap();
        let connector = TlsConnector::from(Arc::new(config));
        let name = ServerName::try_from("localhost").unwrap();
        let stream = connector.connect(name, stream).await.unwrap();
        let agreed = stream.get_ref().1.alpn_protocol().map(<[u8]>::to_vec);
        (stream, agreed)
    }

    #[tokio::test]
    async fn a_client_that_agrees_on_no_protocol_under_tls_may_speak_either() {
        let files = tls::TlsFiles {
            certificate: fixture("server.pem"),
            key: fixture("server.key"),
        };
        let (listener, address) = serve(8, Some(files.acceptor().unwrap())).await;
        for (alpn, agreed) in [(&[][..], None), (&["http/1.1"][..], Some(b"http/1.1".to_vec()))] {
            let (mut stream, found) = connect_tls(address, alpn).await;
            assert_eq!(found, agreed);
            stream.write_all(REQUEST).await.unwrap();
            let mut answer = String::new();
            // It may be cut off without a word of TLS.
            let _ = stream.read_to_string(&mut answer).await;
            assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        }
        for (alpn, agreed) in [(&[][..], None), (&["h2"][..], Some(b"h2".to_vec()))] {
            let (mut stream, found) = connect_tls(address, alpn).await;
            assert_eq!(found, agreed);
            // The preface and empty settings; the server's settings come first, then that it has read ours.
            stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
            stream.write_all(&[0, 0, 0, SETTINGS, 0, 0, 0, 0, 0]).await.unwrap();
            let mut frame = [0; 9];
            stream.read_exact(&mut frame).await.unwrap();
            assert_eq!(frame[3], SETTINGS, "{frame:?}");
        }
        listener.stop().await;
    }
}
