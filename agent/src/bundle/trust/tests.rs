//! What a store takes: signed by whom it trusts, not older than before, and in time.

use super::*;
use crate::bundle::ledger::Taken;
use crate::bundle::tests::bundle;
use minisign::KeyPair;
use std::fs;

/// A store with a root key, a release key, and whatever a test installs.
struct Store {
    folder: tempfile::TempDir,
    root: KeyPair,
    release: KeyPair,
    ledger: Ledger,
}

impl Store {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (root, release) = (key(), key());
        fs::write(folder.path().join("root.pub"), root.pk.to_box().unwrap().to_bytes()).unwrap();
        let ledger = Ledger::open(folder.path()).unwrap();
        let store = Self {
            folder,
            root,
            release,
            ledger,
        };
        store.install_keys(1, "2027-01-31", "queue-*");
        store
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn install_keys(&self, sequence: u64, expires: &str, plugins: &str) {
        let public = self.release.pk.to_base64();
        let text = format!(
            "sequence = {sequence}\nexpires = \"{expires}\"\n[[key]]\nname = \"releases\"\npublic = \"{public}\"\nplugins = [\"{plugins}\"]\n"
        );
        write_signed(&self.path("keys.toml"), text.as_bytes(), &self.root);
    }

    fn install(&self, bytes: &[u8]) {
        write_signed(&self.path("p.wasm"), bytes, &self.release);
    }

    fn open(&self) -> Result<Trust, TrustError> {
        let files = TrustFiles {
            root: self.path("root.pub"),
            keys: self.path("keys.toml"),
        };
        Trust::open(&files, &self.ledger)
    }

    fn verify(&self, today: &str) -> Result<Verified, TrustError> {
        self.open()?
            .verify(&self.path("p.wasm"), None, &self.ledger, today.parse().unwrap())
    }

    /// What a start does after everything was verified.
    fn run(&mut self, today: &str) -> Verified {
        let trust = self.open().unwrap();
        let verified = self.verify(today).unwrap();
        let taken = Taken {
            plugin: verified.bundle.manifest.name.clone(),
            sequence: verified.bundle.about.sequence,
            sha256: verified.sha256.clone(),
        };
        self.ledger
            .accept(trust.sequence(), &[taken], today.parse().unwrap())
            .unwrap();
        verified
    }
}

fn key() -> KeyPair {
    KeyPair::generate_unencrypted_keypair().unwrap()
}

fn write_signed(path: &Path, bytes: &[u8], by: &KeyPair) {
    fs::write(path, bytes).unwrap();
    let signature = minisign::sign(None, &by.sk, bytes, None, None).unwrap();
    fs::write(signature_path(path), signature.into_string()).unwrap();
}

#[test]
fn a_bundle_signed_by_a_listed_key_is_taken() {
    let mut store = Store::new();
    let bytes = bundle(5, "2027-01-31");
    store.install(&bytes);
    let verified = store.run("2026-11-23");
    assert_eq!((verified.key.as_str(), verified.is_expired), ("releases", false));
    assert_eq!(verified.sha256, sha256(&bytes));
}

#[test]
fn a_bundle_of_before_is_not_taken_again() {
    let mut store = Store::new();
    store.install(&bundle(5, "2027-01-31"));
    store.run("2026-11-23");
    store.install(&bundle(4, "2027-01-31"));
    assert!(matches!(
        store.verify("2026-11-23"),
        Err(TrustError::RolledBack {
            sequence: 4,
            accepted: 5,
            ..
        })
    ));
    store.install(&bundle(5, "2027-01-31"));
    store.run("2026-11-23");
}

#[test]
fn an_old_key_list_is_not_taken_again() {
    let mut store = Store::new();
    store.install(&bundle(5, "2027-01-31"));
    store.install_keys(2, "2027-01-31", "*");
    store.run("2026-11-23");
    store.install_keys(1, "2027-01-31", "*");
    assert!(matches!(
        store.verify("2026-11-23"),
        Err(TrustError::KeysRolledBack { .. })
    ));
}

/// Whoever keeps new bundles away can offer an old one for a while, but not for ever.
#[test]
fn what_has_expired_is_not_taken_for_the_first_time() {
    let mut store = Store::new();
    store.install(&bundle(5, "2026-12-31"));
    assert!(matches!(store.verify("2027-01-01"), Err(TrustError::Expired { .. })));
    assert!(!store.run("2026-12-31").is_expired);
    // It runs on at a store that took it in time: a store must not go dark because nobody packed anew.
    assert!(store.verify("2027-01-01").unwrap().is_expired);
    store.install(&bundle(6, "2027-12-31"));
    assert!(matches!(
        store.verify("2027-02-01"),
        Err(TrustError::KeysExpired { .. })
    ));
}

/// A store whose clock was set back took the bundle of last year that somebody held back for it.
#[test]
fn a_clock_that_is_set_back_takes_nothing_that_has_expired() {
    let mut store = Store::new();
    store.install_keys(1, "2028-01-31", "queue-*");
    store.install(&bundle(5, "2027-12-31"));
    store.run("2027-06-01");
    store.install(&bundle(6, "2027-01-31"));
    assert!(matches!(store.verify("2026-11-23"), Err(TrustError::Expired { .. })));
    // What was taken in time goes on.
    store.install(&bundle(5, "2027-12-31"));
    assert!(!store.verify("2026-11-23").unwrap().is_expired);
}

/// A stolen key signed other code under the sequence that runs already, and no expiry of bundle or list held it back.
#[test]
fn another_file_under_an_accepted_sequence_is_refused() {
    let mut store = Store::new();
    store.install(&bundle(5, "2026-12-31"));
    store.run("2026-12-01");
    store.install(&bundle(5, "2027-12-31"));
    for today in ["2026-12-01", "2027-06-01"] {
        assert!(matches!(
            store.verify(today),
            Err(TrustError::OtherFile { sequence: 5, .. })
        ));
    }
    store.install(&bundle(5, "2026-12-31"));
    assert!(store.verify("2027-06-01").unwrap().is_expired);
}

#[test]
fn files_of_different_bundles_do_not_come_together() {
    let store = Store::new();
    store.install(&bundle(5, "2027-01-31"));
    let signature = fs::read(signature_path(&store.path("p.wasm"))).unwrap();
    store.install(&bundle(6, "2027-01-31"));
    fs::write(signature_path(&store.path("p.wasm")), signature).unwrap();
    assert!(matches!(store.verify("2026-11-23"), Err(TrustError::Forged { .. })));
}

#[test]
fn a_changed_or_cut_off_file_is_refused() {
    let store = Store::new();
    let bytes = bundle(5, "2027-01-31");
    store.install(&bytes);
    for end in [0, 8, bytes.len() / 2, bytes.len() - 1] {
        fs::write(store.path("p.wasm"), &bytes[..end]).unwrap();
        assert!(
            matches!(store.verify("2026-11-23"), Err(TrustError::Forged { .. })),
            "cut at {end}"
        );
    }
    let mut changed = bytes.clone();
    changed[20] ^= 1;
    fs::write(store.path("p.wasm"), &changed).unwrap();
    assert!(matches!(store.verify("2026-11-23"), Err(TrustError::Forged { .. })));
    fs::write(store.path("p.wasm"), &bytes).unwrap();
    let signature = fs::read_to_string(signature_path(&store.path("p.wasm"))).unwrap();
    fs::write(signature_path(&store.path("p.wasm")), &signature[..signature.len() / 2]).unwrap();
    assert!(matches!(store.verify("2026-11-23"), Err(TrustError::Signature { .. })));
    fs::remove_file(signature_path(&store.path("p.wasm"))).unwrap();
    assert!(matches!(store.verify("2026-11-23"), Err(TrustError::Io { .. })));
}

#[test]
fn only_the_root_signs_the_key_list_and_only_listed_keys_sign_plugins() {
    let store = Store::new();
    let bytes = bundle(5, "2027-01-31");
    write_signed(&store.path("p.wasm"), &bytes, &store.root);
    assert!(matches!(store.verify("2026-11-23"), Err(TrustError::Forged { .. })));
    let keys = fs::read(store.path("keys.toml")).unwrap();
    write_signed(&store.path("keys.toml"), &keys, &store.release);
    assert!(matches!(store.verify("2026-11-23"), Err(TrustError::KeysForged { .. })));
}

#[test]
fn a_key_signs_the_plugins_that_the_list_gives_it() {
    let store = Store::new();
    store.install(&bundle(5, "2027-01-31"));
    store.install_keys(2, "2027-01-31", "sales");
    assert!(matches!(
        store.verify("2026-11-23"),
        Err(TrustError::NotItsPlugin { .. })
    ));
}

/// A key for `acme-*` signed `acme-x`, the file was called `sales-9.wasm`, and it ran on what `sales` was granted.
#[test]
fn a_bundle_of_another_plugin_does_not_run_under_a_name_that_is_not_its_own() {
    let store = Store::new();
    store.install(&bundle(5, "2027-01-31"));
    let today = "2026-11-23".parse().unwrap();
    let verify = |wanted| {
        let trust = store.open().unwrap();
        trust.verify(&store.path("p.wasm"), Some(wanted), &store.ledger, today)
    };
    assert!(matches!(verify("sales"), Err(TrustError::OtherPlugin { .. })));
    verify("queue-depth").unwrap();
}

#[test]
fn versions_are_compared_as_numbers() {
    assert!(version("0.10.0") > version("0.9.9"));
    assert!(version("1") > version("0.99.99"));
    assert_eq!(version("0.1.0"), [0, 1, 0]);
}

/// Two rights for one key were written, and only the first of them was read.
#[test]
fn a_key_that_is_listed_twice_is_refused() {
    let public = key().pk.to_base64();
    let list = |publics: [&str; 2]| {
        let key = |public: &str| format!("[[key]]\nname = \"k\"\npublic = \"{public}\"\nplugins = [\"*\"]\n");
        let text = format!(
            "sequence = 1\nexpires = \"2027-01-31\"\n{}{}",
            key(publics[0]),
            key(publics[1])
        );
        Trust::read(text.as_bytes()).err()
    };
    assert_eq!(list([&public, &key().pk.to_base64()]), None);
    let refused = list([&public, &format!(" {public}")]);
    assert_eq!(refused.as_deref(), Some("key \"k\" has the same `public` as another"));
}
