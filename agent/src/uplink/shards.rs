//! The shards under which this site spoke before, so that what a broker retained of it there is cleared.
//!
//! In: the shard of the settings. Out: those before it that are not cleared yet. They outlive restarts in a file, one name
//! in a line, that of now first; without it nothing is cleared, and nothing else is lost: a shard is part of no key.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use tillwatch_feed::topic::{Shard, SiteId};
use tracing::warn;

use crate::whole::read_bounded;

/// The oldest are forgotten.
const FORMER_MAX: usize = 8;
const FILE_BYTES_MAX: u64 = 4 << 10;

#[derive(Debug)]
pub(super) struct Shards {
    site: SiteId,
    file: Option<PathBuf>,
    now: Shard,
    former: Vec<Shard>,
}

impl Shards {
    pub(super) fn open(site: &SiteId, file: Option<&Path>, now: &Shard) -> Self {
        let mut known = file.map(read).unwrap_or_default();
        let is_new = known.first() != Some(now);
        known.retain(|shard| shard != now);
        known.truncate(FORMER_MAX);
        let shards = Self {
            site: site.clone(),
            file: file.map(Path::to_owned),
            now: now.clone(),
            former: known,
        };
        if is_new {
            shards.write();
        }
        shards
    }

    pub(super) fn former(&self) -> &[Shard] {
        &self.former
    }

    /// The broker retains nothing of this site there any more.
    pub(super) fn cleared(&mut self, shard: &Shard) {
        self.former.retain(|former| former != shard);
        self.write();
    }

    fn write(&self) {
        let Some(file) = &self.file else { return };
        let names = std::iter::once(&self.now).chain(&self.former);
        let text: String = names.map(|shard| format!("{shard}\n")).collect();
        if let Err(error) = replace(file, &text) {
            let (site, file) = (&self.site, file.display());
            warn!(%site, %file, %error, "the shard is not remembered");
        }
    }
}

fn read(file: &Path) -> Vec<Shard> {
    let bytes = read_bounded(file, FILE_BYTES_MAX).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    text.lines().filter_map(|line| line.parse().ok()).collect()
}

fn replace(file: &Path, text: &str) -> io::Result<()> {
    let temporary = file.with_extension("tmp");
    fs::write(&temporary, text)?;
    fs::rename(&temporary, file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_former_shard_is_known_until_it_is_cleared_also_after_restarts() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("shard");
        let open = |now: &str| Shards::open(&"store-1".parse().unwrap(), Some(&file), &now.parse().unwrap());
        let former = |shards: &Shards| shards.former().iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(former(&open("a")), Vec::<String>::new());
        assert_eq!(former(&open("a")), Vec::<String>::new());
        assert_eq!(former(&open("b")), ["a"]);
        let mut shards = open("c");
        assert_eq!(former(&shards), ["b", "a"]);
        shards.cleared(&"b".parse().unwrap());
        assert_eq!(former(&open("c")), ["a"]);
        assert_eq!(former(&open("a")), ["c"], "what is spoken under is not cleared");
        fs::write(&file, "\u{0}\nNot a shard\n").unwrap();
        assert_eq!(former(&open("b")), Vec::<String>::new());
    }
}
