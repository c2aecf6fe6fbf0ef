//! AMI over a byte stream: the splitter as a decoder; bytes are written unchanged.
//!
//! Owns only the adapter between `ami/frame` and a socket. Must never know what a message means.

use std::io;

use bytes::{Bytes, BytesMut};
use tokio_util::codec::{Decoder, Encoder};

use crate::ami::frame::{FrameError, Item, Limits, Splitter};

/// Why reading or writing ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum CodecError {
    /// What came cannot be read.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// The socket failed.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Reads [`Item`]s, writes bytes. One for each connection.
#[derive(Debug)]
pub(super) struct AmiCodec {
    splitter: Splitter,
}

impl AmiCodec {
    /// For a connection that has just been made.
    pub(super) fn new(limits: Limits) -> Self {
        Self { splitter: Splitter::new(limits) }
    }

    /// Leaves out events whose name `wanted` refuses; see [`Splitter::only`].
    #[must_use]
    pub(super) fn only(self, wanted: fn(&[u8]) -> bool) -> Self {
        Self { splitter: self.splitter.only(wanted) }
    }

    /// How many events were left out so far.
    pub(super) fn skipped(&self) -> u64 {
        self.splitter.skipped()
    }
}

impl Decoder for AmiCodec {
    type Item = Item;
    type Error = CodecError;

    fn decode(&mut self, buf: &mut BytesMut) -> Result<Option<Item>, CodecError> {
        Ok(self.splitter.next(buf)?)
    }

    /// At the end of the stream, a message that was cut off is dropped: Asterisk ends so when we read too slowly.
    fn decode_eof(&mut self, buf: &mut BytesMut) -> Result<Option<Item>, CodecError> {
        let item = self.decode(buf)?;
        if item.is_none() {
            buf.clear();
        }
        Ok(item)
    }
}

impl Encoder<Bytes> for AmiCodec {
    type Error = io::Error;

    fn encode(&mut self, bytes: Bytes, buf: &mut BytesMut) -> io::Result<()> {
        buf.extend_from_slice(&bytes);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use futures_util::{SinkExt, StreamExt};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio_util::codec::Framed;

    use super::*;
    use crate::ami::event::is_wanted;

    #[tokio::test]
    async fn a_stream_gives_items_and_takes_bytes() {
        let (near, mut far) = tokio::io::duplex(64);
        let mut framed = Framed::new(near, AmiCodec::new(Limits::DEFAULT).only(is_wanted));
        framed.send(Bytes::from_static(b"Action: Ping\r\n\r\n")).await.unwrap();
        let mut said = [0; 16];
        far.read_exact(&mut said).await.unwrap();
        assert_eq!(&said, b"Action: Ping\r\n\r\n");
        let text =
            "Asterisk Call Manager/11.0.0\r\nEvent: RTCPSent\r\n\r\nEvent: Reload\r\nModule: All\r\n\r\nEvent: Hang";
        let write = async move { far.write_all(text.as_bytes()).await };
        let read = async {
            let mut items = Vec::new();
            while let Some(item) = framed.next().await {
                items.push(format!("{:?}", item.unwrap()));
            }
            assert_eq!(items, ["Banner(Banner { version: \"11.0.0\" })", "Message(Message(Event: Reload, 28 bytes))"]);
            assert_eq!(framed.codec().skipped(), 1);
        };
        let (written, ()) = tokio::join!(write, read);
        written.unwrap();
    }
}
