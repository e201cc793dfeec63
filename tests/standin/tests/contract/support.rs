//! HTTP requests to a stand-in, and small models for it.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rust_eland::torchscript::tch::{Device, Kind, Tensor};
use rust_eland::torchscript::{Module, TorchError};
use serde_json::{Value, json};

/// A response.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Reply {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    /// Text of the body.
    pub fn text(&self) -> String {
        String::from_utf8(self.body.clone()).unwrap()
    }

    /// JSON of a response, which must be successful.
    pub fn ok(self) -> Value {
        assert_eq!(self.status, 200, "{}", self.text());
        self.json()
    }

    /// Asserts an error: its status, its type, and a text in its body.
    pub fn refused(&self, status: u16, kind: &str, text: &str) {
        let body = self.text();
        assert_eq!(self.status, status, "{body}");
        let json = self.json();
        assert_eq!(json["status"], status, "{body}");
        assert_eq!(json["error"]["type"], kind, "{body}");
        assert!(json["error"]["root_cause"][0]["reason"].is_string(), "{body}");
        let reasons = body.replace("\\\"", "\"");
        assert!(reasons.contains(text), "no [{text}] in {body}");
    }
}

/// Sends one request on a new connection.
pub fn send(url: &str, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Reply {
    let address = url.strip_prefix("http://").unwrap();
    let mut stream = TcpStream::connect(address).unwrap();
    let mut request =
        format!("{method} {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n");
    // An empty value removes a default header.
    for (name, value) in headers.iter().filter(|(_, value)| !value.is_empty()) {
        request.push_str(&format!("{name}: {value}\r\n"));
    }
    if !headers.iter().any(|(name, _)| *name == "content-length") {
        request.push_str(&format!("content-length: {}\r\n", body.len()));
    }
    request.push_str("\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    // The server may have rejected the request and closed the connection.
    let _ = stream.write_all(body);
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).unwrap();
    let status = line.split(' ').nth(1).unwrap().parse().unwrap();
    let mut headers = Vec::new();
    loop {
        line.clear();
        reader.read_line(&mut line).unwrap();
        let Some((name, value)) = line.trim_end().split_once(": ") else { break };
        headers.push((name.to_ascii_lowercase(), value.to_owned()));
    }
    let mut body = Vec::new();
    // After an early rejection the connection is closed, so the response may be incomplete.
    let _ = reader.read_to_end(&mut body);
    Reply { status, headers, body }
}

/// Sends JSON; null means no body.
pub fn call(url: &str, method: &str, path: &str, body: &Value) -> Reply {
    let json = [("content-type", "application/json"), ("accept", "application/json")];
    if body.is_null() {
        send(url, method, path, &json[1..], b"")
    } else {
        send(url, method, path, &json, body.to_string().as_bytes())
    }
}

pub fn get(url: &str, path: &str) -> Reply {
    call(url, "GET", path, &Value::Null)
}

pub fn put(url: &str, path: &str, body: &Value) -> Reply {
    call(url, "PUT", path, body)
}

pub fn post(url: &str, path: &str, body: &Value) -> Reply {
    call(url, "POST", path, body)
}

/// Body of a part.
pub fn part(bytes: &[u8], total_length: usize, total_parts: usize) -> Value {
    json!({
        "definition": STANDARD.encode(bytes),
        "total_definition_length": total_length,
        "total_parts": total_parts,
    })
}

/// Archive of a module with `inputs` inputs; the first input is token ids `[1, tokens]`.
pub fn archive(
    inputs: usize,
    forward: impl FnOnce(&[Tensor]) -> Result<Tensor, TorchError>,
) -> Vec<u8> {
    let example: Vec<_> =
        (0..inputs).map(|_| Tensor::ones([1, 4], (Kind::Int64, Device::Cpu))).collect();
    let module = Module::trace(&example, forward).unwrap();
    let mut bytes = Vec::new();
    module.save(&mut bytes).unwrap();
    bytes
}

/// A module that returns the sum of each row of each input, as float32 `[rows, inputs]`, which exposes the inputs.
pub fn sums(inputs: &[Tensor]) -> Result<Tensor, TorchError> {
    let sums = inputs
        .iter()
        .map(|input| {
            let axis: &[i64] = &[1];
            input.f_to_kind(Kind::Float)?.f_sum_dim_intlist(axis, true, Kind::Float)
        })
        .collect::<Result<Vec<_>, _>>()?;
    Ok(Tensor::f_cat(&sums, 1)?)
}

/// Vocabulary of all tests: single-piece words, and two pieces that form `unfold`.
pub const VOCABULARY: [&str; 16] = [
    "[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "these", "are", "my", "words", "un", "##fold",
    ".", "who", "is", "this", "example",
];

/// Creates a model with vocabulary and definition. Panics on failure.
pub fn upload(url: &str, id: &str, inference_config: &Value, definition: &[u8]) {
    upload_with(url, id, inference_config, &json!({"vocabulary": VOCABULARY}), definition);
}

/// Creates a model with the vocabulary `vocabulary`. Panics on failure.
pub fn upload_with(
    url: &str,
    id: &str,
    inference_config: &Value,
    vocabulary: &Value,
    definition: &[u8],
) {
    let path = format!("/_ml/trained_models/{id}");
    let configuration = json!({
        "model_type": "pytorch",
        "inference_config": inference_config,
        "input": {"field_names": ["text_field"]},
    });
    put(url, &path, &configuration).ok();
    put(url, &format!("{path}/vocabulary"), vocabulary).ok();
    let body = part(definition, definition.len(), 1);
    put(url, &format!("{path}/definition/0"), &body).ok();
}

/// Starts a model. Panics on failure.
pub fn start(url: &str, id: &str) -> Value {
    post(url, &format!("/_ml/trained_models/{id}/deployment/_start"), &Value::Null).ok()
}

/// Runs inference on one text, with optional overrides for the task.
pub fn infer(url: &str, id: &str, text: &str, overrides: &Value) -> Reply {
    let mut body = json!({"docs": [{"text_field": text}]});
    if !overrides.is_null() {
        body["inference_config"] = overrides.clone();
    }
    post(url, &format!("/_ml/trained_models/{id}/_infer"), &body)
}

/// Inference result for one text. Panics on failure.
pub fn result(url: &str, id: &str, text: &str, overrides: &Value) -> Value {
    infer(url, id, text, overrides).ok()["inference_results"][0].clone()
}
