//! Frames: one value behind one header, with a limit that is checked before anything is allocated.

use serde::Serialize;
use serde::de::DeserializeOwned;
use std::io;
use tidemill_checkpoints::codec::{self, CodecError, HEADER_BYTES, Header, Schema};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

/// The greatest payload of a frame, in bytes. A sink stages at most a few MiB at once.
pub(crate) const FRAME_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Why a frame could not be read or written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FrameError {
    /// The other side has closed the socket, between two frames.
    #[error("the other process has closed the connection")]
    Closed,
    /// The socket failed, or closed within a frame.
    #[error("the connection between server and job failed: {0}")]
    Io(#[from] io::Error),
    /// The bytes are not the expected frame.
    #[error("server and job do not understand each other: {0}")]
    Codec(#[from] CodecError),
}

/// Encodes a value as a frame.
///
/// # Errors
/// When it is larger than [`FRAME_BYTES_MAX`].
pub(crate) fn encode<T: Serialize>(schema: Schema, value: &T) -> Result<Vec<u8>, FrameError> {
    let bytes = codec::encode(schema, value)?;
    let actual = bytes.len() - HEADER_BYTES;
    if actual > FRAME_BYTES_MAX {
        let (actual, limit) = (actual as u64, FRAME_BYTES_MAX as u64);
        return Err(CodecError::TooLarge {
            expected: schema,
            actual,
            limit,
        }
        .into());
    }
    Ok(bytes)
}

/// Reads one frame. Not safe to cancel: what was read of a frame is lost.
///
/// # Errors
/// When the socket closes or fails, or the bytes are no such frame; the connection is of no use afterwards.
pub(crate) async fn read<T: DeserializeOwned>(
    reader: &mut (impl AsyncRead + Unpin),
    schema: Schema,
) -> Result<T, FrameError> {
    let mut head = [0u8; HEADER_BYTES];
    // The first byte on its own tells an end between frames from one within a frame.
    if reader.read(&mut head[..1]).await? == 0 {
        return Err(FrameError::Closed);
    }
    reader.read_exact(&mut head[1..]).await?;
    let header = Header::parse(schema, &head, FRAME_BYTES_MAX)?;
    if header.schema != schema {
        return Err(CodecError::WrongVersion {
            expected: schema,
            found: header.schema,
        }
        .into());
    }
    let mut payload = vec![0u8; header.length];
    reader.read_exact(&mut payload).await?;
    Ok(header.decode(&payload)?)
}

/// Writes an encoded frame.
///
/// # Errors
/// When the socket fails.
pub(crate) async fn write(writer: &mut (impl AsyncWrite + Unpin), frame: &[u8]) -> Result<(), FrameError> {
    writer.write_all(frame).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCHEMA: Schema = Schema::new(*b"FRAM", 3);

    #[tokio::test]
    async fn frames_come_back_in_order_and_the_end_is_told_from_a_cut() {
        let mut bytes = encode(SCHEMA, &vec!["a".to_owned(), "b".to_owned()]).unwrap();
        bytes.extend(encode(SCHEMA, &vec!["c".to_owned()]).unwrap());
        let mut whole = bytes.as_slice();
        assert_eq!(read::<Vec<String>>(&mut whole, SCHEMA).await.unwrap(), ["a", "b"]);
        assert_eq!(read::<Vec<String>>(&mut whole, SCHEMA).await.unwrap(), ["c"]);
        assert!(matches!(
            read::<Vec<String>>(&mut whole, SCHEMA).await,
            Err(FrameError::Closed)
        ));
        for cut in 1..bytes.len() {
            let mut part = &bytes[..cut];
            let first = read::<Vec<String>>(&mut part, SCHEMA).await;
            let last = if first.is_ok() {
                read::<Vec<String>>(&mut part, SCHEMA).await
            } else {
                first
            };
            assert!(last.is_err(), "cut at {cut}");
        }
    }

    #[tokio::test]
    async fn a_length_over_the_limit_is_refused_before_its_bytes_are_awaited() {
        let mut bytes = encode(SCHEMA, &1u8).unwrap();
        bytes[8..12].copy_from_slice(&u32::try_from(FRAME_BYTES_MAX + 1).unwrap().to_le_bytes());
        let error = read::<u8>(&mut bytes.as_slice(), SCHEMA).await.unwrap_err();
        assert!(
            matches!(error, FrameError::Codec(CodecError::TooLarge { .. })),
            "{error}"
        );
    }

    #[tokio::test]
    async fn another_version_is_named() {
        let old = encode(Schema::new(*b"FRAM", 2), &1u8).unwrap();
        let error = read::<u8>(&mut old.as_slice(), SCHEMA).await.unwrap_err();
        assert!(
            matches!(error, FrameError::Codec(CodecError::WrongVersion { .. })),
            "{error}"
        );
    }
}
