//! Which HTTP a client speaks.

use std::io::Cursor;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, Chain, Join};

/// What every HTTP/2 client says first.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A version of HTTP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    Http1,
    Http2,
}

/// The halves of a connection, which gives its first bytes once more.
pub(super) type Detected<R, W> = Join<Chain<Cursor<Vec<u8>>, R>, W>;

impl Protocol {
    /// What was agreed on under TLS, if anything was: the AWS SDK for Java, and so its KCL, begins HTTP/2 without asking.
    pub(super) fn of_alpn(protocol: Option<&[u8]>) -> Option<Self> {
        protocol.map(|protocol| if protocol == b"h2" { Self::Http2 } else { Self::Http1 })
    }
}

/// Reads the first bytes of a connection, as many as it takes.
///
/// # Errors
/// When it breaks.
pub(super) async fn detect<R: AsyncRead + Unpin, W: AsyncWrite>(
    mut read: R,
    write: W,
) -> std::io::Result<(Protocol, Detected<R, W>)> {
    let (protocol, first) = look(&mut read).await?;
    Ok((protocol, tokio::io::join(Cursor::new(first).chain(read), write)))
}

async fn look(stream: &mut (impl AsyncRead + Unpin)) -> std::io::Result<(Protocol, Vec<u8>)> {
    let mut first = Vec::with_capacity(PREFACE.len());
    while first.len() < PREFACE.len() {
        let left = (PREFACE.len() - first.len()) as u64;
        let count = (&mut *stream).take(left).read_buf(&mut first).await?;
        if count == 0 || !PREFACE.starts_with(&first) {
            return Ok((Protocol::Http1, first));
        }
    }
    Ok((Protocol::Http2, first))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncWriteExt;

    #[tokio::test]
    async fn the_preface_tells_however_it_is_cut() {
        for (pieces, protocol) in [
            (vec![PREFACE, b"more"], Protocol::Http2),
            (PREFACE.chunks(1).collect(), Protocol::Http2),
            (vec![b"P", b"OST / HTTP/1.1\r\n"], Protocol::Http1),
            (vec![b"PRI * HTTP/1"], Protocol::Http1),
            (vec![b"G"], Protocol::Http1),
            (vec![], Protocol::Http1),
        ] {
            let (mut client, mut server) = tokio::io::duplex(64);
            let sent = pieces.concat();
            let write = async move {
                for piece in pieces {
                    client.write_all(piece).await.unwrap();
                    tokio::task::yield_now().await;
                }
            };
            let (looked, ()) = tokio::join!(look(&mut server), write);
            let (found, mut bytes) = looked.unwrap();
            assert_eq!(found, protocol);
            server.read_to_end(&mut bytes).await.unwrap();
            assert_eq!(bytes, sent);
        }
    }
}
