//! Inspection of a TorchScript archive without libtorch running any of its code.
//!
//! Loading an archive runs code: `__setstate__` methods run, default arguments and values of class attributes are evaluated, pickles
//! construct the objects that they name, and libtorch's unpickler trusts them. Therefore this module inspects everything first, and
//! libtorch must find the same records at the same offsets.
//!
//! Source: `torch/csrc/jit/serialization/{import,import_source,unpickler}.cpp` and `caffe2/serialize/inline_container.cc` of PyTorch 2.7;
//! contract 11.1.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::CString;

use flate2::{Decompress, FlushDecompress, Status};
use memchr::memmem;

use super::{DefinitionError, code, pickle};
use crate::checkpoint::zip::{self, Record};
use crate::torchscript::archive::{agrees, check_code};

/// Texts that no record may contain in Elasticsearch.
const HOOKS: [&str; 2] = ["__getstate__", "__setstate__"];

/// Length in bytes from which a record name is rejected.
const LONG_NAME: usize = 256;

/// Highest uncompressed size in bytes of all compressed records. PyTorch compresses code and its line numbers.
const MAX_UNPACKED: usize = 256 << 20;

/// Highest size of the code in bytes. A scripted model of 48 layers has one or two million.
const MAX_CODE: usize = 32 << 20;

/// Highest number of code files, because libtorch searches the directory for each of them.
const MAX_RECORDS: usize = 1 << 17;

/// Result of the inspection of an archive.
#[derive(Debug)]
pub(super) struct Contents {
    /// Size of all tensors in bytes; each storage counts once.
    pub tensor_bytes: u64,
}

/// Inspects a complete archive.
///
/// # Errors
/// If the archive is not TorchScript, Elasticsearch would reject it before loading, or loading would run code.
pub(super) fn check(file: &[u8]) -> Result<Contents, DefinitionError> {
    let records = records(file)?;
    let root = root(&records)?;
    let inner: BTreeMap<&str, &Record> = records
        .iter()
        .filter_map(|(name, record)| Some((name.strip_prefix(root)?.strip_prefix('/')?, record)))
        .collect();
    if inner.len() != records.len() {
        return Err(format(format!("the archive has records outside of its folder {root}")));
    }
    check_names(&records)?;
    let unpacked = unpack(file, &inner)?;
    check_hooks(file, &inner, &unpacked)?;
    let places = inner.iter().map(|(name, record)| {
        let name =
            CString::new(*name).map_err(|_| format("the name of a record contains a NUL"))?;
        Ok((name, record.data.start, record.size))
    });
    let places: Vec<_> = places.collect::<Result<_, DefinitionError>>()?;
    agrees(file, &places).map_err(DefinitionError::Unreadable)?;

    let bytes = |name: &str| match unpacked.get(name) {
        Some(bytes) => Some(bytes.as_slice()),
        None => file.get(inner.get(name)?.data.clone()),
    };
    let (mut length, mut functions) = (0, 0);
    for name in inner.keys().filter(|name| name.starts_with("code/") && name.ends_with(".py")) {
        let text = bytes(name).unwrap_or_default();
        length += text.len();
        if length > MAX_CODE {
            return Err(format(format!("the archive has more than {} MB of code", MAX_CODE >> 20)));
        }
        let unsafe_code = |reason| DefinitionError::Code { record: (*name).to_owned(), reason };
        functions += code::check(text).map_err(|reason| unsafe_code(reason.to_owned()))?;
        if functions > code::MAX_FUNCTIONS {
            return Err(format(format!(
                "the code has more than {} functions",
                code::MAX_FUNCTIONS
            )));
        }
        check_code(text).map_err(|reason| unsafe_code(reason.cause()))?;
    }
    let mut tensor_bytes = 0;
    for (folder, root) in [("constants", pickle::Root::Tuple), ("data", pickle::Root::Object)] {
        let name = format!("{folder}.pkl");
        let unsafe_pickle = |reason| DefinitionError::Pickle { record: name.clone(), reason };
        let storage = |key: &str| {
            let record = inner.get(format!("{folder}/{key}").as_str())?;
            (!record.deflated).then_some(record.size)
        };
        let read = pickle::check(bytes(&name).unwrap_or_default(), root, &storage);
        tensor_bytes += read.map_err(unsafe_pickle)?;
    }
    Ok(Contents { tensor_bytes })
}

fn format(reason: impl Into<String>) -> DefinitionError {
    DefinitionError::Format(reason.into())
}

/// The archive's directory, or an error that names the format of the file.
fn records(file: &[u8]) -> Result<BTreeMap<&str, Record>, DefinitionError> {
    if file.starts_with(b"\x80\x02\x8a\x0a") {
        return Err(state_dict());
    }
    if !file.starts_with(b"PK\x03\x04") {
        return Err(format("the file is not a zip archive as written by torch.jit.save"));
    }
    let records = zip::records(file).map_err(format)?;
    if records.len() > MAX_RECORDS {
        return Err(format(format!(
            "the archive has {} records, which is more than any model needs",
            records.len()
        )));
    }
    Ok(records)
}

fn state_dict() -> DefinitionError {
    format(
        "it is a state dict, which contains weights but no graph; import the folder of the model instead",
    )
}

/// The folder that contains all records.
fn root<'a>(records: &BTreeMap<&'a str, Record>) -> Result<&'a str, DefinitionError> {
    let roots: BTreeSet<_> =
        records.keys().filter_map(|name| Some(name.split_once('/')?.0)).collect();
    let holds = |root: &str, name: &str| records.contains_key(format!("{root}/{name}").as_str());
    let Some(&root) = roots.iter().find(|root| holds(root, "data.pkl")) else {
        let old = roots.iter().any(|root| holds(root, "model.json"));
        return Err(format(if old {
            "the file was written by a PyTorch before 1.3; load it in PyTorch and save it again"
        } else {
            "data.pkl is missing, so torch.jit.save did not write this file"
        }));
    };
    if !holds(root, "constants.pkl") {
        let code = format!("{root}/code/");
        return Err(if records.keys().any(|name| name.starts_with(&code)) {
            format("constants.pkl is missing, so torch.jit.save did not write this file")
        } else {
            state_dict()
        });
    }
    if holds(root, "model.json") {
        return Err(format(
            "the file was written by a PyTorch before 1.3; load it in PyTorch and save it again",
        ));
    }
    let code = format!("{root}/code/");
    if !records.keys().any(|name| name.starts_with(&code)) {
        return Err(format("the archive contains no code"));
    }
    Ok(root)
}

fn check_names(records: &BTreeMap<&str, Record>) -> Result<(), DefinitionError> {
    let mut seen = BTreeSet::new();
    for name in records.keys() {
        if name.len() >= LONG_NAME {
            return Err(DefinitionError::LongName { length: name.len() });
        }
        if name.contains(char::is_control) {
            return Err(format("the name of a record contains control characters"));
        }
        // libtorch's reader ignores the case of record names.
        if !seen.insert(name.to_ascii_lowercase()) {
            return Err(format(format!("two records named {name} differ only in case")));
        }
    }
    Ok(())
}

/// The compressed records after decompression.
fn unpack<'a>(
    file: &[u8],
    records: &BTreeMap<&'a str, &Record>,
) -> Result<BTreeMap<&'a str, Vec<u8>>, DefinitionError> {
    let compressed = || records.iter().filter(|(_, record)| record.deflated);
    let total = compressed().try_fold(0usize, |all, (_, record)| all.checked_add(record.size));
    if total.is_none_or(|total| total > MAX_UNPACKED) {
        return Err(format(format!(
            "the compressed records have more than {} MB when uncompressed",
            MAX_UNPACKED >> 20
        )));
    }
    let inflate = |record: &Record| -> Option<Vec<u8>> {
        let mut bytes = Vec::with_capacity(record.size);
        let packed = file.get(record.data.clone())?;
        // Deflate compresses by at most a factor of 1,032.
        if record.size / 1032 > packed.len() {
            return None;
        }
        let status = Decompress::new(false)
            .decompress_vec(packed, &mut bytes, FlushDecompress::Finish)
            .ok()?;
        (status == Status::StreamEnd && bytes.len() == record.size).then_some(bytes)
    };
    compressed()
        .map(|(name, record)| {
            let bytes = inflate(record)
                .ok_or_else(|| format(format!("the record {name} cannot be uncompressed")))?;
            Ok((*name, bytes))
        })
        .collect()
}

fn check_hooks(
    file: &[u8],
    records: &BTreeMap<&str, &Record>,
    unpacked: &BTreeMap<&str, Vec<u8>>,
) -> Result<(), DefinitionError> {
    for hook in HOOKS {
        let finder = memmem::Finder::new(hook);
        let in_unpacked =
            unpacked.iter().find(|(_, bytes)| finder.find(bytes).is_some()).map(|(name, _)| *name);
        let found = in_unpacked.or_else(|| {
            // One search covers all stored records and the bytes between records.
            let at = finder.find(file)?;
            let record = records.iter().find(|(_, record)| record.data.contains(&at));
            Some(record.map_or("its directory", |(name, _)| name))
        });
        if let Some(record) = found {
            return Err(DefinitionError::Hook { hook, record: record.to_owned() });
        }
    }
    Ok(())
}
