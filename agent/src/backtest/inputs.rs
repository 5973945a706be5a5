//! The files of a backtest, each as the only thing that one source of the plugin holds, decompressed if need be.

use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};

use crate::output;
use crate::plugin::grant::{Grant, READ_BYTES_CEILING};
use crate::plugin::manifest::{Manifest, SourceKind};
use crate::source::tail::LINE_BYTES_MAX;
use crate::source::{gzip, modified_ms};

/// What is looked at of a file's begin to tell what it is.
const BEGIN_BYTES: u64 = 512;

#[derive(Debug)]
pub(super) struct Input {
    pub(super) path: PathBuf,
    pub(super) source: String,
    pub(super) grant: Grant,
    pub(super) written_ms: u64,
}

/// In the given order, those of a folder by name.
///
/// # Errors
/// When one cannot be read, or the plugin has no source for it.
pub(super) fn inputs(paths: &[PathBuf], source: Option<&str>, manifest: &Manifest) -> Result<Vec<Input>> {
    let mut inputs = Vec::new();
    for path in paths {
        let path = path.canonicalize().with_context(|| format!("{}", path.display()))?;
        if !path.is_dir() {
            inputs.push(input(path, false, source, manifest)?);
            continue;
        }
        for file in files_of(&path)? {
            inputs.push(input(file, true, source, manifest)?);
        }
    }
    ensure!(!inputs.is_empty(), "the folders hold no files");
    Ok(inputs)
}

fn files_of(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).with_context(|| format!("{}", folder.display()))? {
        let entry = entry?;
        let is_hidden = entry.file_name().to_string_lossy().starts_with('.');
        if entry.file_type()?.is_file() && !is_hidden {
            files.push(entry.path());
        }
    }
    files.sort();
    Ok(files)
}

fn input(path: PathBuf, of_folder: bool, source: Option<&str>, manifest: &Manifest) -> Result<Input> {
    let shown = path.display();
    let metadata = path.metadata().with_context(|| format!("{shown}"))?;
    ensure!(metadata.is_file(), "{shown} is no file");
    let (source, kind) = match source {
        Some(name) => named(name, manifest)?,
        None => fitting(of_folder || is_xml(&path)?, manifest)?,
    };
    let grant = if kind == SourceKind::Documents {
        ensure!(
            metadata.len() <= READ_BYTES_CEILING,
            "{shown} is larger than a document may be, {READ_BYTES_CEILING} bytes"
        );
        document(&path)?
    } else {
        tell_open_end(&path, metadata.len())?;
        Grant::Lines {
            file: path.clone(),
            line_bytes_max: LINE_BYTES_MAX,
        }
    };
    let written_ms = modified_ms(&metadata);
    Ok(Input {
        path,
        source,
        grant,
        written_ms,
    })
}

fn named(name: &str, manifest: &Manifest) -> Result<(String, SourceKind)> {
    let asked = manifest.source(name);
    match asked.map(|asked| asked.kind) {
        Some(kind @ (SourceKind::Lines | SourceKind::Documents)) => Ok((name.to_owned(), kind)),
        Some(kind) => bail!("source `{name}` is a {}, which is no file", kind.name()),
        None => bail!("{} has no source `{name}`\nhint: {}", manifest.name, readable(manifest)),
    }
}

/// Documents for what has no lines, if the plugin reads documents; else whatever it reads.
fn fitting(is_document: bool, manifest: &Manifest) -> Result<(String, SourceKind)> {
    let first = |kind: SourceKind| manifest.sources.iter().find(|asked| asked.kind == kind);
    let (lines, documents) = (first(SourceKind::Lines), first(SourceKind::Documents));
    let fitting = if is_document {
        documents.or(lines)
    } else {
        lines.or(documents)
    };
    let asked = fitting.with_context(|| format!("{} reads no files", manifest.name))?;
    Ok((asked.name.clone(), asked.kind))
}

fn readable(manifest: &Manifest) -> String {
    let is_read = |kind: SourceKind| matches!(kind, SourceKind::Lines | SourceKind::Documents);
    let readable = manifest.sources.iter().filter(|asked| is_read(asked.kind));
    let names: Vec<&str> = readable.map(|asked| asked.name.as_str()).collect();
    format!("its sources that read files: {}", names.join(", "))
}

/// A file alone in its folder, by its name.
fn document(path: &Path) -> Result<Grant> {
    let name = path.file_name().and_then(|name| name.to_str());
    let name = name.with_context(|| format!("{}: its name is no UTF-8", path.display()))?;
    ensure!(
        !name.contains(['*', '?']),
        "{}: its name is a pattern\nhint: rename it",
        path.display()
    );
    Ok(Grant::Documents {
        folder: path.parent().unwrap_or(Path::new("/")).to_owned(),
        pattern: name.to_owned(),
        settle_ms: 0,
        document_bytes_max: READ_BYTES_CEILING,
    })
}

fn is_xml(path: &Path) -> Result<bool> {
    let begin = gzip::begin_of(path, BEGIN_BYTES).with_context(|| format!("{}", path.display()))?;
    let begin = begin.strip_prefix("\u{feff}".as_bytes()).unwrap_or(&begin);
    Ok(begin.trim_ascii_start().starts_with(b"<"))
}

/// As in the agent, a line counts once it is whole, and a damaged file as far as it can be read.
fn tell_open_end(path: &Path, bytes: u64) -> Result<()> {
    let shown = path.display();
    let mut file = std::fs::File::open(path)?;
    let last = if gzip::is_compressed(path) {
        gzip::last_byte(file).with_context(|| format!("{shown} is damaged\nhint: gzip -t says where"))?
    } else if bytes > 0 {
        let mut last = [0];
        file.seek(SeekFrom::End(-1))?;
        file.read_exact(&mut last)?;
        Some(last[0])
    } else {
        None
    };
    if last.is_some_and(|last| last != b'\n') {
        output::error(&format!("{shown}: its last line has no end, and is not read"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest(sources: &str) -> Manifest {
        let text = format!(
            "[plugin]\nname = \"p\"\nversion = \"1.0.0\"\nsummary = \"P.\"\nworld = \"prober\"\n{sources}\n\
             [[metric]]\nname = \"p.x\"\nunit = \"1\"\nkind = \"sum\"\nhelp = \"X.\"\n"
        );
        Manifest::parse(Path::new("plugin.toml"), &text).unwrap()
    }

    #[test]
    fn each_file_stands_for_the_source_that_can_read_it() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().canonicalize().unwrap();
        std::fs::create_dir(place.join("set")).unwrap();
        for (name, text) in [
            ("a.xml", " <POSLog/>"),
            ("b.jsonl", "{}\n"),
            ("set/2.csv", "x\n"),
            ("set/1.csv", "x\n"),
        ] {
            std::fs::write(place.join(name), text).unwrap();
        }
        std::fs::write(place.join("z.xml.gz"), gzip::zip(b"<POSLog/>")).unwrap();
        std::fs::write(place.join("log.2.gz"), gzip::zip(b"{}\n")).unwrap();
        let paths: Vec<PathBuf> = ["b.jsonl", "set", "a.xml", "z.xml.gz", "log.2.gz"]
            .iter()
            .map(|name| place.join(name))
            .collect();
        let source =
            |name: &str, kind: &str| format!("[[source]]\nname = \"{name}\"\nkind = \"{kind}\"\nhelp = \"H.\"\n");
        let both = manifest(&(source("files", "documents") + &source("log", "lines") + &source("peer", "http")));
        let of = |source: Option<&str>, manifest: &Manifest| -> Vec<(String, String)> {
            let shown = |input: Input| {
                (
                    input.path.strip_prefix(&place).unwrap().display().to_string(),
                    input.source,
                )
            };
            inputs(&paths, source, manifest)
                .unwrap()
                .into_iter()
                .map(shown)
                .collect()
        };
        let expected = [
            ("b.jsonl", "log"),
            ("set/1.csv", "files"),
            ("set/2.csv", "files"),
            ("a.xml", "files"),
            ("z.xml.gz", "files"),
            ("log.2.gz", "log"),
        ];
        let expected = expected.map(|(path, source)| (path.to_owned(), source.to_owned()));
        assert_eq!(of(None, &both), expected);
        assert!(of(Some("log"), &both).iter().all(|(_path, source)| source == "log"));
        let one = manifest(&source("log", "lines"));
        assert!(of(None, &one).iter().all(|(_path, source)| source == "log"));

        for (source, manifest) in [(Some("peer"), &both), (Some("x"), &both), (None, &manifest(""))] {
            inputs(&paths, source, manifest).unwrap_err();
        }
        inputs(&[place.join("missing")], None, &both).unwrap_err();
        std::fs::write(place.join("cut.gz"), &gzip::zip(b"{}\n")[..12]).unwrap();
        let damaged = inputs(&[place.join("cut.gz")], Some("log"), &both).unwrap_err();
        assert!(damaged.to_string().contains("cut.gz is damaged"), "{damaged}");
    }
}
