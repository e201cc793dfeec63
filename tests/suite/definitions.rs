//! TorchScript files built by other tools are accepted if Elasticsearch would accept them; otherwise they are rejected and never loaded.

use std::fs;
use std::io::{Cursor, Read, Write};
use std::path::{Path, PathBuf};

use rust_eland::prebuilt::Inspected;
use rust_eland::torchscript::Module;
use serde_json::{Value, json};
use standin::{Options, StandIn};
use tch::Tensor;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipArchive, ZipWriter};

use crate::program::{ask, message, program, says};

/// Path of a file in tests/fixtures/definitions.
fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/definitions").join(name)
}

pub fn vocabulary() -> Value {
    json!({"vocabulary": ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "b", "c", "d", "e", "f", "g"]})
}

pub fn configuration() -> Value {
    json!({
        "description": "by hand",
        "input": {"field_names": ["text_field"]},
        "inference_config": {"text_embedding": {
            "embedding_size": 4, "tokenization": {"bert": {"max_sequence_length": 64}}}},
    })
}

/// A folder with a definition, vocabulary and configuration, in which the program runs.
struct Files {
    folder: tempfile::TempDir,
}

impl Files {
    fn new(definition: &[u8]) -> Self {
        let files = Self { folder: tempfile::tempdir().unwrap() };
        files.write("model.pt", definition);
        files.write("v.json", vocabulary().to_string().as_bytes());
        files.write("c.json", configuration().to_string().as_bytes());
        files
    }

    fn of(name: &str) -> Self {
        Self::new(&fs::read(fixture(name)).unwrap())
    }

    fn write(&self, name: &str, content: &[u8]) -> &Self {
        fs::write(self.folder.path().join(name), content).unwrap();
        self
    }

    fn run(&self, arguments: &[&str]) -> std::process::Output {
        program()
            .args(arguments)
            .args(["--definition", "model.pt", "--vocabulary", "v.json", "--config", "c.json"])
            .current_dir(self.folder.path())
            .output()
            .unwrap()
    }

    fn import(&self, standin: &StandIn) -> std::process::Output {
        self.run(&["import", "--url", &standin.url(), "--es-model-id", "m", "--start"])
    }

    /// Asserts that an import into a cluster of a version is rejected, and that no code ran and nothing was uploaded.
    #[track_caller]
    fn refused(&self, version: &str, code: i32, parts: &[&str]) {
        let standin =
            StandIn::start(Options { version: version.parse().unwrap(), ..Options::default() });
        let output = self.import(&standin);
        assert_eq!(output.status.code(), Some(code), "{}", message(&output));
        says(&message(&output), parts);
        assert!(standin.model_ids().is_empty());
        self.did_not_run();
    }

    /// The hostile files write a file to the current folder when their code runs.
    #[track_caller]
    fn did_not_run(&self) {
        assert!(!self.folder.path().join("it-ran").exists(), "the definition ran");
    }
}

const NEW: &str = "9.5.0";
const OLD: &str = "9.2.0";

/// A copy of an archive with modified records. The function gets their names without the archive's folder.
fn edited(
    archive: &[u8],
    mut edit: impl FnMut(&str, Vec<u8>) -> Option<(String, Vec<u8>)>,
) -> Vec<u8> {
    let mut old = ZipArchive::new(Cursor::new(archive)).unwrap();
    let mut new = ZipWriter::new(Cursor::new(Vec::new()));
    for index in 0..old.len() {
        let mut record = old.by_index(index).unwrap();
        let mut bytes = Vec::new();
        record.read_to_end(&mut bytes).unwrap();
        let name = record.name().unwrap().split_once('/').unwrap().1.to_owned();
        let method = if name.starts_with("code") {
            CompressionMethod::Deflated
        } else {
            CompressionMethod::Stored
        };
        if let Some((name, bytes)) = edit(&name, bytes) {
            let options = SimpleFileOptions::default().compression_method(method);
            new.start_file(format!("m/{name}"), options).unwrap();
            new.write_all(&bytes).unwrap();
        }
    }
    new.finish().unwrap().into_inner()
}

/// A valid archive with one modified record.
fn with_record(record: &str, change: impl Fn(Vec<u8>) -> Vec<u8>) -> Vec<u8> {
    let mut found = false;
    let archive = edited(&fs::read(fixture("scripted.pt")).unwrap(), |name, bytes| {
        let this = name == record;
        found |= this;
        Some((name.to_owned(), if this { change(bytes) } else { bytes }))
    });
    assert!(found, "{record}");
    archive
}

fn replaced(bytes: &[u8], old: &[u8], new: &[u8]) -> Vec<u8> {
    let at = bytes.windows(old.len()).position(|window| window == old).expect("what is replaced");
    [&bytes[..at], new, &bytes[at + old.len()..]].concat()
}

#[track_caller]
fn unloadable(archive: &[u8], part: &str) {
    let error = Inspected::load(archive).unwrap_err().to_string();
    assert!(error.contains(part), "{part:?} is not in: {error}");
}

#[test]
fn definition_of_another_tool_is_served() {
    for name in ["four-inputs.pt", "scripted.pt", "quantized.pt"] {
        let standin =
            StandIn::start(Options { version: NEW.parse().unwrap(), ..Options::default() });
        let files = Files::of(name);
        let output = files.import(&standin);
        assert!(output.status.success(), "{name}: {}", message(&output));
        let definition = fs::read(fixture(name)).unwrap();
        assert!(fs::read(standin.definition("m").unwrap()).unwrap() == definition, "{name}");
        let stored = standin.configuration("m").unwrap();
        assert_eq!(stored["description"], "by hand");
        assert_eq!(stored["metadata"]["definition_sha256"].as_str().unwrap().len(), 64);
        let body = json!({"docs": [{"text_field": "a b c"}]});
        let (status, answer) = ask(&standin, "POST", "/_ml/trained_models/m/_infer", Some(&body));
        assert_eq!(status, 200, "{answer}");
        let answered = answer["inference_results"][0]["predicted_value"].as_array().unwrap();
        // Output of the file for [CLS] a b c [SEP].
        let module = Module::load(&fixture(name)).unwrap();
        let ids = Tensor::from_slice(&[2i64, 5, 6, 7, 3]).unsqueeze(0);
        let positions = Tensor::arange(5, (tch::Kind::Int64, ids.device())).unsqueeze(0);
        let inputs = [ids.shallow_clone(), ids.ones_like(), ids.zeros_like(), positions];
        let expected = module.forward(&inputs).unwrap();
        for (i, answered) in answered.iter().enumerate() {
            let expected = expected.double_value(&[0, i as i64]);
            assert!((answered.as_f64().unwrap() - expected).abs() < 1e-5, "{name}");
        }
    }
}

#[test]
fn definition_of_another_tool_is_exported() {
    let files = Files::of("four-inputs.pt");
    let mut config = configuration();
    config["model_id"] = "by-hand".into();
    files.write("c.json", config.to_string().as_bytes());
    let output = files.run(&["export", "--output", "out", "--target-version", "9.4.0"]);
    assert!(output.status.success(), "{}", message(&output));
    let bundle = files.folder.path().join("out/by-hand.metadata.json");
    let standin = StandIn::start(Options { version: NEW.parse().unwrap(), ..Options::default() });
    let output = program()
        .args(["import", "--url", &standin.url(), "--start", "--es-model-id", "other", "--bundle"])
        .arg(bundle)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", message(&output));
    assert_eq!(standin.model_ids(), ["other"]);
}

#[test]
fn forbidden_operations_are_rejected_for_every_version() {
    for (file, operation) in
        [("hostile-forbidden.pt", "aten::as_strided"), ("hostile-writes.pt", "aten::save")]
    {
        for version in [OLD, NEW] {
            Files::of(file).refused(version, 3, &["model.pt", "forbidden operations", operation]);
        }
    }
}

#[test]
fn operation_in_a_loop_is_rejected_or_reported_by_version() {
    let files = Files::of("hidden-in-loop.pt");
    for version in ["8.19.20", "9.4.0", NEW] {
        files.refused(version, 3, &["operations that Elasticsearch does not allow", "aten::erf"]);
    }
    for version in ["8.19.19", "9.3.8", "8.7.0"] {
        let standin =
            StandIn::start(Options { version: version.parse().unwrap(), ..Options::default() });
        let output = files.import(&standin);
        assert!(output.status.success(), "{version}: {}", message(&output));
        says(&message(&output), &["WARN", "aten::erf", "9.4.0"]);
    }
    // A bundle of this definition is rejected by unsuitable clusters.
    let output = files.run(&["export", "--output", "out", "--es-model-id", "m"]);
    assert!(output.status.success(), "{}", message(&output));
    let standin = StandIn::start(Options { version: NEW.parse().unwrap(), ..Options::default() });
    let output = program()
        .args(["import", "--url", &standin.url(), "--bundle"])
        .arg(files.folder.path().join("out/m.metadata.json"))
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(3), "{}", message(&output));
    says(&message(&output), &["Elasticsearch 9.5.0 would reject", "aten::erf"]);
    assert!(standin.model_ids().is_empty());
}

#[test]
fn archive_with_code_that_runs_on_loading_is_not_loaded() {
    for (file, parts) in [
        ("hostile-state-hook.pt", vec!["code/__torch__.py", "__getstate__", "not loaded"]),
        ("hostile-default.pt", vec!["code/__torch__.py", "not loaded", "__torch__.run(\"x\""]),
        ("hostile-constant.pt", vec!["code/__torch__.py", "not loaded", "__torch__.run(\"x\""]),
    ] {
        for version in [OLD, NEW] {
            Files::of(file).refused(version, 3, &parts);
        }
    }
    // The hook is in a deflated record, in a stored record, or in no record.
    let code = with_record("code/__torch__.py", |code| [&code[..], b"\n# __setstate__\n"].concat());
    unloadable(&code, "code/__torch__.py contains __setstate__");
    unloadable(
        &with_record("version", |_| b"10 __setstate__".to_vec()),
        "version contains __setstate__",
    );
    let nested = |code: Vec<u8>| {
        let closure = b"    def inner(x: str=torch.save(1, \"it-ran\")) -> str:\n      return x\n    attention_mask0 =";
        replaced(&code, b"    attention_mask0 =", closure)
    };
    unloadable(&with_record("code/__torch__.py", nested), "it computes something");
}

#[test]
fn hostile_files_run_code_when_loaded_by_libtorch() {
    // Proves that the tests above are effective. Another process loads the file, because the code writes to the current folder.
    if let Some(file) = std::env::var_os("RUST_ELAND_RUNS") {
        let _ = Module::load(file.as_ref());
        return;
    }
    for name in ["hostile-state-hook.pt", "hostile-default.pt", "hostile-constant.pt"] {
        let folder = tempfile::tempdir().unwrap();
        let status = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "definitions::hostile_files_run_code_when_loaded_by_libtorch"])
            .env("RUST_ELAND_RUNS", fixture(name))
            .current_dir(folder.path())
            .output()
            .unwrap();
        assert!(status.status.success());
        assert!(folder.path().join("it-ran").exists(), "{name}");
    }
}

#[test]
fn other_file_formats_are_rejected_by_name() {
    let whole = fs::read(fixture("four-inputs.pt")).unwrap();
    for (bytes, parts) in [
        (b"not a zip".to_vec(), vec!["not a zip archive"]),
        (Vec::new(), vec!["model.pt"]),
        (whole[..whole.len() - 30].to_vec(), vec!["truncated"]),
        (whole[..whole.len() / 2].to_vec(), vec!["truncated"]),
        (fs::read(fixture("state-dict.pt")).unwrap(), vec!["state dict", "import the folder"]),
        (b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.".to_vec(), vec!["state dict"]),
        (
            edited(&whole, |name, bytes| (name != "data.pkl").then(|| (name.into(), bytes))),
            vec!["data.pkl is missing"],
        ),
        (
            edited(&whole, |name, bytes| (name != "constants.pkl").then(|| (name.into(), bytes))),
            vec!["constants.pkl is missing"],
        ),
        (
            edited(&whole, |name, bytes| (!name.starts_with("code")).then(|| (name.into(), bytes))),
            vec!["no code"],
        ),
        (
            edited(&whole, |name, bytes| (name != "version").then(|| (name.into(), bytes))),
            vec!["version"],
        ),
        (
            edited(&whole, |name, bytes| {
                let name = if name == "byteorder" { "x".repeat(254) } else { name.to_owned() };
                Some((name, bytes))
            }),
            vec!["256"],
        ),
    ] {
        let files = Files::new(&bytes);
        files.refused(NEW, 3, &parts);
    }
}

#[test]
fn ambiguous_archives_are_rejected() {
    let whole = fs::read(fixture("four-inputs.pt")).unwrap();
    let double = edited(&whole, |name, bytes| {
        let name = if name == "byteorder" { "DATA.PKL" } else { name };
        Some((name.to_owned(), bytes))
    });
    unloadable(&double, "differ only in case");
    // A second central directory: readers differ in which one they use.
    let other = fs::read(fixture("hostile-writes.pt")).unwrap();
    let joined = [&whole[..], &other].concat();
    assert!(Inspected::load(&joined).is_err());
    // The name is in the local header and in the central directory.
    let (old, new) = (b"archive/byteorder", b"anchive/byteorder");
    let outside = replaced(&replaced(&whole, old, new), old, new);
    unloadable(&outside, "outside of its folder");
}

#[test]
fn decompression_bombs_are_rejected() {
    // Zeros, which deflate to a thousandth of their length.
    let zeros = vec![0; 300 << 20];
    let bomb = with_record("code/__torch__.py", |_| zeros.clone());
    assert!(bomb.len() < 1 << 20);
    unloadable(&bomb, "more than 256 MB when uncompressed");
    // A wrong length.
    let code = with_record("code/__torch__.py", |code| code);
    let mut lie = code.clone();
    let at = code.windows(4).rposition(|window| window == b"PK\x01\x02").unwrap();
    let name = code.windows(17).rposition(|window| window == b"code/__torch__.py").unwrap();
    let entry = code[..name].windows(4).rposition(|window| window == b"PK\x01\x02").unwrap();
    assert!(entry <= at);
    lie[entry + 24..entry + 28].copy_from_slice(&(200u32 << 20).to_le_bytes());
    unloadable(&lie, "cannot be uncompressed");
    // The number of calls doubles with each level.
    unloadable(&fs::read(fixture("hostile-doubling.pt")).unwrap(), "2000000 nodes");
}

#[test]
fn deeply_nested_code_is_rejected() {
    let code = |body: String| {
        with_record("code/__torch__.py", |code| {
            replaced(&code, b"    attention_mask0 = attention_mask\n", body.as_bytes())
        })
    };
    let line = |expression: String| code(format!("    attention_mask0 = {expression}\n"));
    unloadable(
        &line(format!("{}attention_mask{}", "(".repeat(100_000), ")".repeat(100_000))),
        "nested too deeply",
    );
    unloadable(&line(format!("attention_mask{}", "+1".repeat(1 << 20))), "too long");
    // The maximum depth is accepted.
    let sum = line(format!("attention_mask{}", "+1".repeat(30_000)));
    assert!(Inspected::load(&sum).is_ok());
    let chain = |length: usize| {
        let calls: String = (0..length)
            .map(|i| format!("def f{i}(x: Tensor) -> Tensor:\n  return __torch__.f{}(x)\n", i + 1))
            .collect();
        with_record("code/__torch__.py", |code| {
            let last = format!("def f{length}(x: Tensor) -> Tensor:\n  return torch.add(x, x)\n");
            let called = replaced(
                &code,
                b"torch.add(attention_mask0, i)",
                b"torch.add(__torch__.f0(attention_mask0), i)",
            );
            [calls.as_bytes(), last.as_bytes(), &called].concat()
        })
    };
    assert!(Inspected::load(&chain(150)).is_ok());
    unloadable(&chain(300), "more than 200 deep");
    unloadable(&chain(9_900), "more than 200 deep");
    unloadable(&chain(10_000), "more than 10000 functions");
}

#[test]
fn unsafe_pickles_are_rejected() {
    let data = |old: &'static [u8], new: &'static [u8]| {
        with_record("data.pkl", move |pickle| replaced(&pickle, old, new))
    };
    // Shape (12, 4) of the embedding, 48 elements in a storage of 48.
    unloadable(&data(b"K\x0cK\x04t", b"K\x0dK\x04t"), "beyond the end of its storage");
    unloadable(&data(b"K\x0cK\x04t", b"K\x0cNt"), "malformed tensor record");
    // The declared storage is longer than its record.
    unloadable(&data(b"X\x03\x00\x00\x00cpuq", b"X\x04\x00\x00\x00cudaq"), "device cuda");
    unloadable(
        &with_record("data/0", |bytes| bytes[..bytes.len() - 4].to_vec()),
        "shorter than declared",
    );
    unloadable(
        &data(b"c__torch__\nScripted\n", b"c__torch__.torch.classes.xnnpack\nLinearOpContext\n"),
        "which no model needs",
    );
    unloadable(&data(b"ctorch._utils\n_rebuild_tensor_v2\n", b"cposix\nsystem\n"), "posix.system");
    unloadable(&data(b"c__torch__\nScripted\n", b"b"), "the stack");
    // A memo index as large as the memory of the machine.
    unloadable(&data(b"q\x00", b"r\xff\xff\xff\xff"), "memo");
    unloadable(
        &with_record("data.pkl", |pickle| pickle[..pickle.len() - 1].to_vec()),
        "ends too early",
    );
    unloadable(
        &with_record("constants.pkl", |_| b"\x80\x02}.".to_vec()),
        "does not contain the Tuple",
    );
}

#[test]
fn truncated_or_altered_archive_ends_with_a_message() {
    let whole = fs::read(fixture("quantized.pt")).unwrap();
    for length in (0..whole.len()).step_by(97) {
        assert!(Inspected::load(&whole[..length]).is_err(), "{length}");
    }
    // Every altered byte in pickles and code leads to an error or loads, and never ends the process.
    let mut at = 0;
    for record in ["data.pkl", "constants.pkl", "code/__torch__.py"] {
        let change = |value: u8, at: usize| {
            edited(&whole, |name, mut bytes| {
                if name == record && !bytes.is_empty() {
                    let at = at % bytes.len();
                    bytes[at] ^= value;
                }
                Some((name.to_owned(), bytes))
            })
        };
        for round in 0..60 {
            at += 13;
            let _ = Inspected::load(&change(1 << (round % 8), at));
        }
    }
}

#[test]
fn forward_with_wrong_signature_is_rejected() {
    Files::of("two-inputs.pt").refused(
        NEW,
        3,
        &["bert", "4 tensors", "input_ids: Tensor, attention_mask: Tensor"],
    );
    Files::of("dictionary.pt").refused(NEW, 3, &["Dict[str, Tensor]"]);
    Files::of("integers.pt").refused(NEW, 3, &["Int64", "float32"]);
    Files::of("fixed-length.pt").refused(NEW, 3, &["12 tokens", "shape '[1, 7, 4]' is invalid"]);
    let files = Files::of("four-inputs.pt");
    let mut config = configuration();
    config["inference_config"]["text_embedding"]["embedding_size"] = 5.into();
    files.write("c.json", config.to_string().as_bytes()).refused(
        NEW,
        3,
        &["[1, 4]", "embedding_size of 5"],
    );
    // A vocabulary of another model, whose last token has no embedding.
    let mut tokens = vocabulary();
    tokens["vocabulary"].as_array_mut().unwrap().push("h".into());
    let files = Files::of("four-inputs.pt");
    files.write("v.json", tokens.to_string().as_bytes()).refused(NEW, 3, &["index out of range"]);
    // Models of the RoBERTa family get two tensors.
    let files = Files::of("two-inputs.pt");
    let mut config = configuration();
    config["inference_config"]["text_embedding"]["tokenization"] = json!({"mpnet": {}});
    let tokens = ["<s>", "<pad>", "</s>", "[UNK]", "<mask>", "a", "b", "c", "d", "e", "f", "g"];
    files.write("c.json", config.to_string().as_bytes());
    files.write("v.json", json!({ "vocabulary": tokens }).to_string().as_bytes());
    let standin = StandIn::start(Options { version: NEW.parse().unwrap(), ..Options::default() });
    let output = files.import(&standin);
    assert!(output.status.success(), "{}", message(&output));
}

#[test]
fn vocabulary_and_configuration_are_validated_as_by_the_server() {
    let files = Files::of("four-inputs.pt");
    for (config, parts) in [
        (json!({"inference_config": {"translation": {}}}), vec!["c.json", "translation"]),
        (json!({"inference_config": {"ner": {"labels": []}}}), vec!["c.json", "labels"]),
        (
            json!({"model_id": "other", "inference_config": {"ner": {}}}),
            vec!["c.json", "model_id is other"],
        ),
        (json!("text"), vec!["c.json"]),
    ] {
        files.write("c.json", config.to_string().as_bytes()).refused(NEW, 3, &parts);
    }
    files.write("c.json", b"{").refused(NEW, 3, &["c.json", "EOF"]);
    files.write("c.json", configuration().to_string().as_bytes());
    for (tokens, parts) in [
        (json!({"vocabulary": ["a"]}), vec!["v.json", "[CLS]"]),
        (json!({"vocabulary": []}), vec!["v.json", "no tokens"]),
        (json!({"tokens": []}), vec!["v.json", "tokens"]),
    ] {
        files.write("v.json", tokens.to_string().as_bytes()).refused(NEW, 3, &parts);
    }
    files.write("v.json", vocabulary().to_string().as_bytes());
    let mut config = configuration();
    config["prefix_strings"] = json!({"search": "q: "});
    files.write("c.json", config.to_string().as_bytes()).refused(
        "8.11.0",
        6,
        &["8.11.0", "8.12.0"],
    );
    // Without an id, and with missing files.
    let output = files.run(&["export", "--output", "out"]);
    assert_eq!(output.status.code(), Some(2), "{}", message(&output));
    says(&message(&output), &["--es-model-id"]);
    let output = program().args(["export", "--output", "out", "--definition", "model.pt"]).output();
    assert_eq!(output.unwrap().status.code(), Some(2));
}
