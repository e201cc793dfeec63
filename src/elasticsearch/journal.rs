//! [`Journal`]: the record of an upload on this machine, from which the same command resumes after an interruption.
//!
//! A journal is a file of lines with checksums, to which lines are only appended: `begin-1` with the header, then `try N` before
//! part N is sent for the first time and `stored N` when the server has acknowledged it, and likewise for `model` and `vocabulary`.
//! A crash can truncate the last line, which its checksum reveals; all earlier lines are valid. `try` is needed because of the
//! response "already exists" (contract 4.2.6), which means success only for a part that was sent before.

use std::fs::File;
use std::io::{self, Write};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::hexadecimal::hexadecimal;

/// Number of acknowledged parts after which the file is synced to the disk. A killed process loses no line. A power failure loses
/// at most this number of lines, and these parts are sent again and found to exist.
const SYNC_EVERY: usize = 16;

/// The first word of a journal. It changes with the format.
pub(super) const BEGIN: &str = "begin-1";

/// The identity of an upload.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct JournalHeader {
    pub(super) model_id: String,
    /// The cluster's uuid.
    pub(super) cluster: String,
    /// The `import_id` in the metadata of the model on the cluster.
    pub(super) import_id: String,
    /// SHA-256 of the definition.
    pub(super) definition_sha256: String,
    /// SHA-256 of vocabulary and configuration.
    pub(super) companions_sha256: String,
    /// Bytes of the definition.
    pub(super) length: usize,
    /// Bytes of a part.
    pub(super) part_size: usize,
}

impl JournalHeader {
    /// SHA-256 of definition, vocabulary and configuration.
    pub(super) fn bundle_sha256(&self) -> String {
        let text = format!("{} {}", self.definition_sha256, self.companions_sha256);
        hexadecimal(&Sha256::digest(text))
    }

    /// Parts of the definition.
    pub(super) fn parts(&self) -> usize {
        self.length.div_ceil(self.part_size.max(1))
    }

    /// Whether both headers describe the same model, for any size of the parts.
    pub(super) fn is_of(&self, other: &Self) -> bool {
        let what = |header: &Self| {
            let Self { definition_sha256, companions_sha256, length, .. } = header;
            (definition_sha256.clone(), companions_sha256.clone(), *length)
        };
        what(self) == what(other)
    }
}

/// The state of an item.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Mark {
    /// The item was never sent.
    Untouched,
    /// The item was sent.
    Tried,
    /// The server acknowledged the item.
    Stored,
}

/// An item that is stored with one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Item {
    Model,
    Vocabulary,
    Part(usize),
}

/// The journal of one upload. Without a file it exists only in memory, and the upload cannot be resumed.
#[derive(Debug)]
pub(super) struct Journal {
    pub(super) header: JournalHeader,
    model: Mark,
    vocabulary: Mark,
    parts: Vec<Mark>,
    pub(super) file: Option<File>,
    /// Whether another process can find the file.
    pub(super) durable: bool,
    unsynced: usize,
}

impl Journal {
    pub(super) fn new(header: JournalHeader, file: Option<File>) -> Self {
        let parts = vec![Mark::Untouched; header.parts()];
        let durable = file.is_some();
        let (model, vocabulary) = (Mark::Untouched, Mark::Untouched);
        Self { header, model, vocabulary, parts, file, durable, unsynced: 0 }
    }

    /// Whether another process can resume the upload.
    pub(super) fn is_durable(&self) -> bool {
        self.durable
    }

    pub(super) fn mark(&self, item: Item) -> Mark {
        match item {
            Item::Model => self.model,
            Item::Vocabulary => self.vocabulary,
            Item::Part(part) => self.parts.get(part).copied().unwrap_or(Mark::Untouched),
        }
    }

    /// The numbers of the parts that the server has not acknowledged.
    pub(super) fn missing(&self) -> Vec<usize> {
        let marks = self.parts.iter().enumerate();
        marks.filter(|(_, mark)| **mark != Mark::Stored).map(|(part, _)| part).collect()
    }

    /// The number of parts that the server has acknowledged.
    pub(super) fn stored(&self) -> usize {
        self.parts.iter().filter(|mark| **mark == Mark::Stored).count()
    }

    /// Records that an item is about to be sent.
    pub(super) fn tried(&mut self, item: Item) {
        if self.mark(item) == Mark::Untouched {
            self.write(item, Mark::Tried);
        }
    }

    /// Records that the server has acknowledged an item.
    pub(super) fn acknowledged(&mut self, item: Item) {
        self.write(item, Mark::Stored);
        self.unsynced += 1;
        if self.unsynced >= SYNC_EVERY || !matches!(item, Item::Part(_)) {
            self.sync();
        }
    }

    /// Syncs the file to the disk.
    pub(super) fn sync(&mut self) {
        self.unsynced = 0;
        let synced = self.file.as_ref().map_or(Ok(()), File::sync_data);
        self.keep(synced);
    }

    fn write(&mut self, item: Item, mark: Mark) {
        self.set(item, mark);
        let entry = line(&entry(item, mark));
        let written = self.file.as_mut().map_or(Ok(()), |file| file.write_all(entry.as_bytes()));
        self.keep(written);
    }

    /// After a failed write the file is not written again. Its existing lines remain valid.
    fn keep(&mut self, written: io::Result<()>) {
        if let Err(error) = written {
            tracing::warn!(
                "cannot write the upload journal ({error}): after an interruption, some parts will be sent again"
            );
            self.file = None;
        }
    }

    fn set(&mut self, item: Item, mark: Mark) {
        match item {
            Item::Model => self.model = mark,
            Item::Vocabulary => self.vocabulary = mark,
            Item::Part(part) => {
                if let Some(known) = self.parts.get_mut(part) {
                    *known = mark;
                }
            }
        }
    }

    /// Applies the content of one line. Returns false if the line is not valid.
    pub(super) fn replay(&mut self, content: &str) -> bool {
        let Some((word, what)) = content.split_once(' ') else { return false };
        let mark = match word {
            "try" => Mark::Tried,
            "stored" => Mark::Stored,
            _ => return false,
        };
        let item = match what {
            "model" => Item::Model,
            "vocabulary" => Item::Vocabulary,
            part => match part.parse() {
                Ok(part) if part < self.parts.len() => Item::Part(part),
                _ => return false,
            },
        };
        self.set(item, mark.max(self.mark(item)));
        true
    }
}

fn entry(item: Item, mark: Mark) -> String {
    let word = if mark == Mark::Stored { "stored" } else { "try" };
    match item {
        Item::Model => format!("{word} model"),
        Item::Vocabulary => format!("{word} vocabulary"),
        Item::Part(part) => format!("{word} {part}"),
    }
}

/// A line: eight digits of the content's SHA-256, the content.
pub(super) fn line(content: &str) -> String {
    format!("{} {content}\n", checksum(content))
}

fn checksum(content: &str) -> String {
    hexadecimal(&Sha256::digest(content)[..4])
}

/// The content of a complete line with a valid checksum.
pub(super) fn content(line: &str) -> Option<&str> {
    let (sum, content) = line.strip_suffix('\n')?.split_once(' ')?;
    (sum == checksum(content)).then_some(content)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::super::claim::{Claim, Unclaimed};
    use super::*;

    fn header(length: usize) -> JournalHeader {
        JournalHeader {
            model_id: "m".into(),
            cluster: "c".into(),
            import_id: "i".into(),
            definition_sha256: "d".into(),
            companions_sha256: "v".into(),
            length,
            part_size: 10,
        }
    }

    fn claim(folder: &Path) -> Claim {
        Claim::take(folder, "c", &"m".parse().unwrap()).unwrap()
    }

    #[test]
    fn resumed_journal_has_every_written_line() {
        let folder = tempfile::tempdir().unwrap();
        {
            let claim = claim(folder.path());
            assert!(claim.resume().is_none());
            let mut journal = claim.begin(header(45));
            journal.tried(Item::Model);
            journal.acknowledged(Item::Model);
            journal.tried(Item::Part(3));
            journal.tried(Item::Part(1));
            journal.acknowledged(Item::Part(3));
        }
        let claim = claim(folder.path());
        let mut journal = claim.resume().unwrap();
        assert_eq!(journal.header, header(45));
        assert_eq!(journal.mark(Item::Model), Mark::Stored);
        assert_eq!(journal.mark(Item::Vocabulary), Mark::Untouched);
        assert_eq!(journal.mark(Item::Part(1)), Mark::Tried);
        assert_eq!((journal.missing(), journal.stored()), (vec![0, 1, 2, 4], 1));
        journal.acknowledged(Item::Part(4));
        assert_eq!(claim.resume().unwrap().missing(), [0, 1, 2]);
        claim.forget();
        assert!(claim.resume().is_none());
    }

    /// A journal as version 0.1.0 wrote it.
    const FROM_0_1_0: &str = include_str!("../../tests/fixtures/journals/0.1.0.journal");

    #[test]
    fn journal_of_0_1_0_resumes() {
        let folder = tempfile::tempdir().unwrap();
        let claim = claim(folder.path());
        fs::write(&claim.journal, FROM_0_1_0).unwrap();
        let journal = claim.resume().unwrap();
        assert_eq!(journal.header, header(45));
        assert_eq!(journal.mark(Item::Model), Mark::Stored);
        assert_eq!(journal.mark(Item::Vocabulary), Mark::Stored);
        assert_eq!(journal.mark(Item::Part(2)), Mark::Tried);
        assert_eq!(journal.missing(), [2, 3, 4]);
    }

    #[test]
    fn journal_lines_have_the_documented_form() {
        let folder = tempfile::tempdir().unwrap();
        let claim = claim(folder.path());
        let mut journal = claim.begin(header(45));
        for item in [Item::Model, Item::Vocabulary, Item::Part(3)] {
            journal.tried(item);
            journal.acknowledged(item);
        }
        let text = fs::read_to_string(&claim.journal).unwrap();
        let contents: Vec<_> =
            text.split_inclusive('\n').map(|line| content(line).unwrap()).collect();
        assert!(contents[0].starts_with("begin-1 {"), "{text}");
        let expected = [
            "try model",
            "stored model",
            "try vocabulary",
            "stored vocabulary",
            "try 3",
            "stored 3",
        ];
        assert_eq!(contents[1..], expected);
    }

    #[test]
    fn damaged_journal_resumes_up_to_the_damage() {
        let folder = tempfile::tempdir().unwrap();
        let claim = claim(folder.path());
        let mut journal = claim.begin(header(45));
        let begun = fs::read(&claim.journal).unwrap().len();
        for part in 0..4 {
            journal.tried(Item::Part(part));
            journal.acknowledged(Item::Part(part));
        }
        let whole = fs::read(&claim.journal).unwrap();
        for cut in 0..=whole.len() {
            fs::write(&claim.journal, &whole[..cut]).unwrap();
            let lines = whole[..cut].iter().filter(|byte| **byte == b'\n').count();
            match claim.resume() {
                None => assert!(cut < begun),
                Some(mut journal) => {
                    assert_eq!(journal.stored(), (lines - 1) / 2, "{cut}");
                    // The line that is appended then is found by the next reader.
                    journal.acknowledged(Item::Part(4));
                    assert_eq!(claim.resume().unwrap().mark(Item::Part(4)), Mark::Stored);
                }
            }
        }
        for at in 0..whole.len() {
            let mut altered = whole.clone();
            altered[at] ^= 0x84;
            fs::write(&claim.journal, &altered).unwrap();
            let lines = whole[..at].iter().filter(|byte| **byte == b'\n').count();
            match claim.resume() {
                None => assert!(at < begun),
                Some(journal) => assert!(journal.stored() <= lines / 2, "{at}"),
            }
        }
        for nonsense in ["", "\n", "x y\n", &line("begin-1 {}"), &line("begin-2 {}")] {
            fs::write(&claim.journal, nonsense).unwrap();
            assert!(claim.resume().is_none(), "{nonsense:?}");
        }
        let endless =
            serde_json::to_string(&JournalHeader { length: usize::MAX, ..header(1) }).unwrap();
        fs::write(&claim.journal, line(&format!("{BEGIN} {endless}"))).unwrap();
        assert!(claim.resume().is_none());
    }

    #[test]
    fn claim_is_exclusive_per_cluster_and_model() {
        let folder = tempfile::tempdir().unwrap();
        let first = claim(folder.path());
        let take =
            |cluster: &str, id: &str| Claim::take(folder.path(), cluster, &id.parse().unwrap());
        assert!(matches!(take("c", "m"), Err(Unclaimed::Held)));
        assert!(take("other", "m").is_ok() && take("c", "n").is_ok());
        drop(first);
        assert!(take("c", "m").is_ok());
        let left = fs::read_dir(folder.path().join("imports")).unwrap().count();
        assert_eq!(left, 0, "no lock stays behind");
    }

    #[test]
    fn unwritable_directory_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, "").unwrap();
        assert!(matches!(Claim::take(&file, "c", &"m".parse().unwrap()), Err(Unclaimed::Io(..))));
    }
}
