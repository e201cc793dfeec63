//! What is known here of an upload that is under way, so that the same command, run again, goes on where this one stopped.
//!
//! A journal is a file of lines, each with a checksum, that is only ever appended to: `begin-1` with what goes up, then `try N` before
//! part N is sent for the first time and `stored N` when the server has acknowledged it, and likewise for `model` and `vocabulary`.
//! A crash can leave the last line cut, which its checksum tells; every line before it is true. `try` is there for the answer "already
//! exists" (contract 4.2.6): only of what was tried does it mean that our bytes are stored.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use fs4::{FileExt, TryLockError};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::hexadecimal::hexadecimal;
use crate::model_id::ModelId;

/// Acknowledged parts after which the file is brought to the disk itself. A killed process loses nothing that it wrote; a power cut
/// loses at most so many lines, and what they tell of is then sent again and found to exist.
const SYNC_EVERY: usize = 16;

/// The first word of a journal, which a change of its form changes.
const BEGIN: &str = "begin-1";

/// What goes up, and as what.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct JournalHeader {
    pub(super) model_id: String,
    /// The cluster's uuid.
    pub(super) cluster: String,
    /// What the model's metadata on the cluster bear, so that it is known again.
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
    /// SHA-256 of all that is stored: definition, vocabulary and configuration.
    pub(super) fn bundle_sha256(&self) -> String {
        let text = format!("{} {}", self.definition_sha256, self.companions_sha256);
        hexadecimal(&Sha256::digest(text))
    }

    /// How many parts there are.
    pub(super) fn parts(&self) -> usize {
        self.length.div_ceil(self.part_size.max(1))
    }

    /// Whether it is about the same model, however that is cut into parts.
    pub(super) fn is_of(&self, other: &Self) -> bool {
        let what = |header: &Self| {
            let Self { definition_sha256, companions_sha256, length, .. } = header;
            (definition_sha256.clone(), companions_sha256.clone(), *length)
        };
        what(self) == what(other)
    }
}

/// How far one thing is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Mark {
    /// It was never sent.
    Untouched,
    /// It was sent.
    Tried,
    /// The server has acknowledged it.
    Stored,
}

/// One thing that is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Item {
    Model,
    Vocabulary,
    Part(usize),
}

/// The journal of one upload. Where it cannot be written, it lives in memory, and the upload cannot be resumed.
#[derive(Debug)]
pub(super) struct Journal {
    pub(super) header: JournalHeader,
    model: Mark,
    vocabulary: Mark,
    parts: Vec<Mark>,
    file: Option<File>,
    /// Whether another process would find it.
    durable: bool,
    unsynced: usize,
}

impl Journal {
    fn new(header: JournalHeader, file: Option<File>) -> Self {
        let parts = vec![Mark::Untouched; header.parts()];
        let durable = file.is_some();
        let (model, vocabulary) = (Mark::Untouched, Mark::Untouched);
        Self { header, model, vocabulary, parts, file, durable, unsynced: 0 }
    }

    /// Whether the upload can go on after this process.
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

    /// The parts that the server has not acknowledged.
    pub(super) fn missing(&self) -> Vec<usize> {
        let marks = self.parts.iter().enumerate();
        marks.filter(|(_, mark)| **mark != Mark::Stored).map(|(part, _)| part).collect()
    }

    /// How many parts the server has acknowledged.
    pub(super) fn stored(&self) -> usize {
        self.parts.iter().filter(|mark| **mark == Mark::Stored).count()
    }

    /// Writes down that something is about to be sent.
    pub(super) fn tried(&mut self, item: Item) {
        if self.mark(item) == Mark::Untouched {
            self.write(item, Mark::Tried);
        }
    }

    /// Writes down that the server has acknowledged something.
    pub(super) fn acknowledged(&mut self, item: Item) {
        self.write(item, Mark::Stored);
        self.unsynced += 1;
        if self.unsynced >= SYNC_EVERY || !matches!(item, Item::Part(_)) {
            self.sync();
        }
    }

    /// Brings what is written to the disk.
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

    /// A file that can no longer be written stays true as far as it goes.
    fn keep(&mut self, written: io::Result<()>) {
        if let Err(error) = written {
            tracing::warn!(
                "the upload's journal cannot be written ({error}): after an interruption some parts would be sent again"
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

    /// Takes in one line's content; false when it is none of ours.
    fn replay(&mut self, content: &str) -> bool {
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
fn line(content: &str) -> String {
    format!("{} {content}\n", checksum(content))
}

fn checksum(content: &str) -> String {
    hexadecimal(&Sha256::digest(content)[..4])
}

/// The content of a whole line.
fn content(line: &str) -> Option<&str> {
    let (sum, content) = line.strip_suffix('\n')?.split_once(' ')?;
    (sum == checksum(content)).then_some(content)
}

/// The one right on this machine to import a model of this id into this cluster, and the place of its journal. Given back when it is
/// dropped, or when the process ends in whatever way.
#[derive(Debug)]
pub(super) struct Claim {
    journal: PathBuf,
    lock: PathBuf,
    /// Holds the lock.
    file: File,
}

/// Why there is no claim.
#[derive(Debug)]
pub(super) enum Unclaimed {
    /// Another process has it.
    Held,
    /// The folder cannot be used.
    Io(PathBuf, io::Error),
}

impl Claim {
    /// Takes the claim, if nobody has it.
    pub(super) fn take(folder: &Path, cluster: &str, id: &ModelId) -> Result<Self, Unclaimed> {
        let folder = folder.join("imports");
        let failed = |error| Unclaimed::Io(folder.clone(), error);
        fs::create_dir_all(&folder).map_err(failed)?;
        // The uuid is whatever the server says, so it does not name files.
        let cluster = hexadecimal(&Sha256::digest(cluster)[..8]);
        let journal = folder.join(format!("{id}.{cluster}.journal"));
        let lock = journal.with_extension("lock");
        let file =
            lock_file(&lock, |path| fs::read_to_string(path)).map_err(|error| match error {
                TryLockError::WouldBlock => Unclaimed::Held,
                TryLockError::Error(error) => failed(error),
            })?;
        Ok(Self { journal, lock, file })
    }

    /// Begins a new journal in place of any other; one in memory where that fails.
    pub(super) fn begin(&self, header: JournalHeader) -> Journal {
        match self.create(&header) {
            Ok(file) => Journal::new(header, Some(file)),
            Err(error) => {
                warn_unresumable(&self.journal, &error);
                self.forget();
                Journal::new(header, None)
            }
        }
    }

    /// Whole or not at all, and on the disk before anything is sent.
    fn create(&self, header: &JournalHeader) -> io::Result<File> {
        let folder = self.journal.parent().unwrap_or(Path::new(""));
        let mut file = tempfile::NamedTempFile::new_in(folder)?;
        let header = serde_json::to_string(header)?;
        file.write_all(line(&format!("{BEGIN} {header}")).as_bytes())?;
        file.as_file().sync_all()?;
        let file = file.persist(&self.journal).map_err(|error| error.error)?;
        // Folders cannot be synced everywhere, and a journal that a power cut takes back is only one that is not there.
        let _ = File::open(folder).and_then(|folder| folder.sync_all());
        Ok(file)
    }

    /// The journal that an earlier process left, as far as it is whole.
    pub(super) fn resume(&self) -> Option<Journal> {
        let mut file = OpenOptions::new().read(true).write(true).open(&self.journal).ok()?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).ok()?;
        let text = match std::str::from_utf8(&bytes) {
            Ok(text) => text,
            Err(error) => std::str::from_utf8(bytes.get(..error.valid_up_to())?).ok()?,
        };
        let mut lines = text.split_inclusive('\n');
        let first = lines.next()?;
        let header = content(first)?.strip_prefix(BEGIN)?;
        let header: JournalHeader = serde_json::from_str(header).ok()?;
        // Nothing about a definition that could not be.
        if header.length == 0 || header.part_size == 0 || header.parts() > super::upload::MOST_PARTS
        {
            return None;
        }
        let mut whole = first.len();
        let mut journal = Journal::new(header, None);
        for line in lines {
            if !content(line).is_some_and(|content| journal.replay(content)) {
                break;
            }
            whole += line.len();
        }
        // The next line must not be joined to one that is cut.
        file.set_len(whole as u64).ok()?;
        file.seek(SeekFrom::End(0)).ok()?;
        journal.file = Some(file);
        journal.durable = true;
        Some(journal)
    }

    /// Removes the journal.
    pub(super) fn forget(&self) {
        match fs::remove_file(&self.journal) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!("cannot remove {}: {error}", self.journal.display());
            }
            _ => {}
        }
    }
}

/// How often a lock file may disappear while it is being locked.
const LOCK_ATTEMPTS: u32 = 100;

/// Opens and locks a file, and makes sure that it is still the file of that name: a process that gives up the lock removes the file,
/// which can happen between opening and locking. `read_back` reads the file by its name.
///
/// # Errors
/// When another process holds the lock, or the file cannot be opened, written or read back.
fn lock_file(
    path: &Path,
    read_back: impl Fn(&Path) -> io::Result<String>,
) -> Result<File, TryLockError> {
    for _ in 0..LOCK_ATTEMPTS {
        let mut options = OpenOptions::new();
        let options = options.create(true).read(true).write(true).truncate(false);
        let mut file = options.open(path).map_err(TryLockError::Error)?;
        FileExt::try_lock(&file)?;
        let token = format!("{:016x}", fastrand::u64(..));
        let written = file.set_len(0).and_then(|()| file.write_all(token.as_bytes()));
        written.map_err(TryLockError::Error)?;
        match read_back(path) {
            Ok(found) if found == token => return Ok(file),
            // Another file has the name now, or none.
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(TryLockError::Error(error)),
        }
    }
    Err(TryLockError::Error(io::Error::other("the lock file cannot be read back")))
}

impl Drop for Claim {
    fn drop(&mut self) {
        // While it is locked, so that nobody else's lock is removed. Both also happen when the process ends.
        let _ = fs::remove_file(&self.lock);
        let _ = FileExt::unlock(&self.file);
    }
}

/// A journal without a claim: in memory.
pub(super) fn in_memory(header: JournalHeader) -> Journal {
    Journal::new(header, None)
}

/// Tells that an interrupted import will not be resumable.
pub(super) fn warn_unresumable(path: &Path, error: &io::Error) {
    tracing::warn!(
        "cannot write an upload journal in {} ({error}): an interrupted import starts again from the beginning",
        path.display()
    );
}

#[cfg(test)]
mod tests {
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
    fn a_journal_says_after_a_crash_what_was_written() {
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
    fn lock_file_that_cannot_be_read_back_fails() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        let denied = lock_file(&path, |_| Err(io::ErrorKind::PermissionDenied.into()));
        assert!(
            matches!(denied, Err(TryLockError::Error(error)) if error.kind() == io::ErrorKind::PermissionDenied)
        );
        let altered = lock_file(&path, |_| Ok("something else".into()));
        assert!(matches!(altered, Err(TryLockError::Error(_))));
        assert!(lock_file(&path, |path| fs::read_to_string(path)).is_ok());
    }

    #[test]
    fn a_journal_that_is_cut_or_altered_anywhere_is_true_up_to_there() {
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
                    // What is appended then is found the next time.
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
    fn one_claim_a_cluster_and_model() {
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
    fn a_folder_that_cannot_be_made_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, "").unwrap();
        assert!(matches!(Claim::take(&file, "c", &"m".parse().unwrap()), Err(Unclaimed::Io(..))));
    }
}
