//! skops archives: a zip file with the objects as JSON (`schema.json`) and each array as a file (`ID.npy`).

use std::collections::HashMap;
use std::io::{Cursor, Read};

use serde_json::Value as Json;
use zip::ZipArchive;

use super::graph::{Graph, Id, Python, Value};
use super::numpy::{Array, Data, count, read_npy};
use crate::trees::TreeError;

/// Nodes of the schema.
const MAX_NODES: usize = 1 << 20;

/// Bytes to which the schema may inflate.
const SCHEMA_BASE: usize = 4 << 20;

/// Bytes to which the schema may inflate in addition, for each byte of the archive.
const SCHEMA_PER_BYTE: usize = 8;

/// What to do about an archive that inflates too much.
const TRUSTED: &str = "if you trust the file, save the model without compression";

/// Levels of nesting. The JSON parser has a limit of its own.
const MAX_DEPTH: usize = 100;

fn malformed(reason: impl Into<String>) -> TreeError {
    TreeError::malformed("skops", reason)
}

/// Reads an archive.
///
/// # Errors
/// When it is malformed.
pub(crate) fn read(bytes: &[u8], limit: u64) -> Result<(Graph<'static>, Id), TreeError> {
    let mut archive =
        ZipArchive::new(Cursor::new(bytes)).map_err(|error| malformed(error.to_string()))?;
    // Nothing is written anywhere, but no archive of skops has such names.
    for name in archive.file_names() {
        let name = name.map_err(|error| malformed(error.to_string()))?;
        if !is_inside(&name) {
            let name: String = name.chars().take(100).collect();
            return Err(malformed(format!("the entry {name:?} leads out of the archive")));
        }
    }
    let mut files = Files { archive: &mut archive, limit };
    let schema = files.read("schema.json")?;
    // Parsed JSON takes up to 16 times the memory of its text.
    let longest = SCHEMA_BASE.saturating_add(bytes.len().saturating_mul(SCHEMA_PER_BYTE));
    if schema.len() > longest {
        return Err(TreeError::Limit(format!(
            "schema.json of the skops archive inflates to more than {longest} bytes; {TRUSTED}"
        )));
    }
    let schema: Json =
        serde_json::from_slice(&schema).map_err(|error| malformed(error.to_string()))?;
    let mut reader = Reader { graph: Graph::default(), files, seen: HashMap::new() };
    let root = reader.node(&schema, 0)?;
    Ok((reader.graph, root))
}

/// The value of a JSON node. Python also writes three numbers that are not JSON.
fn json_value(text: &str) -> serde_json::Result<Value<'static, Python<'static>>> {
    let value = match text {
        "NaN" => return Ok(Value::Float(f64::NAN)),
        "Infinity" => return Ok(Value::Float(f64::INFINITY)),
        "-Infinity" => return Ok(Value::Float(f64::NEG_INFINITY)),
        text => serde_json::from_str(text)?,
    };
    Ok(match value {
        Json::Null => Value::None,
        Json::Bool(truth) => Value::Bool(truth),
        Json::String(text) => Value::Object(Python::OwnedText(text)),
        Json::Number(number) => match number.as_i64() {
            Some(number) => Value::Int(number),
            None => Value::Float(number.as_f64().unwrap_or(f64::NAN)),
        },
        _ => Value::Other,
    })
}

/// Whether the name of an entry is a path within the archive.
fn is_inside(name: &str) -> bool {
    !name.starts_with('/')
        && !name.contains(['\\', ':', '\0'])
        && name.split('/').all(|part| part != "..")
}

struct Files<'a, 'b> {
    archive: &'a mut ZipArchive<Cursor<&'b [u8]>>,
    /// Bytes that all files together may still have.
    limit: u64,
}

impl Files<'_, '_> {
    fn read(&mut self, name: &str) -> Result<Vec<u8>, TreeError> {
        // A name is only looked up in the archive; nothing is written anywhere.
        let file =
            self.archive.by_name(name).map_err(|error| malformed(format!("{name:?}: {error}")))?;
        let mut bytes = Vec::new();
        let read = file.take(self.limit.saturating_add(1)).read_to_end(&mut bytes);
        read.map_err(|error| malformed(format!("{name:?}: {error}")))?;
        self.limit = self.limit.checked_sub(bytes.len() as u64).ok_or_else(|| {
            TreeError::Limit(format!("the skops archive inflates to too many bytes; {TRUSTED}"))
        })?;
        Ok(bytes)
    }
}

struct Reader<'a, 'b> {
    graph: Graph<'static>,
    files: Files<'a, 'b>,
    /// Objects by their id in the schema.
    seen: HashMap<u64, Id>,
}

impl Reader<'_, '_> {
    fn push(&mut self, value: Value<'static, Python<'static>>) -> Result<Id, TreeError> {
        if self.graph.len() >= MAX_NODES {
            return Err(TreeError::Limit(format!("more than {MAX_NODES} nodes in a skops schema")));
        }
        Ok(self.graph.push(value))
    }

    fn node(&mut self, node: &Json, depth: usize) -> Result<Id, TreeError> {
        if depth > MAX_DEPTH {
            return Err(malformed("the schema is nested too deeply"));
        }
        let loader = node.get("__loader__").and_then(Json::as_str).unwrap_or_default();
        let identity = node.get("__id__").and_then(Json::as_u64);
        if loader == "CachedNode" {
            let cached = identity.and_then(|identity| self.seen.get(&identity)).copied();
            return match cached {
                Some(id) => Ok(id),
                None => self.push(Value::Other),
            };
        }
        let content = node.get("content").unwrap_or(&Json::Null);
        let id = match loader {
            "ObjectNode" | "TreeNode" => self.object(node, content, depth)?,
            "DictNode" | "DefaultDictNode" | "OrderedDictNode" => {
                let mut entries = Vec::new();
                for (key, value) in content.as_object().into_iter().flatten() {
                    let key = self.push(Value::Object(Python::OwnedText(key.clone())))?;
                    let value = self.node(value, depth + 1)?;
                    entries.push((key, value));
                }
                self.push(Value::Dict(entries))?
            }
            "ListNode" | "TupleNode" => {
                let items = self.items(content, depth)?;
                self.push(Value::List(items))?
            }
            "JsonNode" => {
                let text = content.as_str().ok_or_else(|| malformed("a JSON node has no text"))?;
                let value = json_value(text).map_err(|error| malformed(error.to_string()))?;
                self.push(value)?
            }
            "NdArrayNode" => self.array(node, content, depth)?,
            _ => self.push(Value::Other)?,
        };
        if let Some(identity) = identity {
            self.seen.insert(identity, id);
        }
        Ok(id)
    }

    fn items(&mut self, content: &Json, depth: usize) -> Result<Vec<Id>, TreeError> {
        let items = content.as_array().ok_or_else(|| malformed("a list has no items"))?;
        items.iter().map(|item| self.node(item, depth + 1)).collect()
    }

    fn object(&mut self, node: &Json, content: &Json, depth: usize) -> Result<Id, TreeError> {
        let text = |key: &str| node.get(key).and_then(Json::as_str).unwrap_or_default().to_owned();
        let name = Box::new((text("__module__"), text("__class__")));
        let class = self.push(Value::Object(Python::OwnedName(name)))?;
        let arguments = self.push(Value::List(Vec::new()))?;
        let state = if content.is_null() { None } else { Some(self.node(content, depth + 1)?) };
        self.push(Value::Object(Python::Object { class, arguments, state }))
    }

    /// An array: a file, or for objects a list of items with a shape.
    fn array(&mut self, node: &Json, content: &Json, depth: usize) -> Result<Id, TreeError> {
        if let Some(name) = node.get("file").and_then(Json::as_str) {
            let bytes = self.files.read(name)?;
            let array = read_npy(&bytes)?;
            return self.push(Value::Object(Python::Array(Box::new(array))));
        }
        let shape = node.get("shape").cloned().unwrap_or_default();
        let shape = self.node(&shape, depth + 1)?;
        let shape = match self.graph.list(shape) {
            Some(sizes) => {
                sizes.iter().map(|&size| self.graph.size(size)).collect::<Option<Vec<_>>>()
            }
            None => None,
        };
        let mut items = Vec::new();
        self.flat(content, depth, &mut items)?;
        let shape = shape
            .filter(|shape| count(shape) == Some(items.len()))
            .unwrap_or_else(|| vec![items.len()]);
        let dtype =
            super::numpy::Dtype::simple("O", false).ok_or_else(|| malformed("no objects"))?;
        let array = Array::new(dtype, shape, false, Data::Objects(items))?;
        self.push(Value::Object(Python::Array(Box::new(array))))
    }

    /// The items of nested lists, one after the other.
    fn flat(&mut self, content: &Json, depth: usize, items: &mut Vec<Id>) -> Result<(), TreeError> {
        if depth > MAX_DEPTH {
            return Err(malformed("the schema is nested too deeply"));
        }
        for item in content.as_array().ok_or_else(|| malformed("an array has no items"))? {
            if item.is_array() {
                self.flat(item, depth + 1, items)?;
            } else if item.get("__loader__").and_then(Json::as_str) == Some("ListNode") {
                self.flat(item.get("content").unwrap_or(&Json::Null), depth + 1, items)?;
            } else {
                let id = self.node(item, depth + 1)?;
                items.push(id);
            }
        }
        Ok(())
    }
}
