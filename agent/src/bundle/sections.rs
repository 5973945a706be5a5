//! The sections of a WebAssembly component, as far as a bundle needs them.
//!
//! In: bytes from anywhere. Out: the custom sections with their places, or why the bytes are no component.
//! It reads names and lengths only; what a section holds is left to its reader.

use super::BundleError;

/// `\0asm`, version 13, layer 1: a component. A core module has version 1, layer 0.
pub const COMPONENT_HEAD: [u8; 8] = *b"\0asm\x0d\0\x01\0";
/// The id of a custom section.
const CUSTOM: u8 = 0;
/// Sections of one component; a real one has some dozens.
const SECTIONS_MAX: usize = 100_000;
/// Bytes of a length: LEB128 of 32 bits.
const LENGTH_BYTES_MAX: usize = 5;

/// A named section at the top level.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Custom<'a> {
    pub name: &'a str,
    pub body: &'a [u8],
    /// Where the section begins, its id included.
    pub start: usize,
    pub end: usize,
}

/// The custom sections of a component in their order; those inside its modules are not looked at.
///
/// # Errors
/// When it is no component or is cut off.
pub fn customs(component: &[u8]) -> Result<Vec<Custom<'_>>, BundleError> {
    if !component.starts_with(&COMPONENT_HEAD) {
        return Err(BundleError::NoComponent);
    }
    let mut customs = Vec::new();
    let mut start = COMPONENT_HEAD.len();
    for _ in 0..SECTIONS_MAX {
        let Some(id) = component.get(start) else {
            return Ok(customs);
        };
        let (content, end) = sized(component, start + 1)?;
        if *id == CUSTOM {
            let (name, name_end) = sized(content, 0)?;
            customs.push(Custom {
                name: std::str::from_utf8(name).map_err(|_not_utf8| BundleError::CutOff)?,
                body: &content[name_end..],
                start,
                end,
            });
        }
        start = end;
    }
    Err(BundleError::CutOff)
}

/// Appends a custom section.
pub fn append(component: &mut Vec<u8>, name: &str, body: &[u8]) {
    let mut content = length(name.len());
    content.extend_from_slice(name.as_bytes());
    content.extend_from_slice(body);
    component.push(CUSTOM);
    component.append(&mut length(content.len()));
    component.append(&mut content);
}

/// What follows a length at `at`, and where it ends.
fn sized(bytes: &[u8], at: usize) -> Result<(&[u8], usize), BundleError> {
    let mut size = 0_u64;
    for index in 0..LENGTH_BYTES_MAX {
        let byte = *bytes.get(at + index).ok_or(BundleError::CutOff)?;
        size |= u64::from(byte & 0x7f) << (7 * index);
        if byte < 0x80 {
            let begin = at + index + 1;
            let end = usize::try_from(size).ok().and_then(|size| begin.checked_add(size));
            let end = end.ok_or(BundleError::CutOff)?;
            return bytes
                .get(begin..end)
                .map(|content| (content, end))
                .ok_or(BundleError::CutOff);
        }
    }
    Err(BundleError::CutOff)
}

fn length(mut size: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let low = u8::try_from(size & 0x7f).unwrap_or_default();
        size >>= 7;
        if size == 0 {
            bytes.push(low);
            return bytes;
        }
        bytes.push(low | 0x80);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_section_comes_back_as_it_was_appended() {
        for size in [0, 1, 127, 128, 20_000] {
            let mut component = COMPONENT_HEAD.to_vec();
            append(&mut component, "first", b"x");
            let start = component.len();
            append(&mut component, "a name", &vec![7; size]);
            let customs = customs(&component).unwrap();
            assert_eq!(customs.len(), 2);
            assert_eq!((customs[1].name, customs[1].body.len()), ("a name", size));
            assert_eq!((customs[1].start, customs[1].end), (start, component.len()));
        }
    }

    #[test]
    fn what_is_cut_off_anywhere_is_refused() {
        let mut component = COMPONENT_HEAD.to_vec();
        append(&mut component, "a name", b"and its body");
        for end in 0..component.len() {
            let result = customs(&component[..end]);
            assert!(result.is_err() || end == COMPONENT_HEAD.len(), "cut at {end}");
        }
        assert_eq!(customs(b"\0asm\x01\0\0\0"), Err(BundleError::NoComponent));
        assert_eq!(
            customs(&[&COMPONENT_HEAD[..], &[0, 0xff, 0xff, 0xff, 0xff, 0xff, 1]].concat()),
            Err(BundleError::CutOff)
        );
    }
}
