//! Messages over a stream: a length of four bytes, little endian, then so many bytes of [`wire`](crate::wire).

use std::io::{self, ErrorKind, Read, Write};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::wire::{DecodeError, decode};

const LENGTH_BYTES: usize = 4;
/// Memory that stays between messages: a small message comes whole with its length.
const KEPT_BYTES_MAX: usize = 16 << 10;

/// Why no message came or went.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The other side is gone, or too slow.
    #[error(transparent)]
    Stream(#[from] io::Error),
    #[error("a message of {bytes} bytes, at most {bytes_max}")]
    TooLarge { bytes: usize, bytes_max: usize },
    #[error(transparent)]
    Decode(#[from] DecodeError),
}

pub(crate) fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
}

/// A stream of messages, both ways.
#[derive(Debug)]
pub struct Frames<S> {
    pub stream: S,
    /// What was read and not yet taken, and behind it room to read into.
    inbox: Vec<u8>,
    filled: usize,
    outbox: Vec<u8>,
    receive_bytes_max: usize,
}

impl<S: Read + Write> Frames<S> {
    pub fn new(stream: S, receive_bytes_max: usize) -> Self {
        Self {
            stream,
            inbox: Vec::new(),
            filled: 0,
            outbox: Vec::new(),
            receive_bytes_max,
        }
    }

    /// # Errors
    /// When the stream takes no more.
    pub fn send<T: Serialize>(&mut self, message: &T) -> Result<(), FrameError> {
        self.outbox.clear();
        self.outbox.extend_from_slice(&[0; LENGTH_BYTES]);
        postcard::to_io(message, &mut self.outbox).map_err(|_cannot_fail| DecodeError)?;
        let length = self.outbox.len() - LENGTH_BYTES;
        let length = u32::try_from(length).map_err(|_too_large| FrameError::TooLarge {
            bytes: length,
            bytes_max: u32::MAX as usize,
        })?;
        self.outbox[..LENGTH_BYTES].copy_from_slice(&length.to_le_bytes());
        self.stream.write_all(&self.outbox)?;
        self.outbox.clear();
        self.outbox.shrink_to(KEPT_BYTES_MAX);
        Ok(())
    }

    /// Waits for the next message.
    ///
    /// # Errors
    /// When none comes, or it is too large or not understood; nothing can be read after that.
    pub fn receive<T: DeserializeOwned>(&mut self) -> Result<T, FrameError> {
        self.fill(LENGTH_BYTES)?;
        let length = self.inbox.first_chunk().copied().map(u32::from_le_bytes).unwrap_or(0);
        let bytes = usize::try_from(length).unwrap_or(usize::MAX);
        let bytes_max = self.receive_bytes_max;
        if bytes > bytes_max {
            return Err(FrameError::TooLarge { bytes, bytes_max });
        }
        let end = LENGTH_BYTES + bytes;
        self.fill(end)?;
        let message = decode(&self.inbox[LENGTH_BYTES..end])?;
        self.take_out(end);
        Ok(message)
    }

    fn fill(&mut self, wanted: usize) -> io::Result<()> {
        while self.filled < wanted {
            if self.filled == self.inbox.len() {
                // Memory grows with what came, never with what was announced, and each byte of it is cleared once.
                let room = (2 * self.filled).min(wanted).max(KEPT_BYTES_MAX);
                self.inbox.resize(room, 0);
            }
            match self.stream.read(&mut self.inbox[self.filled..]) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(read) => self.filled += read,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn take_out(&mut self, bytes: usize) {
        self.inbox.copy_within(bytes..self.filled, 0);
        self.filled -= bytes;
        self.inbox.truncate(self.filled.max(KEPT_BYTES_MAX));
        self.inbox.shrink_to(KEPT_BYTES_MAX);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Cursor;

    /// Gives one byte at a time.
    #[derive(Default)]
    struct Slow {
        bytes: Cursor<Vec<u8>>,
        given: usize,
        /// How often its room was cleared.
        cleared: usize,
    }

    impl Read for Slow {
        fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
            assert!(
                room.len() <= self.given.max(KEPT_BYTES_MAX),
                "room for what has not come"
            );
            self.cleared += usize::from(room.last() == Some(&0));
            room.fill(0xff);
            self.given += 1;
            self.bytes.read(&mut room[..1])
        }
    }

    impl Write for Slow {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.bytes.get_mut().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn messages_come_whole_and_in_order_from_a_slow_stream() {
        let mut frames = Frames::new(Slow::default(), 1 << 20);
        let messages = ["a".repeat(40_000), String::new(), "b".to_owned()];
        for message in &messages {
            frames.send(message).unwrap();
        }
        for message in &messages {
            assert_eq!(&frames.receive::<String>().unwrap(), message);
        }
        // A byte that comes alone made the room for all others be cleared: 8 MiB of them took a minute and a half.
        assert!(frames.stream.cleared < 10, "{}", frames.stream.cleared);
        assert!(frames.inbox.capacity() <= KEPT_BYTES_MAX && frames.outbox.capacity() <= KEPT_BYTES_MAX);
        assert!(matches!(frames.receive::<String>(), Err(FrameError::Stream(_))));
    }

    #[test]
    fn a_message_beyond_the_bound_is_refused_by_its_length() {
        let mut frames = Frames::new(Slow::default(), 1_000);
        frames.stream.write_all(&[0xff; 8]).unwrap();
        let result = frames.receive::<String>();
        assert!(
            matches!(
                result,
                Err(FrameError::TooLarge {
                    bytes: 0xffff_ffff,
                    bytes_max: 1_000
                })
            ),
            "{result:?}"
        );
    }
}
