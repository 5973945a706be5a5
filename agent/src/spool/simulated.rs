//! A disk that fails like one: full, syncs that fail and forget, power cuts that tear and reorder what was not synced.
//!
//! In: a seed and what may go wrong. Out: the same failures for the same seed. For tests only.

use std::collections::BTreeMap;
use std::io;
use std::sync::Mutex;

use super::disk::{Disk, WriteFault};

const SECTOR_BYTES: usize = 512;

/// Chances in a thousand, per operation.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Faults {
    pub(crate) full: u32,
    pub(crate) sync_fails: u32,
    pub(crate) power_cut: u32,
    pub(crate) read_fails: u32,
    /// Nothing can be changed, with as many in a thousand.
    pub(crate) read_only: u32,
    /// Of cutting, renaming and removing: what went wrong before cannot be taken back.
    pub(crate) change_fails: u32,
}

#[derive(Clone, Debug)]
enum NameChange {
    Added(String, usize),
    Removed(String),
}

#[derive(Debug)]
struct State {
    random: fastrand::Rng,
    faults: Faults,
    /// What programs see: names and contents.
    names: BTreeMap<String, usize>,
    contents: Vec<Vec<u8>>,
    /// What survives a power cut.
    names_durable: BTreeMap<String, usize>,
    contents_durable: Vec<Vec<u8>>,
    /// In order, since the last sync of names.
    name_changes: Vec<NameChange>,
    /// A place of a file that is never read again.
    bad_sector: Option<(String, usize)>,
    is_dead: bool,
}

#[derive(Debug)]
pub(crate) struct SimulatedDisk {
    state: Mutex<State>,
}

fn overwrite(content: &mut Vec<u8>, offset: usize, bytes: &[u8]) {
    if content.len() < offset + bytes.len() {
        content.resize(offset + bytes.len(), 0);
    }
    content[offset..offset + bytes.len()].copy_from_slice(bytes);
}

impl State {
    fn happens(&mut self, chance: u32) -> bool {
        self.random.u32(0..1000) < chance
    }

    fn alive(&mut self) -> io::Result<()> {
        let cuts = self.happens(self.faults.power_cut);
        self.is_dead |= cuts;
        if self.is_dead {
            Err(io::Error::other("the power is off"))
        } else {
            Ok(())
        }
    }

    fn changeable(&mut self) -> io::Result<()> {
        self.alive()?;
        if self.faults.read_only > 0 && self.happens(self.faults.read_only) {
            return Err(io::Error::from(io::ErrorKind::ReadOnlyFilesystem));
        }
        if self.faults.change_fails > 0 && self.happens(self.faults.change_fails) {
            return Err(io::Error::other("input/output error"));
        }
        Ok(())
    }

    fn file(&mut self, name: &str) -> io::Result<usize> {
        self.names
            .get(name)
            .copied()
            .ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
    }

    fn create(&mut self, name: &str) -> usize {
        if let Some(file) = self.names.get(name) {
            return *file;
        }
        let file = self.contents.len();
        self.contents.push(Vec::new());
        self.contents_durable.push(Vec::new());
        self.names.insert(name.to_owned(), file);
        self.name_changes.push(NameChange::Added(name.to_owned(), file));
        file
    }

    /// Some sectors of an unsynced write reach the disk, in any order.
    fn tear(&mut self, file: usize, offset: usize, bytes: &[u8]) {
        let mut at = 0;
        while at < bytes.len() {
            let end = (at + SECTOR_BYTES - (offset + at) % SECTOR_BYTES).min(bytes.len());
            if self.random.bool() {
                overwrite(&mut self.contents_durable[file], offset + at, &bytes[at..end]);
            }
            at = end;
        }
    }

    fn apply_names(&mut self, changes: Vec<NameChange>) {
        for change in changes {
            match change {
                NameChange::Added(name, file) => self.names_durable.insert(name, file),
                NameChange::Removed(name) => self.names_durable.remove(&name),
            };
        }
    }
}

impl SimulatedDisk {
    pub(crate) fn new(seed: u64, faults: Faults) -> Self {
        let state = State {
            random: fastrand::Rng::with_seed(seed),
            faults,
            names: BTreeMap::new(),
            contents: Vec::new(),
            names_durable: BTreeMap::new(),
            contents_durable: Vec::new(),
            name_changes: Vec::new(),
            bad_sector: None,
            is_dead: false,
        };
        Self {
            state: Mutex::new(state),
        }
    }

    pub(crate) fn is_dead(&self) -> bool {
        self.state.lock().unwrap().is_dead
    }

    /// Returns what was set before.
    pub(crate) fn set_faults(&self, faults: Faults) -> Faults {
        std::mem::replace(&mut self.state.lock().unwrap().faults, faults)
    }

    /// Power off and on again: what was not synced is partly there.
    pub(crate) fn restart(&self) {
        let state = &mut *self.state.lock().unwrap();
        let kept = state.random.usize(0..=state.name_changes.len());
        let changes = state.name_changes.drain(..).take(kept).collect();
        state.apply_names(changes);
        state.names = state.names_durable.clone();
        state.contents = state.contents_durable.clone();
        state.is_dead = false;
    }

    /// From now on what holds this byte cannot be read.
    pub(crate) fn break_sector(&self, name: &str, at: usize) {
        self.state.lock().unwrap().bad_sector = Some((name.to_owned(), at));
    }

    pub(crate) fn content(&self, name: &str) -> Vec<u8> {
        let state = &mut *self.state.lock().unwrap();
        let file = state.file(name).unwrap();
        state.contents[file].clone()
    }

    pub(crate) fn flip_bit(&self, name: &str, at: usize) {
        let state = &mut *self.state.lock().unwrap();
        let file = state.file(name).unwrap();
        state.contents[file][at] ^= 1;
        state.contents_durable[file][at] ^= 1;
    }
}

impl Disk for SimulatedDisk {
    fn list(&self) -> io::Result<Vec<(String, u64)>> {
        let state = &mut *self.state.lock().unwrap();
        state.alive()?;
        let contents = &state.contents;
        Ok(state
            .names
            .iter()
            .map(|(name, file)| (name.clone(), contents[*file].len() as u64))
            .collect())
    }

    fn read(&self, name: &str, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        let state = &mut *self.state.lock().unwrap();
        state.alive()?;
        if state.faults.read_fails > 0 && state.happens(state.faults.read_fails) {
            return Err(io::Error::other("too many open files"));
        }
        let file = state.file(name)?;
        let from = usize::try_from(offset).unwrap();
        let is_bad = |(bad, at): &(String, usize)| bad == name && (from..from + length).contains(at);
        if state.bad_sector.as_ref().is_some_and(is_bad) {
            return Err(io::Error::other("input/output error"));
        }
        let part = state.contents[file].get(from..from + length);
        part.map(<[u8]>::to_vec)
            .ok_or_else(|| io::Error::from(io::ErrorKind::UnexpectedEof))
    }

    fn write(&self, name: &str, offset: u64, bytes: &[u8]) -> Result<(), WriteFault> {
        let state = &mut *self.state.lock().unwrap();
        let offset = usize::try_from(offset).unwrap();
        let was_alive = !state.is_dead;
        if let Err(error) = state.alive() {
            if was_alive {
                let file = state.create(name);
                state.tear(file, offset, bytes);
            }
            return Err(WriteFault::Write(error));
        }
        if state.faults.read_only > 0 && state.happens(state.faults.read_only) {
            return Err(WriteFault::Write(io::Error::from(io::ErrorKind::ReadOnlyFilesystem)));
        }
        let is_new_space = state
            .names
            .get(name)
            .is_none_or(|file| state.contents[*file].len() < offset + bytes.len());
        if is_new_space && state.happens(state.faults.full) {
            let file = state.create(name);
            let part = state.random.usize(0..bytes.len());
            overwrite(&mut state.contents[file], offset, &bytes[..part]);
            return Err(WriteFault::Write(io::Error::from(io::ErrorKind::StorageFull)));
        }
        let file = state.create(name);
        overwrite(&mut state.contents[file], offset, bytes);
        if state.happens(state.faults.sync_fails) {
            state.tear(file, offset, bytes);
            return Err(WriteFault::Sync(io::Error::other("input/output error")));
        }
        overwrite(&mut state.contents_durable[file], offset, bytes);
        Ok(())
    }

    fn truncate(&self, name: &str, length: u64) -> io::Result<()> {
        let state = &mut *self.state.lock().unwrap();
        state.changeable()?;
        let file = state.file(name)?;
        let length = usize::try_from(length).unwrap();
        state.contents[file].truncate(length);
        state.contents_durable[file].truncate(length);
        Ok(())
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let state = &mut *self.state.lock().unwrap();
        state.changeable()?;
        let file = state.file(from)?;
        state.names.remove(from);
        state.names.insert(to.to_owned(), file);
        // One step, as file systems do it: the new name first, so that no prefix loses the content.
        state.name_changes.push(NameChange::Added(to.to_owned(), file));
        state.name_changes.push(NameChange::Removed(from.to_owned()));
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let state = &mut *self.state.lock().unwrap();
        state.changeable()?;
        state.file(name)?;
        state.names.remove(name);
        state.name_changes.push(NameChange::Removed(name.to_owned()));
        Ok(())
    }

    fn sync_names(&self) -> io::Result<()> {
        let state = &mut *self.state.lock().unwrap();
        state.alive()?;
        let changes = std::mem::take(&mut state.name_changes);
        state.apply_names(changes);
        Ok(())
    }
}
