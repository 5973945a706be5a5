//! Trained zstd dictionaries by their id.
//!
//! In: a body, or a frame and how large it may become. Out: the other of both. The files in `dictionaries/` are part of
//! the format: they are never changed, only added to, and a reader keeps all of them.

use std::cell::RefCell;
use std::io;
use std::sync::LazyLock;

use zstd::bulk::{Compressor, Decompressor};
use zstd::dict::{DecoderDictionary, EncoderDictionary};

/// One dictionary; what zstd makes of it is made at its first use.
pub(super) struct Dictionary {
    pub(super) id: u16,
    encoder: LazyLock<EncoderDictionary<'static>>,
    decoder: LazyLock<DecoderDictionary<'static>>,
}

/// Live blocks are small, so that searching long costs little.
const LEVEL: i32 = 19;

/// Of blocks: two days of a store with 30 series.
const BLOCKS: &[u8] = include_bytes!("../../dictionaries/1.zdict");

static ONE: Dictionary = Dictionary {
    id: 1,
    encoder: LazyLock::new(|| EncoderDictionary::copy(BLOCKS, LEVEL)),
    decoder: LazyLock::new(|| DecoderDictionary::copy(BLOCKS)),
};

/// The one that this version writes. Another one is written only when all archives are known to read it.
pub(super) static WRITTEN: &Dictionary = &ONE;

/// All that this version reads.
pub(super) fn by_id(id: u16) -> Option<&'static Dictionary> {
    (id == ONE.id).then_some(&ONE)
}

impl Dictionary {
    pub(super) fn compress(&self, body: &[u8]) -> io::Result<Vec<u8>> {
        let mut compressor = Compressor::with_prepared_dictionary(&self.encoder)?;
        // The header says the id.
        compressor.include_dictid(false)?;
        compressor.compress(body)
    }

    fn decompressor(&'static self) -> io::Result<Decompressor<'static>> {
        Decompressor::with_prepared_dictionary(&self.decoder)
    }
}

thread_local! {
    /// By the id of its dictionary, 0 for none: to make one takes three times as long as to inflate a payload.
    static DECOMPRESSORS: RefCell<Vec<(u16, Decompressor<'static>)>> = const { RefCell::new(Vec::new()) };
}

/// What the frame holds, up to so many bytes.
pub(super) fn decompress(
    dictionary: Option<&'static Dictionary>,
    frame: &[u8],
    bytes_max: usize,
) -> io::Result<Vec<u8>> {
    let id = dictionary.map_or(0, |dictionary| dictionary.id);
    DECOMPRESSORS.with_borrow_mut(|kept| {
        if let Some((_id, decompressor)) = kept.iter_mut().find(|(of, _)| *of == id) {
            return decompressor.decompress(frame, bytes_max);
        }
        let mut decompressor = dictionary.map_or_else(Decompressor::new, Dictionary::decompressor)?;
        let inflated = decompressor.decompress(frame, bytes_max);
        kept.push((id, decompressor));
        inflated
    })
}
