//! How far a collector has read, as bytes for the checkpoint.
//!
//! ```text
//! byte 0   format = 1
//! then     fields in the order of the writer: u64 little endian | u32 length + bytes
//! ```
//! What cannot be read is an error, never a panic: the caller then starts as if it had read nothing.

use thiserror::Error;

const FORMAT: u8 = 1;

/// Why stored progress cannot be used.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum ProgressError {
    #[error("the progress is of format {0}, this agent reads {FORMAT}")]
    Format(u8),
    #[error("the progress ends too early")]
    Short,
    #[error("the progress has {0} bytes too many")]
    Long(usize),
}

/// Writes fields one after the other.
#[derive(Debug)]
pub struct Writer(Vec<u8>);

impl Default for Writer {
    fn default() -> Self {
        Self(vec![FORMAT])
    }
}

impl Writer {
    pub fn number(&mut self, value: u64) -> &mut Self {
        self.0.extend_from_slice(&value.to_le_bytes());
        self
    }

    /// At most 4 GiB, which no progress comes near.
    pub fn bytes(&mut self, value: &[u8]) -> &mut Self {
        let length = u32::try_from(value.len()).unwrap_or(u32::MAX);
        self.0.extend_from_slice(&length.to_le_bytes());
        self.0.extend_from_slice(&value[..length as usize]);
        self
    }

    #[must_use]
    pub fn finish(self) -> Vec<u8> {
        self.0
    }
}

/// Reads the fields that a [`Writer`] wrote.
#[derive(Debug)]
pub struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    /// # Errors
    /// When the bytes are empty or of another format.
    pub fn new(bytes: &'a [u8]) -> Result<Self, ProgressError> {
        match bytes.split_first() {
            Some((&FORMAT, rest)) => Ok(Self(rest)),
            Some((&other, _)) => Err(ProgressError::Format(other)),
            None => Err(ProgressError::Short),
        }
    }

    /// # Errors
    /// When nothing is left.
    pub fn number(&mut self) -> Result<u64, ProgressError> {
        let (head, rest) = self.0.split_first_chunk().ok_or(ProgressError::Short)?;
        self.0 = rest;
        Ok(u64::from_le_bytes(*head))
    }

    /// # Errors
    /// When fewer bytes are left than the field says.
    pub fn bytes(&mut self) -> Result<&'a [u8], ProgressError> {
        let (head, rest) = self.0.split_first_chunk().ok_or(ProgressError::Short)?;
        let (value, rest) = rest
            .split_at_checked(u32::from_le_bytes(*head) as usize)
            .ok_or(ProgressError::Short)?;
        self.0 = rest;
        Ok(value)
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// # Errors
    /// When bytes are left over.
    pub fn finish(self) -> Result<(), ProgressError> {
        if self.0.is_empty() {
            Ok(())
        } else {
            Err(ProgressError::Long(self.0.len()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_come_back_in_order_and_anything_else_is_an_error() {
        let mut writer = Writer::default();
        writer.number(7).bytes(b"abc").number(u64::MAX);
        let bytes = writer.finish();
        let mut reader = Reader::new(&bytes).unwrap();
        assert_eq!(reader.number(), Ok(7));
        assert_eq!(reader.bytes(), Ok(&b"abc"[..]));
        assert_eq!(reader.number(), Ok(u64::MAX));
        assert_eq!(reader.number(), Err(ProgressError::Short));
        reader.finish().unwrap();
        assert_eq!(Reader::new(&[9]).unwrap_err(), ProgressError::Format(9));
        assert_eq!(Reader::new(&[]).unwrap_err(), ProgressError::Short);
        let mut cut = Reader::new(&bytes[..12]).unwrap();
        assert_eq!(cut.number(), Ok(7));
        assert_eq!(cut.bytes(), Err(ProgressError::Short));
    }
}
