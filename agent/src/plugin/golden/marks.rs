//! A mark in place of one word of the input after another: where it comes back, the plugin gives its input away.
//!
//! In: lines or documents of a case. Out: copies, each with the mark in place of another word.

use std::ops::Range;

/// Lines of a source that are marked, and words of each line or document.
const LINES_MAX: usize = 64;
const WORDS_MAX: usize = 32;
/// Of all copies of one source.
const BYTES_MAX: usize = 4 << 20;

/// Each of the first lines after its copies: a header is read last, so that the lines after it mean what they did.
pub(super) fn lines(lines: &[u8], mark: &[u8]) -> Vec<u8> {
    let mut marked = Vec::new();
    for (number, line) in lines.split_inclusive(|byte| *byte == b'\n').enumerate() {
        if number < LINES_MAX && marked.len() < BYTES_MAX {
            marked.extend(copies(line, mark).flatten());
        }
        marked.extend_from_slice(line);
    }
    marked
}

/// The copies of all documents, without the documents themselves.
pub(super) fn documents<'a>(documents: impl Iterator<Item = &'a [u8]>, mark: &[u8]) -> Vec<Vec<u8>> {
    let mut left = BYTES_MAX;
    let copies = documents.flat_map(|document| copies(document, mark));
    copies
        .take_while(|copy| {
            let fits = left > 0;
            left = left.saturating_sub(copy.len());
            fits
        })
        .collect()
}

/// One copy for each word, or for so many of them, evenly chosen.
pub(super) fn copies(text: &[u8], mark: &[u8]) -> impl Iterator<Item = Vec<u8>> {
    let words = words(text);
    let step = words.len().div_ceil(WORDS_MAX).max(1);
    let copy = move |word: Range<usize>| [&text[..word.start], mark, &text[word.end..]].concat();
    words.into_iter().step_by(step).map(copy)
}

/// Runs of letters and digits.
fn words(text: &[u8]) -> Vec<Range<usize>> {
    let is_word = |byte: &u8| byte.is_ascii_alphanumeric() || !byte.is_ascii();
    let mut start = 0;
    let mut words = Vec::new();
    for run in text.chunk_by(|one, next| is_word(one) == is_word(next)) {
        let end = start + run.len();
        if run.first().is_some_and(is_word) {
            words.push(start..end);
        }
        start = end;
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mark_stands_for_each_word_once_and_a_line_follows_its_copies() {
        let marked = lines(b"a=1\nb\n", b"M");
        assert_eq!(String::from_utf8_lossy(&marked), "M=1\na=M\na=1\nM\nb\n");
        let marked = documents([&b"<a>1.5</a>"[..], b"x"].into_iter(), b"M");
        let marked: Vec<_> = marked.iter().map(|copy| String::from_utf8_lossy(copy)).collect();
        assert_eq!(marked, ["<M>1.5</a>", "<a>M.5</a>", "<a>1.M</a>", "<a>1.5</M>", "M"]);
    }

    #[test]
    fn a_long_document_is_marked_from_its_begin_to_its_end_so_often_and_no_more() {
        let long = "word ".repeat(10 * WORDS_MAX);
        let copies: Vec<_> = copies(long.as_bytes(), b"M").collect();
        assert_eq!(copies.len(), WORDS_MAX);
        let place = |copy: &[u8]| copy.iter().position(|byte| *byte == b'M').unwrap();
        assert!(place(&copies[0]) == 0 && place(copies.last().unwrap()) > long.len() * 9 / 10);
    }
}
