//! Checks of the native process on an archive before it loads the archive (contract, 11.1), and the libtorch version that the archive needs.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

use memchr::memmem;
use zip::{CompressionMethod, ZipArchive};

/// Texts that no record may contain.
const STATE_HOOKS: [&[u8]; 2] = [b"__setstate__", b"__getstate__"];

/// Length of the shortest record name that is rejected.
const LONG_NAME: usize = 256;

/// Highest archive version supported by libtorch 1.11 and older.
const OLD_ARCHIVE_VERSION: u64 = 9;

/// Rejects archives that contain state hooks, have long record names or cannot be read.
pub(crate) fn scan(path: &Path) -> Result<(), String> {
    let mut archive = open(path)?;
    let mut buffer = vec![0; 1 << 20];
    for index in 0..archive.len() {
        let (name_length, method) = {
            let record = archive.by_index_raw(index).map_err(|error| unreadable(&error))?;
            (record.name_raw().len(), record.compression())
        };
        if name_length >= LONG_NAME {
            return Err(format!(
                "Model archive contains a record whose name is {name_length} bytes long"
            ));
        }
        // Stored records are read without their checksum, which libtorch verifies.
        let record = match method {
            CompressionMethod::Stored => archive.by_index_raw(index),
            _ => archive.by_index(index),
        };
        let mut record = record.map_err(|error| unreadable(&error))?;
        if let Some(hook) =
            find_hook(&mut record, &mut buffer).map_err(|error| unreadable(&error))?
        {
            let name = String::from_utf8_lossy(record.name_raw()).into_owned();
            return Err(format!("Model archive contains state hook {hook} in record {name}"));
        }
    }
    Ok(())
}

/// Rejects archives that need a newer libtorch than `libtorch`.
pub(crate) fn check_readable_by(path: &Path, libtorch: (u32, u32)) -> Result<(), String> {
    if libtorch > (1, 11) {
        return Ok(());
    }
    let mut archive = open(path)?;
    let record = (0..archive.len()).find(|index| {
        archive.by_index_raw(*index).is_ok_and(|record| record.name_raw().ends_with(b"/version"))
    });
    let Some(record) = record else { return Ok(()) };
    let mut text = String::new();
    archive
        .by_index(record)
        .map_err(|error| unreadable(&error))?
        .read_to_string(&mut text)
        .map_err(|error| unreadable(&error))?;
    match text.trim().parse::<u64>() {
        Ok(version) if version > OLD_ARCHIVE_VERSION => Err(format!(
            "Attempted to read a PyTorch file with version {version}, but the maximum supported version for reading is {OLD_ARCHIVE_VERSION}. Your PyTorch installation may be too old."
        )),
        _ => Ok(()),
    }
}

fn open(path: &Path) -> Result<ZipArchive<BufReader<File>>, String> {
    let file = File::open(path).map_err(|error| unreadable(&error))?;
    ZipArchive::new(BufReader::new(file)).map_err(|error| unreadable(&error))
}

fn unreadable(error: &dyn std::error::Error) -> String {
    format!("Cannot read the model archive: {error}")
}

/// Finds a hook in `record`, including hooks that cross a buffer boundary.
fn find_hook(record: &mut impl Read, buffer: &mut [u8]) -> std::io::Result<Option<&'static str>> {
    let overlap = STATE_HOOKS[0].len() - 1;
    let mut kept = 0;
    loop {
        let read = record.read(&mut buffer[kept..])?;
        if read == 0 {
            return Ok(None);
        }
        let filled = kept + read;
        for hook in STATE_HOOKS {
            if memmem::find(&buffer[..filled], hook).is_some() {
                return Ok(Some(std::str::from_utf8(hook).unwrap_or_default()));
            }
        }
        kept = overlap.min(filled);
        buffer.copy_within(filled - kept..filled, 0);
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use tempfile::NamedTempFile;
    use zip::ZipWriter;
    use zip::write::SimpleFileOptions;

    use super::*;

    fn archive(records: &[(&str, &[u8])], method: CompressionMethod) -> NamedTempFile {
        let file = NamedTempFile::new().unwrap();
        let mut writer = ZipWriter::new(file.reopen().unwrap());
        for (name, bytes) in records {
            let options = SimpleFileOptions::default().compression_method(method);
            writer.start_file(*name, options).unwrap();
            writer.write_all(bytes).unwrap();
        }
        writer.finish().unwrap();
        file
    }

    #[test]
    fn state_hooks_are_found_in_stored_and_deflated_records() {
        for method in [CompressionMethod::Stored, CompressionMethod::Deflated] {
            let clean = archive(&[("m/data.pkl", b"getstate"), ("m/version", b"10\n")], method);
            assert_eq!(scan(clean.path()), Ok(()));
            let hooked = archive(&[("m/a", b"x"), ("m/b", b"..__getstate__..")], method);
            assert!(scan(hooked.path()).unwrap_err().contains("__getstate__ in record m/b"));
        }
    }

    #[test]
    fn hook_across_two_reads_is_found() {
        let text = [&[b' '; 20][..], b"__setstate__"].concat();
        for size in 13..34 {
            let mut buffer = vec![0; size];
            assert_eq!(
                find_hook(&mut text.as_slice(), &mut buffer).unwrap(),
                Some("__setstate__"),
                "{size}"
            );
        }
    }

    #[test]
    fn long_names_and_garbage_are_rejected() {
        let name = format!("m/{}", "n".repeat(254));
        assert!(scan(archive(&[(&name, b"")], CompressionMethod::Stored).path()).is_err());
        assert!(scan(archive(&[(&name[1..], b"")], CompressionMethod::Stored).path()).is_ok());
        let garbage = NamedTempFile::new().unwrap();
        garbage.as_file().write_all(b"no archive").unwrap();
        assert!(scan(garbage.path()).unwrap_err().contains("Cannot read the model archive"));
    }

    #[test]
    fn old_libtorch_rejects_new_archives() {
        let new = archive(&[("m/version", b"10\n")], CompressionMethod::Stored);
        assert!(check_readable_by(new.path(), (1, 11)).unwrap_err().contains("with version 10"));
        assert_eq!(check_readable_by(new.path(), (1, 13)), Ok(()));
        let old = archive(&[("m/version", b"3\n")], CompressionMethod::Stored);
        assert_eq!(check_readable_by(old.path(), (1, 9)), Ok(()));
    }
}
