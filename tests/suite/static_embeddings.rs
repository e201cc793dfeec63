//! Static embeddings: a table and a mean, in the layouts of sentence-transformers and of model2vec. numbers.rs and import.rs compare the
//! fixtures with the libraries.

use std::fs;
use std::path::Path;

use rust_eland::conversion::{
    Conversion, ConversionError, Options, Quantize, QuantizeScheme, ServerRows,
};
use rust_eland::observer::Progress;
use rust_eland::source::ModelFiles;
use rust_eland::tasks::Task;
use rust_eland::tokenizer::TokenizerError;
use serde_json::{Value, json};
use tch::{Kind, Tensor};

use crate::fixtures::{Fixture, copy};
use crate::numbers::as_the_server_sends;
use crate::program::{message, program, says};

/// Words of the small vocabulary, with their ids.
const WORDS: [&str; 5] = ["a", "sun", "moon", "##s", "."];

/// A tokenizer.json with BERT's steps.
fn tokenizer(vocabulary: &[&str], added: &[&str]) -> Value {
    let ids: serde_json::Map<String, Value> =
        vocabulary.iter().enumerate().map(|(id, token)| ((*token).to_owned(), id.into())).collect();
    let added: Vec<Value> = added
        .iter()
        .map(|token| {
            json!({"id": ids[*token], "content": token, "single_word": false, "lstrip": false, "rstrip": false,
                "normalized": false, "special": true})
        })
        .collect();
    json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": added,
        "normalizer": {"type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true, "strip_accents": null,
            "lowercase": true},
        "pre_tokenizer": {"type": "BertPreTokenizer"}, "post_processor": null, "decoder": null,
        "model": {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100, "vocab": ids},
    })
}

/// A safetensors file: name, type and shape of each tensor, and its bytes.
fn safetensors(tensors: &[(&str, &str, &[usize], Vec<u8>)]) -> Vec<u8> {
    let mut header = serde_json::Map::new();
    let mut data = Vec::new();
    for (name, kind, shape, bytes) in tensors {
        let begin = data.len();
        data.extend_from_slice(bytes);
        let place = json!({"dtype": kind, "shape": shape, "data_offsets": [begin, data.len()]});
        header.insert((*name).to_owned(), place);
    }
    let mut header = Value::Object(header).to_string();
    header.push_str(&" ".repeat(header.len().next_multiple_of(8) - header.len()));
    [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &data].concat()
}

fn floats(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

/// The numbers of a table: 1, 2, 3 and so on.
fn numbers(rows: usize) -> Vec<f32> {
    (1..=2 * rows).map(|number| number as f32).collect()
}

/// A table of two columns in the layout of sentence-transformers.
fn library(tokenizer: &Value, rows: usize) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let module = folder.path().join("0_StaticEmbedding");
    fs::create_dir(&module).unwrap();
    let table = floats(&numbers(rows));
    let weights = safetensors(&[("embedding.weight", "F32", &[rows, 2], table)]);
    fs::write(module.join("model.safetensors"), weights).unwrap();
    fs::write(module.join("tokenizer.json"), tokenizer.to_string()).unwrap();
    let modules = json!([{"idx": 0, "name": "0", "path": "0_StaticEmbedding",
        "type": "sentence_transformers.models.StaticEmbedding"}]);
    fs::write(folder.path().join("modules.json"), modules.to_string()).unwrap();
    folder
}

/// The files of model2vec, without modules.json.
fn model2vec(tokenizer: &Value, config: Value, weights: &[u8]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let mut all = json!({"model_type": "model2vec", "architectures": ["StaticModel"]});
    all.as_object_mut().unwrap().extend(config.as_object().unwrap().clone());
    fs::write(folder.path().join("config.json"), all.to_string()).unwrap();
    fs::write(folder.path().join("tokenizer.json"), tokenizer.to_string()).unwrap();
    fs::write(folder.path().join("model.safetensors"), weights).unwrap();
    folder
}

fn read_with(folder: &Path, options: Options) -> Result<Conversion, ConversionError> {
    Conversion::read(&ModelFiles::open(folder).unwrap(), options, &Progress::quiet())
}

fn read(folder: &Path) -> Result<Conversion, ConversionError> {
    read_with(folder, Options::default())
}

/// The embedding of a text, through the server's tokenizer and the graph.
fn embedding(conversion: &Conversion, text: &str) -> Vec<f64> {
    let rows = ServerRows::new(conversion.tokenizer(), conversion.max_sequence_length()).unwrap();
    let ids = rows.single(text).unwrap().ids;
    let ids = Tensor::from_slice(&ids).view([1, -1]);
    let mask = ids.ones_like();
    let tensors = [ids.shallow_clone(), mask, ids.zeros_like(), ids.zeros_like()];
    let tensors = &tensors[..conversion.tokenizer().kind.inputs()];
    let output = conversion.trace().unwrap().module.forward(tensors).unwrap();
    assert_eq!(output.size()[0], 1);
    Vec::<f64>::try_from(output.to_kind(Kind::Double).get(0)).unwrap()
}

/// Vocabulary without a token for unknown text or padding.
fn words() -> Value {
    tokenizer(&WORDS, &[])
}

/// The vocabulary of BERT's kind: `[PAD]` is 0 and `[UNK]` is 1.
fn whole() -> Value {
    let tokens = [&["[PAD]", "[UNK]"], &WORDS[..]].concat();
    tokenizer(&tokens, &["[PAD]", "[UNK]"])
}

#[test]
fn required_tokens_are_appended_and_do_not_count() {
    // A row more than tokens, which no token must read.
    let folder = library(&words(), WORDS.len() + 1);
    let conversion = read(folder.path()).unwrap();
    assert_eq!(conversion.task(), Task::TextEmbedding);
    let uploaded = conversion.tokenizer();
    assert_eq!(uploaded.vocabulary.vocabulary[WORDS.len()..], ["[UNK]", "[PAD]"]);
    assert_eq!(uploaded.settings["with_special_tokens"], json!(false));
    // sun is row 1, moon is row 2.
    assert_eq!(embedding(&conversion, "sun"), [3., 4.]);
    assert_eq!(embedding(&conversion, "Sun Moon"), [4., 5.]);
    assert_eq!(embedding(&conversion, "sun xyz moon"), [4., 5.]);
    assert_eq!(embedding(&conversion, "xyz"), [0., 0.]);
    assert_eq!(embedding(&conversion, ""), [0., 0.]);
    let names_them = |note: &&String| note.contains("requires them: [UNK], [PAD]");
    assert_eq!(conversion.notes().iter().filter(names_them).count(), 1);
}

#[test]
fn unknown_words_count_in_sentence_transformers_only() {
    let folder = library(&whole(), 7);
    // [UNK] is row 1, sun is row 3.
    assert_eq!(embedding(&read(folder.path()).unwrap(), "sun xyz"), [5., 6.]);
    let table = safetensors(&[("embeddings", "F32", &[7, 2], floats(&numbers(7)))]);
    let folder = model2vec(&whole(), json!({}), &table);
    assert_eq!(embedding(&read(folder.path()).unwrap(), "sun xyz"), [7., 8.]);
}

#[test]
fn model2vec_applies_mapping_weights_and_normalization() {
    let bytes = |values: &[i32]| values.iter().flat_map(|value| value.to_le_bytes()).collect();
    let weights = safetensors(&[
        ("embeddings", "I8", &[2, 2], vec![3, 4, 251, 0]),
        ("mapping", "I32", &[7], bytes(&[0, 0, 1, 0, 1, 0, 1])),
        ("weights", "F64", &[7], [1f64, 1., 1., 2., 4., 1., 1.].map(f64::to_le_bytes).concat()),
    ]);
    let folder = model2vec(&whole(), json!({}), &weights);
    // sun is token 3, row 0 and the factor 2; moon is token 4, row 1 and the factor 4.
    let conversion = read(folder.path()).unwrap();
    assert_eq!(embedding(&conversion, "sun"), [6., 8.]);
    assert_eq!(embedding(&conversion, "sun moon"), [-7., 4.]);
    assert_eq!(conversion.max_sequence_length(), 512);
    let folder = model2vec(&whole(), json!({"normalize": true, "max_length": null}), &weights);
    let conversion = read(folder.path()).unwrap();
    let found = embedding(&conversion, "sun");
    assert!((found[0] - 0.6).abs() < 1e-6 && (found[1] - 0.8).abs() < 1e-6, "{found:?}");
    assert_eq!(embedding(&conversion, "xyz"), [0., 0.]);
    assert_eq!(conversion.max_sequence_length(), 8192);
    let folder = model2vec(&whole(), json!({"max_length": 2}), &weights);
    assert_eq!(read(folder.path()).unwrap().max_sequence_length(), 2);
}

#[test]
fn damaged_table_is_rejected() {
    let refused = |folder: tempfile::TempDir| read(folder.path()).err().unwrap().to_string();
    let other = safetensors(&[("other", "F32", &[1, 2], floats(&[1., 2.]))]);
    let reason = refused(model2vec(&whole(), json!({}), &other));
    assert!(reason.contains("contain no matrix"), "{reason}");
    let mapping = [0i64, 1, 2, 0, 0, 0, 0].map(i64::to_le_bytes).concat();
    let table = ("embeddings", "F32", &[2usize, 2][..], floats(&[0.; 4]));
    let mapped = safetensors(&[table, ("mapping", "I64", &[7], mapping)]);
    let reason = refused(model2vec(&whole(), json!({}), &mapped));
    assert!(reason.contains("mapping names rows"), "{reason}");
    let small = library(&whole(), 6);
    let error = read(small.path()).err().unwrap();
    let is_expected = matches!(
        error,
        ConversionError::Tokenizer(TokenizerError::TooLarge { tokens: 7, rows: 6 })
    );
    assert!(is_expected, "{error}");
    fs::remove_file(small.path().join("0_StaticEmbedding/tokenizer.json")).unwrap();
    let reason = refused(small);
    assert!(reason.contains("tokenizer.json"), "{reason}");
}

#[test]
fn other_tokenizers_tasks_and_quantization_of_layers_are_rejected() {
    let folder = library(&whole(), 7);
    let error = read_with(folder.path(), Options::of_task(Task::FillMask)).err().unwrap();
    assert!(error.to_string().contains("It can serve text_embedding"), "{error}");
    let mut options = Options::default();
    let mut quantize = Quantize::default();
    options.quantize = Some(quantize.clone());
    let traced = read_with(folder.path(), options.clone()).unwrap().trace().unwrap();
    assert_eq!(traced.quantized.map(|it| (it.tables, it.layers)), Some((1, 0)));
    // A table has no linear layer.
    quantize.scheme = QuantizeScheme::Eland;
    options.quantize = Some(quantize);
    let error = read_with(folder.path(), options).unwrap().trace().err().unwrap();
    assert!(matches!(error, ConversionError::NothingToQuantize { .. }), "{error}");
    let mut words = whole();
    words["model"]["type"] = json!("WordLevel");
    let error = read(library(&words, 7).path()).err().unwrap();
    assert!(matches!(error, ConversionError::Tokenizer(TokenizerError::Unsupported(_))), "{error}");
    // A step that Elasticsearch does not have.
    let mut split = whole();
    split["pre_tokenizer"] = json!({"type": "Whitespace"});
    split["normalizer"] = json!({"type": "Replace", "pattern": {"String": "e"}, "content": "."});
    let conversion = read(library(&split, 7).path()).unwrap();
    let error = conversion.check_tokenizer().unwrap_err();
    assert!(matches!(error, ConversionError::InexactTokenizer(_)), "{error}");
    read(folder.path()).unwrap().check_tokenizer().unwrap();
}

/// The modules after the StaticEmbedding in `path`, which have folders without files.
fn modules(folder: &Path, path: &str, after: &[&str]) {
    let class = |name: &str| format!("sentence_transformers.models.{name}");
    let first = json!({"path": path, "type": class("StaticEmbedding")});
    let after = after.iter().map(|name| json!({"path": format!("1_{name}"), "type": class(name)}));
    let all: Vec<Value> = std::iter::once(first).chain(after).collect();
    fs::write(folder.join("modules.json"), json!(all).to_string()).unwrap();
}

/// The table of seven tokens in the layout of model2vec.
fn table() -> Vec<u8> {
    safetensors(&[("embeddings", "F32", &[7, 2], floats(&numbers(7)))])
}

fn reason(folder: &Path) -> String {
    read(folder).err().unwrap().to_string()
}

#[test]
fn settings_that_model2vec_reads_differently_are_refused() {
    for (config, key) in [
        (json!({"normalize": "true"}), "normalize is \"true\""),
        (json!({"normalize": 1}), "normalize is 1"),
        (json!({"max_length": "3"}), "max_length is \"3\""),
        (json!({"max_length": 0}), "max_length is 0"),
        (json!({"max_length": -1}), "max_length is -1"),
    ] {
        let found = reason(model2vec(&whole(), config, &table()).path());
        assert!(found.contains(key), "{found}");
    }
    let folder = model2vec(&whole(), json!({"normalize": null}), &table());
    assert_eq!(embedding(&read(folder.path()).unwrap(), "sun"), [7., 8.]);
}

#[test]
fn tables_are_chosen_and_checked_as_in_model2vec() {
    let doubled: Vec<f32> = numbers(7).iter().map(|number| 2. * number).collect();
    let both = safetensors(&[
        ("embedding.weight", "F32", &[7, 2], floats(&doubled)),
        ("embeddings", "F32", &[7, 2], floats(&numbers(7))),
    ]);
    let conversion = read(model2vec(&whole(), json!({}), &both).path()).unwrap();
    assert_eq!(embedding(&conversion, "sun"), [7., 8.]);
    says(&conversion.notes().join("\n"), &["unused tensors", "embedding.weight"]);
    let mapped = safetensors(&[
        ("embeddings", "F32", &[7, 2], floats(&numbers(7))),
        ("mapping", "F32", &[7], floats(&[0.; 7])),
    ]);
    let found = reason(model2vec(&whole(), json!({}), &mapped).path());
    assert!(found.contains("mapping has the type"), "{found}");
    let empty = safetensors(&[("embeddings", "F32", &[7, 0], Vec::new())]);
    let found = reason(model2vec(&whole(), json!({}), &empty).path());
    assert!(found.contains("no components"), "{found}");
    let found = reason(model2vec(&whole(), json!({}), &table()[..20]).path());
    assert!(found.contains("not a valid safetensors file"), "{found}");
}

#[test]
fn module_that_normalizes_against_config_json_is_reported() {
    let folder = model2vec(&whole(), json!({"normalize": false}), &table());
    modules(folder.path(), ".", &["Normalize"]);
    let notes = read(folder.path()).unwrap().notes().join("\n");
    says(&notes, &["does not have normalize true", "module Normalize"]);
}

#[test]
fn added_word_is_reported() {
    let tokens = [&["[PAD]", "[UNK]"], &WORDS[..]].concat();
    let folder = library(&tokenizer(&tokens, &["[PAD]", "[UNK]", "sun"]), 7);
    let notes = read(folder.path()).unwrap().notes().join("\n");
    says(&notes, &["reads 1 added tokens as ordinary words: sun"]);
}

#[test]
fn unusual_modules_are_refused_by_name() {
    let folder = library(&whole(), 7);
    modules(folder.path(), "0_StaticEmbedding", &["Normalize"; 100]);
    says(&reason(folder.path()), &["modules.json", "101 modules", "at most 100"]);
    let first = json!([{"path": "0_BoW", "type": "sentence_transformers.models.BoW"}]);
    fs::write(folder.path().join("modules.json"), first.to_string()).unwrap();
    says(&reason(folder.path()), &["sentence_transformers.models.BoW"]);
    modules(folder.path(), "0_StaticEmbedding", &["Dense"]);
    let dense = folder.path().join("1_Dense");
    fs::create_dir(&dense).unwrap();
    let weight = ("linear.weight", "F32", &[1usize, 2][..], floats(&[1., 2.]));
    let bias = ("linear.bias", "F32", &[1usize][..], floats(&[1.]));
    let mut config =
        json!({"in_features": 2, "out_features": 1, "bias": false, "use_residual": false});
    let write = |config: &Value, tensors: &[_]| {
        fs::write(dense.join("config.json"), config.to_string()).unwrap();
        fs::write(dense.join("model.safetensors"), safetensors(tensors)).unwrap();
    };
    write(&config, std::slice::from_ref(&weight));
    read(folder.path()).unwrap();
    write(&config, &[weight.clone(), bias]);
    says(&reason(folder.path()), &["1_Dense", "linear.bias"]);
    config["use_residual"] = true.into();
    write(&config, &[weight]);
    says(&reason(folder.path()), &["1_Dense", "use_residual"]);
}

#[test]
fn program_reports_unknown_keys_and_numbers_that_are_not_finite() {
    let run = |arguments: &[&str]| program().args(arguments).output().unwrap();
    let folder = model2vec(&whole(), json!({"new_key": 1}), &table());
    let source = folder.path().display().to_string();
    let output = run(&["infer", "--hub-model-id", &source, "sun"]);
    assert!(output.status.success(), "{}", message(&output));
    says(&message(&output), &["WARNING", "new_key in config.json is not understood"]);
    let damaged = safetensors(&[("embeddings", "F32", &[7, 2], floats(&[f32::NAN; 14]))]);
    fs::write(folder.path().join("model.safetensors"), damaged).unwrap();
    let infer = run(&["infer", "--hub-model-id", &source, "sun"]);
    assert!(!infer.status.success(), "{}", message(&infer));
    says(&message(&infer), &["returns NaN"]);
    // A folder that a failed export created is removed.
    let (new, parent) = (folder.path().join("new/folder"), folder.path().join("new"));
    let export =
        run(&["export", "--hub-model-id", &source, "--output", &new.display().to_string()]);
    assert!(!export.status.success(), "{}", message(&export));
    says(&message(&export), &["returns NaN"]);
    assert!(!parent.exists());
}

#[test]
fn model2vec_without_model_type_has_the_answers_of_model2vec() {
    for (name, config) in [
        ("weights", json!({"max_length": 512, "normalize": false, "embedding_dtype": "float32"})),
        ("weights", json!({})),
        ("mapping", json!({"max_length": 512, "normalize": false})),
    ] {
        let fixture = Fixture::named(&format!("static/{name}"));
        let folder = tempfile::tempdir().unwrap();
        copy(&fixture.model(), folder.path());
        fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
        let modules = json!([{"idx": 0, "name": "0", "path": ".", "type": "sentence_transformers.models.StaticEmbedding"}]);
        fs::write(folder.path().join("modules.json"), modules.to_string()).unwrap();
        let conversion = read(folder.path()).unwrap();
        let tokenizer = conversion.tokenizer();
        let cases = fixture.cases(Task::TextEmbedding);
        assert!(!cases.is_empty());
        for case in cases {
            let padding = tokenizer.special.padding;
            let found =
                conversion.forward(&as_the_server_sends(&case, tokenizer.kind, padding)).unwrap();
            let difference = (&found - &case.output).abs().max().double_value(&[]);
            assert!(difference < 1e-4, "{name} {config} {}: {difference}", case.name);
        }
    }
}
