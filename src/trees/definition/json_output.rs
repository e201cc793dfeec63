//! JSON that is compressed and hashed while it is written.

use std::io::{self, Write};

use flate2::Compression;
use flate2::write::GzEncoder;
use sha2::{Digest, Sha256};

use crate::hexadecimal::hexadecimal;
use crate::trees::TreeError;

/// The compressed JSON, while it is written.
pub(super) struct JsonOutput {
    /// JSON that is not compressed yet.
    buffer: Vec<u8>,
    gzip: GzEncoder<Vec<u8>>,
    hash: Sha256,
    length: u64,
    failed: Option<io::Error>,
    digits: zmij::Buffer,
}

impl JsonOutput {
    /// Bytes of JSON that are collected before they are compressed.
    const BLOCK: usize = 1 << 16;

    pub fn new() -> Self {
        Self {
            buffer: Vec::with_capacity(Self::BLOCK + 512),
            gzip: GzEncoder::new(Vec::new(), Compression::new(6)),
            hash: Sha256::new(),
            length: 0,
            failed: None,
            digits: zmij::Buffer::new(),
        }
    }

    pub fn text(&mut self, text: &str) {
        self.buffer.extend_from_slice(text.as_bytes());
        if self.buffer.len() >= Self::BLOCK {
            self.flush();
        }
    }

    pub fn byte(&mut self, byte: u8) {
        self.buffer.push(byte);
    }

    pub fn integer(&mut self, number: u64) {
        // Writing to a vector does not fail.
        let _ = write!(self.buffer, "{number}");
    }

    /// A finite number. Java reads a token without a point as an integer, which has no negative zero.
    pub fn number(&mut self, number: f64) {
        let text = self.digits.format(number);
        let text = if number == 0.0 && number.is_sign_negative() {
            text
        } else {
            text.strip_suffix(".0").unwrap_or(text)
        };
        self.buffer.extend_from_slice(text.as_bytes());
        if self.buffer.len() >= Self::BLOCK {
            self.flush();
        }
    }

    pub fn json(&mut self, value: &impl serde::Serialize) -> Result<(), TreeError> {
        serde_json::to_writer(&mut self.buffer, value)
            .map_err(|error| TreeError::Options(format!("cannot write the definition: {error}")))
    }

    fn flush(&mut self) {
        self.hash.update(&self.buffer);
        self.length += self.buffer.len() as u64;
        if let Err(error) = self.gzip.write_all(&self.buffer) {
            self.failed.get_or_insert(error);
        }
        self.buffer.clear();
    }

    pub fn finish(mut self) -> Result<(Vec<u8>, u64, String), TreeError> {
        self.flush();
        let compressed = match self.failed {
            None => self.gzip.finish(),
            Some(error) => Err(error),
        };
        let compressed = compressed.map_err(|error| {
            TreeError::Limit(format!("the definition was not compressed: {error}"))
        })?;
        Ok((compressed, self.length, hexadecimal(&self.hash.finalize())))
    }
}
