//! A host whose input lies in memory: the same for a plugin behind the border and for one that runs natively.

use tillwatch_border::{Document, Fault, Host, Level, Lines, Listing};
use tillwatch_sdk as sdk;

const NOW_MS: u64 = 1_772_451_000_000;
const DOCUMENT: &str = "0001.xml";

/// Gives its lines or its document once.
#[derive(Default)]
pub(crate) struct MemoryHost {
    lines: Vec<u8>,
    given: usize,
    document: Option<Vec<u8>>,
}

impl MemoryHost {
    pub(crate) fn with_lines(lines: &[u8]) -> Self {
        Self {
            lines: lines.to_vec(),
            ..Self::default()
        }
    }

    pub(crate) fn with_document(document: &[u8]) -> Self {
        Self {
            document: Some(document.to_vec()),
            ..Self::default()
        }
    }

    /// Whole lines, and whether there are more.
    fn next(&mut self, bytes_max: u32) -> (Vec<u8>, bool) {
        let left = &self.lines[self.given..];
        let wanted = usize::try_from(bytes_max).unwrap_or(usize::MAX).min(left.len());
        let end = left[..wanted]
            .iter()
            .rposition(|byte| *byte == b'\n')
            .map_or(0, |at| at + 1);
        self.given += end;
        (left[..end].to_vec(), self.given < self.lines.len())
    }
}

impl Host for MemoryHost {
    fn log(&mut self, _level: Level, _message: &str) {}

    fn now_ms(&mut self) -> u64 {
        NOW_MS
    }

    fn state_get(&mut self) -> Vec<u8> {
        Vec::new()
    }

    fn state_set(&mut self, _value: Vec<u8>) -> Result<(), String> {
        Ok(())
    }

    fn read_lines(&mut self, _source: &str, bytes_max: u32) -> Result<Lines, Fault> {
        let (bytes, more) = self.next(bytes_max);
        Ok(Lines {
            bytes,
            more,
            skipped_bytes: 0,
        })
    }

    fn next_document(&mut self, _source: &str) -> Result<Option<Document>, Fault> {
        let document = |bytes| Document {
            name: DOCUMENT.to_owned(),
            modified_ms: NOW_MS,
            bytes,
        };
        Ok(self.document.take().map(document))
    }

    fn list_folder(&mut self, _source: &str) -> Result<Listing, Fault> {
        Err(Fault::Unknown)
    }
}

impl sdk::Host for MemoryHost {
    fn now_ms(&mut self) -> u64 {
        NOW_MS
    }

    fn log(&mut self, _level: sdk::Level, _message: &str) {}

    fn state(&mut self) -> Vec<u8> {
        Vec::new()
    }

    fn set_state(&mut self, _value: &[u8]) -> Result<(), sdk::Error> {
        Ok(())
    }

    fn read_lines(&mut self, _source: &str, bytes_max: u32) -> Result<sdk::Lines, sdk::Fault> {
        let (bytes, more) = self.next(bytes_max);
        Ok(sdk::Lines {
            bytes,
            more,
            skipped_bytes: 0,
        })
    }

    fn next_document(&mut self, _source: &str) -> Result<Option<sdk::Document>, sdk::Fault> {
        let document = |bytes| sdk::Document {
            name: DOCUMENT.to_owned(),
            modified_ms: NOW_MS,
            bytes,
        };
        Ok(self.document.take().map(document))
    }

    fn list_folder(&mut self, _source: &str) -> Result<sdk::Listing, sdk::Fault> {
        Err(sdk::Fault::Unknown)
    }
}
