//! A server of the Kinesis API's HTTP, as small as a test needs: what it answers is the test's.

use std::future::Future;
use std::sync::Arc;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// A request.
pub(in crate::kinesis) struct Request {
    /// `Kinesis_20131202.GetRecords`
    pub(in crate::kinesis) target: String,
    pub(in crate::kinesis) body: Vec<u8>,
}

/// Serves on a free port of this machine as long as the runtime lives; returns the URL.
pub(in crate::kinesis) async fn serve<F, A>(answer: F) -> String
where
    F: Fn(Request) -> A + Send + Sync + 'static,
    A: Future<Output = (u16, Vec<u8>)> + Send,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let answer = Arc::new(answer);
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let answer = Arc::clone(&answer);
            tokio::spawn(async move {
                let mut bytes = Vec::new();
                while let Some(request) = read(&mut socket, &mut bytes).await {
                    let (status, body) = answer(request).await;
                    let head = format!(
                        "HTTP/1.1 {status} X\r\ncontent-type: application/x-amz-json-1.1\r\ncontent-length: {}\r\n\r\n",
                        body.len()
                    );
                    if socket.write_all(&[head.as_bytes(), &body].concat()).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    url
}

/// Reads a request; `None` when there is none any more.
async fn read(socket: &mut TcpStream, bytes: &mut Vec<u8>) -> Option<Request> {
    let head = loop {
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            break end + 4;
        }
        if socket.read_buf(bytes).await.unwrap_or(0) == 0 {
            return None;
        }
    };
    let text = String::from_utf8_lossy(&bytes[..head]).into_owned();
    let header = |wanted: &str| {
        let lines = text.lines().filter_map(|line| line.split_once(':'));
        let mut values = lines.filter(|(name, _)| name.eq_ignore_ascii_case(wanted));
        values.next().map_or("", |(_, value)| value.trim()).to_owned()
    };
    let length: usize = header("content-length").parse().unwrap_or(0);
    while bytes.len() < head + length {
        if socket.read_buf(bytes).await.unwrap_or(0) == 0 {
            return None;
        }
    }
    let body = bytes[head..head + length].to_vec();
    bytes.drain(..head + length);
    let target = header("x-amz-target");
    Some(Request { target, body })
}
