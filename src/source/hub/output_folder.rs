//! A copy of a download in a folder of its own, without links.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;

use super::HubError;
use super::contents::files_below;
use super::listing::RepositoryFile;

/// How a folder compares with the files of a download.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct OutputFolder {
    /// Files of the download that the folder lacks.
    pub missing: Vec<String>,
    /// Files of the folder that are not part of the download.
    pub others: Vec<String>,
    /// Whether the folder holds at least one file of the download.
    is_begun: bool,
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
        if output.exists() && !output.is_dir() {
            return Err(in_use("it is not a folder".into()));
        }
        let mut folder = Self::default();
        for file in files {
            let path = output.join(file);
            if fs::symlink_metadata(&path).is_err() {
                folder.missing.push(file.clone());
            } else if is_same(file, &path) {
                folder.is_begun = true;
            } else {
                return Err(in_use(format!("its file {file} differs from the file on the hub")));
            }
        }
        let is_other = |path: &String| !files.contains(path);
        folder.others = files_below(output).into_iter().filter(is_other).collect();
        if !folder.is_begun && !folder.others.is_empty() {
            return Err(in_use("it contains none of the model's files".into()));
        }
        Ok(folder)
    }

    /// Copies the missing files from a snapshot. A new folder appears with all files at once. In a folder that holds some of the files,
    /// each file appears at once.
    pub(super) fn complete(&self, output: &Path, snapshot: &Path) -> Result<(), HubError> {
        if self.is_complete() {
            return Ok(());
        }
        if self.is_begun { self.add_files(output, snapshot) } else { self.create(output, snapshot) }
    }

    fn create(&self, output: &Path, snapshot: &Path) -> Result<(), HubError> {
        let parent = parent(output);
        fs::create_dir_all(parent).map_err(HubError::io("create the folder", parent))?;
        let mut builder = tempfile::Builder::new();
        #[cfg(unix)]
        builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o755));
        let name = output.file_name().unwrap_or_default().to_string_lossy();
        let folder = builder
            .prefix(&format!(".{name}."))
            .suffix(".partial")
            .tempdir_in(parent)
            .map_err(HubError::io("create a folder in", parent))?;
        for file in &self.missing {
            copy(&snapshot.join(file), &folder.path().join(file))?;
        }
        // This replaces an empty folder, and fails for any other.
        fs::rename(folder.path(), output).map_err(HubError::io("write", output))?;
        let _ = folder.keep();
        Ok(())
    }

    fn add_files(&self, output: &Path, snapshot: &Path) -> Result<(), HubError> {
        for file in &self.missing {
            let path = output.join(file);
            let partial = path.with_file_name(format!(
                ".{}.partial",
                path.file_name().unwrap_or_default().to_string_lossy()
            ));
            copy(&snapshot.join(file), &partial)?;
            fs::rename(&partial, &path).map_err(HubError::io("write", &path))?;
        }
        Ok(())
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
    fs::create_dir_all(folder).map_err(HubError::io("create the folder", folder))?;
    fs::copy(from, to).and_then(|_| File::open(to)?.sync_all()).map_err(HubError::io("write", to))
}

fn parent(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}
