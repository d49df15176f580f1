//! The port: at most so many connections, none of which may dawdle over its headers.

use super::ServerError;
use axum::Router;
use axum::extract::Request;
use axum::middleware::{Next, from_fn};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, oneshot, watch};
use tokio::task::JoinHandle;

/// How long a connection may be without a complete request header, also between two requests.
const HEADER_TIMEOUT: Duration = Duration::from_secs(60);
/// The greatest header of a request, in bytes.
const HEADER_BYTES_MAX: usize = 64 * 1024;
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
    /// Begins to answer.
    pub(super) fn serve(socket: TcpListener, routes: Router, connections_max: usize) -> Self {
        let (stop, stopped) = oneshot::channel();
        Self {
            stop,
            task: tokio::spawn(accept(socket, routes, connections_max, stopped)),
        }
    }

    /// Takes no more connections, lets requests in progress end, and closes the rest.
    pub(super) async fn stop(self) {
        let _ = self.stop.send(());
        let _ = self.task.await;
    }
}

async fn accept(socket: TcpListener, routes: Router, connections_max: usize, mut stopped: oneshot::Receiver<()>) {
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
    let graceful = GracefulShutdown::new();
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(HEADER_BYTES_MAX);
    loop {
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
        let connection = http.serve_connection(TokioIo::new(stream), TowerToHyperService::new(routes.clone()));
        let connection = graceful.watch(connection);
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection ended early");
            }
            drop(permit);
        });
    }
    drop(socket);
    let shutdown = graceful.shutdown();
    let _ = tokio::time::timeout(DRAIN_TIMEOUT, progress.wait_for(|&requests| requests == 0)).await;
    let _ = tokio::time::timeout(FLUSH_TIMEOUT, shutdown).await;
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
