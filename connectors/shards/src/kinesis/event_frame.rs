//! Frames of `application/vnd.amazon.eventstream`. Numbers are big-endian.
//!
//! | bytes | field |
//! |---|---|
//! | 4 | length of the frame, this field included |
//! | 4 | length of the headers |
//! | 4 | CRC-32 of the 8 bytes before |
//! | | headers |
//! | | payload |
//! | 4 | CRC-32 of everything before |
//!
//! A header is the length of its name (1), its name, its type (1; 7 is a string), the length of its value (2), its value.
//! Source: the specification of the AWS event stream encoding.

use bytes::Bytes;

const PRELUDE_BYTES: usize = 12;
const STRING: u8 = 7;

/// What a frame is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Message<'a> {
    /// An event of this type.
    Event(&'a str),
    /// An error of the service's model, after which nothing comes.
    Exception(&'a str),
}

/// A frame whose payload `write` appends.
pub(crate) fn frame(
    message: Message<'_>,
    content_type: &str,
    payload_bytes_guess: usize,
    write: impl FnOnce(&mut Vec<u8>),
) -> Bytes {
    let (kind, type_header, name) = match message {
        Message::Event(name) => ("event", ":event-type", name),
        Message::Exception(name) => ("exception", ":exception-type", name),
    };
    let mut frame = Vec::with_capacity(payload_bytes_guess + 160);
    frame.resize(PRELUDE_BYTES, 0);
    for (header, value) in [
        (":message-type", kind),
        (type_header, name),
        (":content-type", content_type),
    ] {
        frame.push(header.len() as u8);
        frame.extend_from_slice(header.as_bytes());
        frame.push(STRING);
        frame.extend_from_slice(&(value.len() as u16).to_be_bytes());
        frame.extend_from_slice(value.as_bytes());
    }
    let headers = (frame.len() - PRELUDE_BYTES) as u32;
    write(&mut frame);
    // Events are cut far below 4 GiB: one record of 10 MiB in base64 is the largest.
    let total = (frame.len() + 4) as u32;
    frame[..4].copy_from_slice(&total.to_be_bytes());
    frame[4..8].copy_from_slice(&headers.to_be_bytes());
    let prelude = crc32fast::hash(&frame[..8]);
    frame[8..PRELUDE_BYTES].copy_from_slice(&prelude.to_be_bytes());
    let whole = crc32fast::hash(&frame);
    frame.extend_from_slice(&whole.to_be_bytes());
    frame.into()
}

#[cfg(test)]
mod tests {
    use aws_smithy_eventstream::frame::read_message_from;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn layout_is_the_table() {
        let frame = frame(Message::Event("e"), "t", 0, |out| out.extend_from_slice(b"{}"));
        let headers = b"\x0d:message-type\x07\x00\x05event\x0b:event-type\x07\x00\x01e\x0d:content-type\x07\x00\x01t";
        assert_eq!(
            &frame[..8],
            [
                0,
                0,
                0,
                (12 + headers.len() + 2 + 4) as u8,
                0,
                0,
                0,
                headers.len() as u8
            ]
        );
        assert_eq!(&frame[12..12 + headers.len()], headers);
        assert_eq!(&frame[12 + headers.len()..frame.len() - 4], b"{}");
    }

    proptest! {
        #[test]
        fn frames_are_read_by_the_sdk(payload in prop::collection::vec(any::<u8>(), 0..2_000), name in "[A-Za-z]{1,40}", exception in any::<bool>()) {
            let message = if exception { Message::Exception(&name) } else { Message::Event(&name) };
            let frame = frame(message, "application/json", 0, |out| out.extend_from_slice(&payload));
            let read = read_message_from(frame).unwrap();
            prop_assert_eq!(&read.payload()[..], &payload[..]);
            let headers: Vec<(&str, &str)> = read
                .headers()
                .iter()
                .map(|header| (header.name().as_str(), header.value().as_string().unwrap().as_str()))
                .collect();
            let (kind, key) = if exception { ("exception", ":exception-type") } else { ("event", ":event-type") };
            prop_assert_eq!(headers, [(":message-type", kind), (key, &name), (":content-type", "application/json")]);
        }
    }
}
