//! A copy of a download in a folder of its own, without links.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::HubError;
use super::contents::files_below;
use super::listing::RepositoryFile;
use super::partial::is_abandoned;

/// The end of the names of files and folders that are being written: `.NAME.XXXXXX.partial`.
const SUFFIX: &str = ".partial";

/// How a folder compares with the files of a download.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct OutputFolder {
    /// Files of the download that the folder lacks.
    pub missing: Vec<String>,
    /// Files of the folder that are not part of the download.
    pub others: Vec<String>,
    /// Whether the folder exists.
    exists: bool,
}

impl OutputFolder {
    /// Whether the folder holds all files of the download.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.missing.is_empty()
    }

    /// Compares a folder with a download. `is_same` decides whether a file of the folder is the file of the download at this path.
    ///
    /// # Errors
    /// [`HubError::OutputInUse`] if a file differs, or if the folder holds only other files.
    pub(super) fn compare(
        output: &Path,
        files: &[String],
        is_same: impl Fn(&str, &Path) -> bool,
    ) -> Result<Self, HubError> {
        let in_use = |reason: String| HubError::OutputInUse { output: output.to_owned(), reason };
        let mut folder = Self { exists: output.is_dir(), ..Self::default() };
        if !folder.exists && fs::symlink_metadata(output).is_ok() {
            let is_link = output.is_symlink() && !output.exists();
            let kind = if is_link { "a broken symbolic link" } else { "not a folder" };
            return Err(in_use(format!("the path is {kind}")));
        }
        let mut is_begun = false;
        for file in files {
            let path = output.join(file);
            if fs::symlink_metadata(&path).is_err() {
                folder.missing.push(file.clone());
            } else if is_same(file, &path) {
                is_begun = true;
            } else {
                return Err(in_use(format!("its file {file} differs from the file on the hub")));
            }
        }
        let is_other = |path: &String| {
            !files.contains(path)
                && !files.iter().any(|file| is_partial(path.as_ref(), file.as_ref()))
        };
        folder.others = files_below(output).into_iter().filter(is_other).collect();
        if !is_begun && !folder.others.is_empty() {
            return Err(in_use("the folder contains other files, and none of the model's".into()));
        }
        Ok(folder)
    }

    /// Copies the missing files from a snapshot. A new folder appears with all files at once. In a folder that exists, each file appears
    /// at once.
    pub(super) fn complete(&self, output: &Path, snapshot: &Path) -> Result<(), HubError> {
        if self.is_complete() {
            return Ok(());
        }
        if self.exists { self.add_files(output, snapshot) } else { self.create(output, snapshot) }
    }

    fn create(&self, output: &Path, snapshot: &Path) -> Result<(), HubError> {
        let parent = parent(output);
        fs::create_dir_all(parent).map_err(HubError::output("create the folder", parent))?;
        let name = output.file_name().unwrap_or_default();
        let mut builder = tempfile::Builder::new();
        #[cfg(unix)]
        builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o755));
        let prefix = prefix(name);
        let folder = builder.prefix(&prefix).suffix(SUFFIX).tempdir_in(parent);
        let folder = folder.map_err(HubError::output("create a folder in", parent))?;
        for file in &self.missing {
            copy(&snapshot.join(file), &folder.path().join(file))?;
        }
        match fs::rename(folder.path(), output) {
            Ok(()) => {
                let _ = folder.keep();
            }
            // Another process has created the folder since the comparison.
            Err(_) if output.is_dir() => {
                Self::compare(output, &self.missing, |file, path| {
                    is_same(path, None, &snapshot.join(file))
                })?
                .add_files(output, snapshot)?;
            }
            Err(error) => return Err(HubError::output("write", output)(error)),
        }
        remove_abandoned(output);
        Ok(())
    }

    fn add_files(&self, output: &Path, snapshot: &Path) -> Result<(), HubError> {
        for file in &self.missing {
            let path = output.join(file);
            let folder = parent(&path);
            fs::create_dir_all(folder).map_err(HubError::output("create the folder", folder))?;
            let prefix = prefix(path.file_name().unwrap_or_default());
            // Several processes may add the same file. A file that is not completed is deleted.
            let partial =
                tempfile::Builder::new().prefix(&prefix).suffix(SUFFIX).tempfile_in(folder);
            let partial = partial.map_err(HubError::output("write in", folder))?.into_temp_path();
            copy(&snapshot.join(file), &partial)?;
            let moved = partial.persist(&path).map_err(|error| error.error);
            moved.map_err(HubError::output("write", &path))?;
            remove_abandoned(&path);
        }
        Ok(())
    }
}

/// The beginning of the names under which a file or folder is written.
fn prefix(name: &OsStr) -> String {
    format!(".{}.", name.to_string_lossy())
}

/// Whether a path is one under which a file or folder is written: `.NAME.XXXXXX.partial` beside it.
fn is_partial(path: &Path, of: &Path) -> bool {
    let random = || {
        let name = path.file_name()?.to_str()?;
        name.strip_prefix(&prefix(of.file_name()?))?.strip_suffix(SUFFIX)
    };
    path.parent() == of.parent()
        && random().is_some_and(|it| it.len() == 6 && it.bytes().all(|b| b.is_ascii_alphanumeric()))
}

/// Deletes the partial copies of a file or folder that killed processes have left beside it.
fn remove_abandoned(path: &Path) {
    let folder = parent(path);
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let of = folder.join(path.file_name().unwrap_or_default());
    for partial in entries.map(|entry| entry.path()).filter(|path| is_partial(path, &of)) {
        let files: Vec<PathBuf> =
            files_below(&partial).into_iter().map(|file| partial.join(file)).collect();
        if files.iter().chain([&partial]).all(|path| is_abandoned(path)) {
            let _ = fs::remove_dir_all(&partial).or_else(|_| fs::remove_file(&partial));
        }
    }
}

/// Whether a file of an output folder is a file of the repository: by its hash if there is one, otherwise by the bytes of the snapshot.
pub(super) fn is_same(path: &Path, listed: Option<&RepositoryFile>, in_snapshot: &Path) -> bool {
    if path.is_symlink() {
        return false;
    }
    match listed {
        Some(file) => file.is(path),
        None => have_same_bytes(path, in_snapshot).unwrap_or(false),
    }
}

fn have_same_bytes(one: &Path, other: &Path) -> io::Result<bool> {
    let (mut one, mut other) = (File::open(one)?, File::open(other)?);
    if one.metadata()?.len() != other.metadata()?.len() {
        return Ok(false);
    }
    let mut buffers = [vec![0; 1 << 18], vec![0; 1 << 18]];
    loop {
        let [left, right] = &mut buffers;
        let read = one.read(left)?;
        if read == 0 {
            return Ok(true);
        }
        let (left, right) = (&left[..read], &mut right[..read]);
        other.read_exact(right)?;
        if left != right {
            return Ok(false);
        }
    }
}

fn copy(from: &Path, to: &Path) -> Result<(), HubError> {
    let folder = parent(to);
    fs::create_dir_all(folder).map_err(HubError::output("create the folder", folder))?;
    let copied = fs::copy(from, to).and_then(|_| File::open(to)?.sync_all());
    copied.map_err(HubError::output("write", to))
}

fn parent(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;

    const FILES: [&str; 2] = ["a/config.json", "weights"];

    /// A snapshot with both files, and the path of an output folder that does not exist.
    fn scene() -> (tempfile::TempDir, PathBuf, PathBuf) {
        let root = tempfile::tempdir().unwrap();
        let (snapshot, output) = (root.path().join("snapshot"), root.path().join("deep/model"));
        fs::create_dir_all(snapshot.join("a")).unwrap();
        for file in FILES {
            fs::write(snapshot.join(file), file).unwrap();
        }
        (root, snapshot, output)
    }

    fn compared(output: &Path, snapshot: &Path) -> Result<OutputFolder, HubError> {
        let files = FILES.map(str::to_owned);
        OutputFolder::compare(output, &files, |file, path| {
            is_same(path, None, &snapshot.join(file))
        })
    }

    #[track_caller]
    fn assert_whole(output: &Path) {
        let found: Vec<String> = files_below(output).into_iter().collect();
        assert_eq!(found, FILES);
        for file in FILES {
            assert_eq!(fs::read_to_string(output.join(file)).unwrap(), file);
        }
    }

    #[test]
    fn folder_that_another_process_creates_meanwhile_is_completed() {
        let (_root, snapshot, output) = scene();
        let (first, second) =
            (compared(&output, &snapshot).unwrap(), compared(&output, &snapshot).unwrap());
        first.complete(&output, &snapshot).unwrap();
        second.complete(&output, &snapshot).unwrap();
        assert_whole(&output);
        // Both have found the same file missing.
        fs::remove_file(output.join("weights")).unwrap();
        let (first, second) =
            (compared(&output, &snapshot).unwrap(), compared(&output, &snapshot).unwrap());
        first.complete(&output, &snapshot).unwrap();
        second.complete(&output, &snapshot).unwrap();
        assert_whole(&output);
        assert_eq!(fs::read_dir(parent(&output)).unwrap().count(), 1);
        // Other bytes are not overwritten.
        fs::remove_dir_all(&output).unwrap();
        let late = compared(&output, &snapshot).unwrap();
        fs::create_dir(&output).unwrap();
        fs::write(output.join("weights"), "other").unwrap();
        assert!(matches!(late.complete(&output, &snapshot), Err(HubError::OutputInUse { .. })));
    }

    #[test]
    fn partial_copies_are_not_other_files_and_are_deleted_when_abandoned() {
        let (_root, snapshot, output) = scene();
        let folder = parent(&output).join(".model.x7Yz09.partial");
        let recent = parent(&output).join(".model.aaaaaa.partial");
        for folder in [&folder, &recent, &output] {
            fs::create_dir_all(folder).unwrap();
        }
        let old = SystemTime::now() - Duration::from_secs(3600);
        let age = |path: &Path| File::open(path).unwrap().set_modified(old).unwrap();
        fs::write(folder.join("weights"), "wei").unwrap();
        fs::write(output.join(".weights.Ab3dE6.partial"), "wei").unwrap();
        fs::write(output.join(".weights.recent.partial"), "wei").unwrap();
        for path in [folder.join("weights"), folder.clone(), output.join(".weights.Ab3dE6.partial")]
        {
            age(&path);
        }
        let compared = compared(&output, &snapshot).unwrap();
        assert!(compared.others.is_empty(), "{compared:?}");
        compared.complete(&output, &snapshot).unwrap();
        assert!(!output.join(".weights.Ab3dE6.partial").exists());
        fs::remove_file(output.join(".weights.recent.partial")).unwrap();
        assert_whole(&output);
        remove_abandoned(&output);
        assert!(!folder.exists() && recent.exists());
    }

    #[test]
    fn path_that_is_not_a_folder_is_refused() {
        let (root, snapshot, output) = scene();
        let file = root.path().join("file");
        fs::write(&file, "").unwrap();
        let message = compared(&file, &snapshot).unwrap_err().to_string();
        assert!(message.contains("not a folder"), "{message}");
        #[cfg(unix)]
        {
            let link = root.path().join("link");
            std::os::unix::fs::symlink(&output, &link).unwrap();
            let message = compared(&link, &snapshot).unwrap_err().to_string();
            assert!(message.contains("broken symbolic link"), "{message}");
            // A link to a folder is followed.
            fs::create_dir_all(&output).unwrap();
            compared(&link, &snapshot).unwrap().complete(&link, &snapshot).unwrap();
            assert!(link.is_symlink());
            assert_whole(&output);
        }
    }
}
