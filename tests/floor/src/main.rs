//! The lower limit of the time of an import: hashes a file, then reads it again in parts, encodes the parts and uploads several at a
//! time. Does not convert a model.
//!
//! `floor FILE URL [CONNECTIONS]`

use std::error::Error;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use reqwest::header::CONTENT_TYPE;
use sha2::{Digest, Sha256};

/// Size of a part in bytes, as in `rust-eland import` and eland.
const PART: u64 = 1 << 20;

type Outcome = Result<(), Box<dyn Error + Send + Sync>>;

#[tokio::main]
async fn main() -> Outcome {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [path, url, rest @ ..] = &arguments[..] else {
        return Err("floor FILE URL [CONNECTIONS]".into());
    };
    let connections: usize = rest.first().map_or(Ok(4), |text| text.parse())?;
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();

    // An import hashes first, because the request that creates a model contains the digest.
    let mut hash = Sha256::new();
    let mut block = vec![0; PART as usize];
    loop {
        match file.read(&mut block)? {
            0 => break,
            read => hash.update(&block[..read]),
        }
    }
    drop(block);
    println!("{}", hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect::<String>());

    let (file, next) = (Arc::new(file), Arc::new(AtomicU64::new(0)));
    // The client requires a crypto provider even without encryption.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = reqwest::Client::builder().no_proxy().build()?;
    let mut senders = Vec::new();
    for _ in 0..connections {
        let (file, next, client) = (Arc::clone(&file), Arc::clone(&next), client.clone());
        let url = format!("{url}/_ml/trained_models/floor/definition");
        senders.push(tokio::spawn(send(file, length, next, client, url)));
    }
    for sender in senders {
        sender.await??;
    }
    Ok(())
}

/// Uploads one part after another until none remain.
async fn send(
    file: Arc<File>,
    length: u64,
    next: Arc<AtomicU64>,
    client: reqwest::Client,
    url: String,
) -> Outcome {
    let parts = length.div_ceil(PART);
    let mut block = Vec::new();
    loop {
        let part = next.fetch_add(1, Ordering::Relaxed);
        if part >= parts {
            return Ok(());
        }
        block.resize(PART.min(length - part * PART) as usize, 0);
        file.read_exact_at(&mut block, part * PART)?;
        let mut body = String::with_capacity(block.len() / 3 * 4 + 128);
        body.push_str(&format!(
            r#"{{"total_definition_length":{length},"total_parts":{parts},"definition":""#
        ));
        STANDARD.encode_string(&block, &mut body);
        body.push_str("\"}");
        let request = client.put(format!("{url}/{part}")).header(CONTENT_TYPE, "application/json");
        request.body(body).send().await?.error_for_status()?.bytes().await?;
    }
}
