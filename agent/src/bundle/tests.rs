//! A bundle is read as it was packed, and nothing else is read as a bundle.

use super::*;
use crate::plugin::manifest::tests::GOOD;
use sections::COMPONENT_HEAD;

/// A component with nothing in it but a section of its author.
pub(crate) fn component() -> Vec<u8> {
    let mut component = COMPONENT_HEAD.to_vec();
    append(&mut component, "producers", b"someone");
    component
}

pub(crate) fn bundle(sequence: u64, expires: &str) -> Vec<u8> {
    pack(&component(), GOOD, sequence, expires.parse().unwrap()).unwrap()
}

#[test]
fn a_bundle_is_read_as_it_was_packed() {
    let bundle = parse(&bundle(7, "2027-01-31")).unwrap();
    assert_eq!(
        bundle.manifest,
        Manifest::parse(Path::new("plugin.toml"), GOOD).unwrap()
    );
    assert_eq!(bundle.about.sequence, 7);
    assert_eq!(bundle.about.expires, "2027-01-31".parse().unwrap());
    assert_eq!(bundle.component_bytes, component().len());
}

#[test]
fn it_is_still_a_component_and_packed_once_only() {
    let packed = bundle(1, "2027-01-31");
    assert!(packed.starts_with(&component()));
    let again = pack(&packed, GOOD, 2, "2027-01-31".parse().unwrap());
    assert_eq!(again.unwrap_err(), BundleError::PackedTwice);
    assert_eq!(parse(&component()).unwrap_err(), BundleError::NoBundle);
}

#[test]
fn a_bundle_cut_off_anywhere_is_refused() {
    let packed = bundle(1, "2027-01-31");
    for end in 0..packed.len() {
        assert!(parse(&packed[..end]).is_err(), "cut at {end}");
    }
}

#[test]
fn a_component_under_another_bundles_sections_is_refused() {
    let mut other = COMPONENT_HEAD.to_vec();
    append(&mut other, "producers", b"nobody!");
    assert_eq!(other.len(), component().len());
    let mut mixed = bundle(1, "2027-01-31");
    mixed[..other.len()].copy_from_slice(&other);
    assert_eq!(parse(&mixed).unwrap_err(), BundleError::Swapped);
}

#[test]
fn nothing_may_follow_the_sections() {
    let mut packed = bundle(1, "2027-01-31");
    // A section that is no custom one: type definitions, empty.
    packed.extend_from_slice(&[7, 1, 0]);
    assert_eq!(parse(&packed).unwrap_err(), BundleError::Misplaced);
}

#[test]
fn a_bundle_of_a_later_format_says_that_the_agent_is_old() {
    let mut packed = component();
    append(&mut packed, MANIFEST_SECTION, GOOD.as_bytes());
    append(&mut packed, ABOUT_SECTION, b"format = 2\nnew = true\n");
    assert_eq!(parse(&packed).unwrap_err(), BundleError::Newer(2));
}

#[test]
fn a_wrong_manifest_is_not_packed() {
    let wrong = GOOD.replacen("kind = \"gauge\"", "kind = \"gage\"", 1);
    let error = pack(&component(), &wrong, 1, "2027-01-31".parse().unwrap()).unwrap_err();
    assert!(error.to_string().contains("did you mean \"gauge\"?"), "{error}");
}

/// The fuzz door over a corpus with fixed mutations.
#[test]
fn no_mutation_of_a_bundle_panics_or_passes_unnoticed() {
    let seed = 20_260_301;
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let packed = bundle(3, "2027-01-31");
    let expected = parse(&packed).unwrap();
    for _ in 0..20_000 {
        let mut mutated = packed.clone();
        for _ in 0..random.usize(1..4) {
            let at = random.usize(..mutated.len());
            match random.u8(..3) {
                0 => mutated[at] = random.u8(..),
                1 => drop(mutated.remove(at)),
                _ => mutated.insert(at, random.u8(..)),
            }
        }
        if let Ok(read) = parse(&mutated) {
            // Texts of the manifest may differ; the component never does.
            assert_eq!(read.about.component_sha256, expected.about.component_sha256);
        }
    }
}
