//! How small it could be: an adaptive arithmetic coder over the same columns, an estimate of the limit, not a bound.
//!
//! In: the protobuf bodies of blocks, one after the other. Out: how many bytes they take.
//! It never sends a table and never forgets: the models of a column go on from message to message, which no payload
//! that must be read alone can do. A number is its length in bits and then its bits, each in the context of its column and of the
//! number before.
//! Source: the coder is that of LZMA (carry-less range coder), with two rates of adaption and probabilities of 16 bits.

use std::collections::HashMap;

use anyhow::{Context, Result};

/// A coder with what it has learned.
#[derive(Default)]
pub(super) struct Limit {
    coder: RangeCoder,
    models: HashMap<(u32, u32), Model>,
}

/// The contexts of one column: bits of the length, and the upper bits of the number.
struct Model {
    length: [Bit; 128],
    upper: Vec<Bit>,
}

impl Default for Model {
    fn default() -> Self {
        Self {
            length: [Bit::default(); 128],
            upper: vec![Bit::default(); 65 << UPPER_BITS],
        }
    }
}

/// So many bits below the first are modeled.
const UPPER_BITS: usize = 3;

impl Limit {
    /// Codes all columns of a block in protobuf.
    pub(super) fn code(&mut self, block: &[u8]) -> Result<()> {
        let mut rest = block;
        while !rest.is_empty() {
            let key = varint(&mut rest).context("a key")?;
            let field = u32::try_from(key >> 3)?;
            match key & 7 {
                0 => {
                    let value = varint(&mut rest).context("a number")?;
                    self.column(field, &[value]);
                }
                1 => {
                    let (bytes, after) = rest.split_first_chunk::<8>().context("8 bytes")?;
                    rest = after;
                    self.column(field, &[u64::from_le_bytes(*bytes)]);
                }
                2 => {
                    let length = usize::try_from(varint(&mut rest).context("a length")?)?;
                    let (mut packed, after) = rest.split_at_checked(length).context("a column")?;
                    rest = after;
                    let mut column = Vec::new();
                    while !packed.is_empty() {
                        column.push(varint(&mut packed).context("a number of a column")?);
                    }
                    self.column(field, &column);
                }
                other => anyhow::bail!("wire type {other}"),
            }
        }
        Ok(())
    }

    /// All bytes so far.
    pub(super) fn bytes(&self) -> usize {
        self.coder.bytes
    }

    /// Whether a field is there, how long its column is, its numbers.
    fn column(&mut self, field: u32, values: &[u64]) {
        self.number((field, 99), values.len() as u64);
        let mut before = 0;
        for value in values {
            self.number((field, before), *value);
            before = bits_of(*value).min(8);
        }
    }

    fn number(&mut self, context: (u32, u32), value: u64) {
        let model = self.models.entry(context).or_default();
        let bits = bits_of(value);
        let mut node = 1_usize;
        for at in (0..7).rev() {
            let bit = (bits >> at) & 1 == 1;
            self.coder.code(bit, &mut model.length[node]);
            node = node * 2 + usize::from(bit);
        }
        let (mut node, mut modeled) = (1_usize, 0);
        for at in (0..bits.saturating_sub(1)).rev() {
            let bit = (value >> at) & 1 == 1;
            if modeled < UPPER_BITS {
                self.coder
                    .code(bit, &mut model.upper[((bits as usize) << UPPER_BITS) + node]);
                node = node * 2 + usize::from(bit);
                modeled += 1;
            } else {
                self.coder.code(bit, &mut Bit::default());
            }
        }
    }
}

fn bits_of(value: u64) -> u32 {
    64 - value.leading_zeros()
}

pub(super) fn varint(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (&byte, after) = rest.split_first()?;
        *rest = after;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

/// How likely a 0 is, learned at two rates.
#[derive(Clone, Copy)]
struct Bit {
    fast: u16,
    slow: u16,
}

impl Default for Bit {
    fn default() -> Self {
        Self {
            fast: 1 << 15,
            slow: 1 << 15,
        }
    }
}

impl Bit {
    fn of_zero(self) -> u32 {
        (u32::from(self.fast) + u32::from(self.slow))
            .div_ceil(2)
            .clamp(64, 65_472)
    }

    fn learn(&mut self, bit: bool) {
        let to = if bit { 0 } else { u16::MAX };
        self.fast = towards(self.fast, to, 4);
        self.slow = towards(self.slow, to, 7);
    }
}

fn towards(from: u16, to: u16, rate: u32) -> u16 {
    if to > from {
        from + ((to - from) >> rate)
    } else {
        from - ((from - to) >> rate)
    }
}

/// Counts the bytes that a range coder would write; what they are is not kept.
struct RangeCoder {
    range: u32,
    bytes: usize,
}

impl Default for RangeCoder {
    fn default() -> Self {
        Self {
            range: u32::MAX,
            bytes: 0,
        }
    }
}

impl RangeCoder {
    fn code(&mut self, bit: bool, model: &mut Bit) {
        let bound = (self.range >> 16) * model.of_zero();
        self.range = if bit { self.range - bound } else { bound };
        model.learn(bit);
        while self.range < 1 << 24 {
            self.range <<= 8;
            self.bytes += 1;
        }
    }
}
