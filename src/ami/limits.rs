//! Limits on what a peer may send, and the errors when it sends more.
//!
//! Owns the limits of a stream. Must never know how a stream is read.

/// Limits on what a peer may send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The longest first line, in bytes with its line end. Asterisk's has about 30.
    pub banner_bytes: usize,
    /// The longest message, in bytes with its line ends but without the empty line. One that [`super::frame::Splitter::only`] leaves out may
    /// be longer: nothing of it is kept.
    pub message_bytes: usize,
    /// The most header lines of a message.
    pub headers: usize,
}

impl Limits {
    /// What is used unless the caller says otherwise. The longest real answers are those to `Command`: 5,000 lines and
    /// more, each up to a kilobyte.
    pub const DEFAULT: Self = Self { banner_bytes: 256, message_bytes: 8 * 1024 * 1024, headers: 32_768 };
}

impl Default for Limits {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// Why a stream is unreadable. Each error ends the connection: a dropped message would leave a gap in the known state, and
/// only a new snapshot repairs a gap.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The first line is not an AMI banner: another service listens there.
    #[error(
        "the peer is not Asterisk's AMI: its first line should be `Asterisk Call Manager/x.y.z`, but starts with \
            `{shown}`"
    )]
    NotAmi {
        /// The first bytes, escaped and cut short.
        shown: String,
    },
    /// A message without an end in sight.
    #[error("a message is longer than {limit_bytes} bytes")]
    MessageTooLong {
        /// [`Limits::message_bytes`].
        limit_bytes: usize,
    },
    /// A message with too many lines.
    #[error("a message has {count} header lines; at most {limit} are read")]
    TooManyHeaders {
        /// Lines of the message.
        count: usize,
        /// [`Limits::headers`].
        limit: usize,
    },
}
