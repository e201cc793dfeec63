//! Compares tokenizers read from files with Python's tokenizers (see tests/fixtures/vocabularies.py).

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use rust_eland::config::ModelConfig;
#[cfg(feature = "torch")]
use rust_eland::conversion::{Conversion, Options};
use rust_eland::source::ModelFiles;
#[cfg(feature = "torch")]
use rust_eland::tasks::Task;
use rust_eland::tokenizer::{Adaptation, Tokenizer, TokenizerError, TokenizerKind};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tempfile::TempDir;

const SLOW_FILES: [&str; 5] =
    ["vocab.txt", "vocab.json", "merges.txt", "sentencepiece.bpe.model", "spm.model"];

#[derive(Deserialize)]
struct Case {
    base: Option<String>,
    #[serde(default)]
    without: Vec<String>,
    #[serde(default)]
    files: Map<String, Value>,
    reference: Reference,
}

#[derive(Deserialize)]
struct Reference {
    kind: String,
    settings: Map<String, Value>,
    vocabulary: Option<Vec<String>>,
    ids: Option<HashMap<String, usize>>,
    merges: Option<Vec<String>>,
    scores: Option<Vec<f64>>,
}

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

/// A folder with the files of a fixture except weights, with some files removed and others added.
fn folder(base: Option<&str>, without: &[String], files: &Map<String, Value>) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    if let Some(base) = base {
        for entry in fs::read_dir(fixtures().join(base).join("model")).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if path.is_file() && !name.ends_with(".safetensors") && !without.contains(&name) {
                fs::copy(&path, folder.path().join(name)).unwrap();
            }
        }
    }
    for (name, content) in files {
        let text = content.as_str().map_or_else(|| content.to_string(), str::to_owned);
        fs::write(folder.path().join(name), text).unwrap();
    }
    folder
}

fn read(folder: &Path) -> Result<Tokenizer, TokenizerError> {
    let files = ModelFiles::open(folder).unwrap();
    let model = ModelConfig::read(&files).unwrap();
    Tokenizer::read(&files, &model)
}

/// Token ids of the server: for duplicate tokens the last one applies.
fn server_ids(tokens: &[String]) -> HashMap<&str, usize> {
    tokens.iter().enumerate().map(|(id, token)| (token.as_str(), id)).collect()
}

fn check(name: &str, tokenizer: &Tokenizer, reference: &Reference) {
    assert_eq!(tokenizer.kind.name(), reference.kind, "{name}");
    assert_eq!(tokenizer.settings, reference.settings, "{name}");
    let tokens = &tokenizer.vocabulary.vocabulary;
    if let Some(wanted) = &reference.vocabulary {
        assert_eq!(**tokens, *wanted, "{name}");
    }
    if let Some(wanted) = &reference.ids {
        let mut ids = server_ids(tokens);
        ids.retain(|token, _| !token.starts_with("[unused id "));
        let wanted: HashMap<&str, usize> = wanted.iter().map(|(t, id)| (t.as_str(), *id)).collect();
        assert_eq!(ids, wanted, "{name}");
    }
    assert_eq!(tokenizer.vocabulary.merges, reference.merges, "{name}");
    assert_eq!(tokenizer.vocabulary.scores, reference.scores, "{name}");
    let ids = server_ids(tokens);
    let special = tokenizer.kind.tokens();
    let id = |token| ids.get(token).map_or(-1, |id| *id as i64);
    assert_eq!(tokenizer.special.padding, id(special.padding), "{name}");
    assert_eq!(tokenizer.special.separator, id(special.separator), "{name}");
}

#[test]
fn vocabularies_match_pythons_tokenizers() {
    let mut compared = 0;
    for entry in fs::read_dir(fixtures().join("vocabularies")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        let case: Case = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        let whole = folder(case.base.as_deref(), &case.without, &case.files);
        let tokenizer = read(whole.path());
        check(&name, &tokenizer.unwrap(), &case.reference);
        compared += 1;

        // The slow files alone and tokenizer.json alone give the same result.
        if case.base.is_some() && whole.path().join("tokenizer.json").is_file() {
            for without in [&["tokenizer.json"][..], &SLOW_FILES[..]] {
                let mut gone = case.without.clone();
                gone.extend(without.iter().map(|name| (*name).to_owned()));
                let part = folder(case.base.as_deref(), &gone, &case.files);
                let left = |name: &&str| part.path().join(name).is_file();
                if SLOW_FILES.iter().chain(&["tokenizer.json"]).any(left) {
                    check(
                        &format!("{name} without {without:?}"),
                        &read(part.path()).unwrap(),
                        &case.reference,
                    );
                    compared += 1;
                }
            }
        }
    }
    assert!(compared > 50, "only {compared} comparisons");
}

#[test]
fn tokenizer_json_matches_the_tokenizers_crate() {
    let without = SLOW_FILES.map(str::to_owned);
    for base in [
        "bert/base",
        "mpnet/base",
        "roberta/base",
        "xlm-roberta/base",
        "camembert/base",
        "deberta-v2/base",
    ] {
        let folder = folder(Some(base), &without, &Map::new());
        let library =
            tokenizers::Tokenizer::from_file(folder.path().join("tokenizer.json")).unwrap();
        let ours = read(folder.path()).unwrap();
        let theirs = library.get_vocab(true);
        assert_eq!(ours.vocabulary.vocabulary.len(), theirs.len(), "{base}");
        for (token, id) in server_ids(&ours.vocabulary.vocabulary) {
            assert_eq!(theirs.get(token).map(|id| *id as usize), Some(id), "{base} {token}");
        }
    }
}

#[test]
fn every_fixture_tokenizer_is_read() {
    let kinds = [
        ("bart", TokenizerKind::Roberta),
        ("bert", TokenizerKind::Bert),
        ("camembert", TokenizerKind::XlmRoberta),
        ("deberta-v2", TokenizerKind::DebertaV2),
        ("distilbert", TokenizerKind::Bert),
        ("dpr", TokenizerKind::Bert),
        ("electra", TokenizerKind::Bert),
        ("mobilebert", TokenizerKind::Bert),
        ("mpnet", TokenizerKind::MpNet),
        ("retribert", TokenizerKind::Bert),
        ("roberta", TokenizerKind::Roberta),
        ("squeezebert", TokenizerKind::Bert),
        ("xlm-roberta", TokenizerKind::XlmRoberta),
    ];
    for (architecture, kind) in kinds {
        for entry in fs::read_dir(fixtures().join(architecture)).unwrap() {
            let model = entry.unwrap().path().join("model");
            // The routes of a Router have folders of their own.
            if model.join("router_config.json").is_file() {
                continue;
            }
            let tokenizer = read(&model).unwrap();
            let multilingual = model.ends_with("multilingual-e5/model");
            let japanese = model.to_string_lossy().contains("japanese");
            let wanted = match kind {
                _ if multilingual => TokenizerKind::XlmRoberta,
                _ if japanese => TokenizerKind::BertJapanese,
                kind => kind,
            };
            assert_eq!(tokenizer.kind, wanted, "{}", model.display());
            // The only warnings are real differences of the generated SentencePiece models, and a class that differs from model_type.
            let mut expected = vec!["normalizes text with", "one [UNK] per byte"];
            expected.extend(multilingual.then_some("model_type bert"));
            expected.extend(japanese.then_some("Kuromoji"));
            expected.extend(japanese.then_some("single characters"));
            let known = |warning: &&String| expected.iter().any(|part| warning.contains(part));
            let odd = tokenizer.warnings.iter().find(|warning| !known(warning));
            assert_eq!(odd, None, "{}", model.display());
        }
    }
}

fn of(files: Value) -> Result<Tokenizer, TokenizerError> {
    let Value::Object(files) = files else { panic!("not an object") };
    read(folder(None, &[], &files).path())
}

/// A BERT folder with a tokenizer_config.json.
fn bert(config: Value) -> Result<Tokenizer, TokenizerError> {
    of(json!({
        "config.json": {"model_type": "bert"},
        "tokenizer_config.json": config,
        "vocab.txt": "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\na\n",
    }))
}

#[test]
fn unsupported_tokenizers_are_rejected_by_name() {
    for class in [
        "CodeGenTokenizer",
        "Qwen2TokenizerFast",
        "CLIPTokenizer",
        "BertweetTokenizer",
        "LukeTokenizer",
        "LlamaTokenizerFast",
        "GPTNeoXTokenizerFast",
        "BloomTokenizerFast",
        "XLNetTokenizer",
        "FunnelTokenizer",
        "FNetTokenizer",
        "LayoutLMTokenizer",
        "GPT2Tokenizer",
    ] {
        // No other file is read.
        let error = of(json!({
            "config.json": {"model_type": "bert"},
            "tokenizer_config.json": {"tokenizer_class": class},
            "tokenizer.json": "no JSON",
        }))
        .unwrap_err();
        assert!(matches!(&error, TokenizerError::Unsupported(name) if name == class), "{error}");
        let message = error.to_string();
        assert!(
            message.contains(class) && message.contains("supported are BertTokenizer"),
            "{message}"
        );
    }
    for (kind, value) in
        [("word_tokenizer_type", "sudachi"), ("subword_tokenizer_type", "sentencepiece")]
    {
        let error =
            bert(json!({"tokenizer_class": "BertJapaneseTokenizer", kind: value})).unwrap_err();
        assert!(error.to_string().contains(value), "{error}");
    }
}

/// A tokenizer.json with a model and other parts.
fn generic(model: Value, parts: Value) -> Result<Tokenizer, TokenizerError> {
    let mut tokenizer = json!({ "model": model });
    tokenizer.as_object_mut().unwrap().extend(parts.as_object().unwrap().clone());
    of(json!({
        "config.json": {"model_type": "bert"},
        "tokenizer_config.json": {"tokenizer_class": "PreTrainedTokenizerFast"},
        "tokenizer.json": tokenizer,
    }))
}

#[test]
fn unsupported_tokenizer_json_is_rejected() {
    let ids = json!({"<s>": 0, "<pad>": 1, "</s>": 2, "<unk>": 3, "a": 4});
    let byte_level = json!({"type": "ByteLevel", "add_prefix_space": false, "use_regex": true});
    let around = json!({"type": "RobertaProcessing", "cls": ["<s>", 0], "sep": ["</s>", 2]});
    let refused = [
        // Llama: BPE on characters.
        (json!({"type": "BPE", "vocab": ids, "merges": []}), json!({"post_processor": around})),
        // Qwen: another pre-tokenizer.
        (
            json!({"type": "BPE", "vocab": ids, "merges": []}),
            json!({"post_processor": around, "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
                {"type": "Split", "pattern": {"Regex": "x"}}, byte_level]}}),
        ),
        // CLIP: end-of-word suffixes.
        (
            json!({"type": "BPE", "vocab": ids, "merges": [], "end_of_word_suffix": "</w>"}),
            json!({"post_processor": around, "pre_tokenizer": byte_level}),
        ),
        (json!({"type": "WordLevel", "vocab": ids}), json!({})),
        // No tokens around a text, and none of a known class in the vocabulary.
        (
            json!({"type": "Unigram", "vocab": [["<pad>", 0.0], ["</s>", 0.0], ["<unk>", 0.0]]}),
            json!({}),
        ),
    ];
    for (model, parts) in refused {
        let error = generic(model.clone(), parts).unwrap_err();
        assert!(matches!(error, TokenizerError::Unsupported(_)), "{model}: {error}");
    }
    let word_piece =
        json!({"type": "WordPiece", "vocab": {"[PAD]": 0, "[UNK]": 1, "[CLS]": 2, "[SEP]": 3}});
    let around = json!({"type": "BertProcessing", "cls": ["[CLS]", 2], "sep": ["[PAD]", 0]});
    let error = generic(word_piece.clone(), json!({"post_processor": around})).unwrap_err();
    assert!(matches!(error, TokenizerError::OtherToken { role: "pad_token", .. }), "{error}");
    let bare = generic(word_piece, json!({})).unwrap();
    assert_eq!(bare.single.unwrap().special_tokens(), 0);
    let around = json!({"type": "RobertaProcessing", "cls": ["<s>", 0], "sep": ["</s>", 2]});
    let error = generic(json!({"type": "Unigram", "vocab": ids}), json!({})).unwrap_err();
    assert!(matches!(error, TokenizerError::Broken { .. }), "{error}");
    let merges = json!({"type": "BPE", "vocab": ids, "merges": ["a b"]});
    let error = generic(merges, json!({"post_processor": around, "pre_tokenizer": byte_level}))
        .unwrap_err();
    assert!(error.to_string().contains("a b"), "{error}");
    let error = generic(
        json!({"type": "BPE", "vocab": ids, "merges": []}),
        json!({"post_processor": around, "pre_tokenizer": byte_level}),
    )
    .unwrap_err();
    assert!(matches!(error, TokenizerError::NoMerges("roberta")), "{error}");
}

/// A Unigram tokenizer.json of a class, with the given tokens around a text.
fn unigram(class: &str, tokens: &[&str], single: Value, normalizer: Value) -> Tokenizer {
    let vocabulary: Vec<Value> =
        tokens.iter().enumerate().map(|(id, token)| json!([token, -(id as f64)])).collect();
    let ids: serde_json::Map<String, Value> = tokens
        .iter()
        .enumerate()
        .map(|(id, token)| ((*token).to_owned(), json!({ "id": token, "ids": [id] })))
        .collect();
    of(json!({
        "config.json": {"model_type": "t5"},
        "tokenizer_config.json": {"tokenizer_class": class},
        "tokenizer.json": {
            "normalizer": normalizer,
            "post_processor": {
                "type": "TemplateProcessing", "single": single, "special_tokens": ids,
            },
            "model": {"type": "Unigram", "unk_id": 2, "vocab": vocabulary},
        },
    }))
    .unwrap()
}

#[test]
fn t5_vocabulary_gets_the_first_token_of_a_row() {
    let after = json!([{"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": {"id": "</s>", "type_id": 0}}]);
    let precompiled = json!({"type": "Precompiled"});
    for class in ["T5Tokenizer", "T5TokenizerFast", "PreTrainedTokenizerFast"] {
        let tokens = ["<pad>", "</s>", "<unk>", "▁a"];
        let mut tokenizer = unigram(class, &tokens, after.clone(), precompiled.clone());
        assert_eq!(tokenizer.kind.name(), "xlm_roberta", "{class}");
        tokenizer.append_tokens();
        let uploaded = &tokenizer.vocabulary;
        assert_eq!(*uploaded.vocabulary, ["<pad>", "</s>", "<unk>", "▁a", "<s>"]);
        assert_eq!(uploaded.scores.as_deref(), Some(&[0., -1., -2., -3., 0.][..]));
        assert!(tokenizer.drops_first());
        assert_eq!((tokenizer.first, tokenizer.model_tokens()), (4, 4));
        let special = tokenizer.special;
        assert_eq!((special.padding, special.separator), (0, 1));
        assert_eq!(special.without_embedding.unwrap().replacement, 2);
    }
}

#[test]
fn albert_tokenizer_that_changes_texts_is_approximated() {
    let around = json!([
        {"SpecialToken": {"id": "[CLS]", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}},
        {"SpecialToken": {"id": "[SEP]", "type_id": 0}},
    ]);
    let read = |normalizers: Value| {
        let tokens = ["<pad>", "▁a", "<unk>", "[CLS]", "[SEP]", "[MASK]"];
        let normalizer = json!({"type": "Sequence", "normalizers": normalizers});
        unigram("AlbertTokenizer", &tokens, around.clone(), normalizer)
    };
    let plain = read(json!([{"type": "Precompiled"}]));
    assert_eq!(plain.adaptation, Adaptation::Adapted);
    assert!(!plain.lower_cases);
    let changing = read(
        json!([{"type": "NFKD"}, {"type": "StripAccents"}, {"type": "Lowercase"}, {"type": "Precompiled"}]),
    );
    assert_eq!(changing.adaptation, Adaptation::Approximated);
    assert!(changing.lower_cases);
    for part in ["lower-cases", "removes accents", "<s>"] {
        assert!(changing.warnings.iter().any(|it| it.contains(part)), "{:?}", changing.warnings);
    }
    let renamed = ["<pad>", "▁a", "<unk>", "<s>", "</s>", "<mask>"];
    assert_eq!(*changing.vocabulary.vocabulary, renamed);
}

fn warns(tokenizer: Result<Tokenizer, TokenizerError>, of: &str) {
    let warnings = tokenizer.unwrap().warnings;
    assert!(warnings.iter().any(|warning| warning.contains(of)), "{of}: {warnings:?}");
}

#[test]
fn differences_of_the_server_tokenizer_are_reported() {
    warns(bert(json!({"strip_accents": false})), "strip_accents false");
    warns(bert(json!({"do_lower_case": false, "strip_accents": true})), "strip_accents true");
    warns(bert(json!({"tokenize_chinese_chars": false})), "Chinese");
    warns(bert(json!({"do_basic_tokenize": false})), "punctuation");
    warns(bert(json!({"never_split": ["x"]})), "never_split");
    warns(bert(json!({"truncation_side": "left"})), "truncation_side left");
    warns(bert(json!({"unk_token": "<gone>"})), "unk_token");
    let japanese = |word: &str, subword: &str| {
        bert(json!({
            "tokenizer_class": "BertJapaneseTokenizer",
            "word_tokenizer_type": word,
            "subword_tokenizer_type": subword,
            "do_lower_case": true,
        }))
    };
    warns(japanese("mecab", "wordpiece"), "Kuromoji");
    warns(japanese("mecab", "wordpiece"), "voicing marks");
    warns(japanese("mecab", "character"), "becomes [UNK] unless");
    warns(japanese("basic", "wordpiece"), "Chinese");
    assert!(bert(json!({"tokenizer_class": "BertTokenizer"})).unwrap().warnings.is_empty());

    let deberta = |config: Value| {
        let files = json!({"tokenizer_config.json": config});
        read(folder(Some("deberta-v2/base"), &[], files.as_object().unwrap()).path())
    };
    warns(deberta(json!({"do_lower_case": true})), "lower-cases");
    warns(deberta(json!({"split_by_punct": true})), "split_by_punct");
    assert!(
        !deberta(json!({"do_lower_case": true})).unwrap().settings.contains_key("do_lower_case")
    );
    let mut tokenizer = deberta(json!({})).unwrap();
    tokenizer.lower_case();
    warns(Ok(tokenizer), "sentence_bert_config.json");
    let mut tokenizer = bert(json!({"do_lower_case": false})).unwrap();
    tokenizer.lower_case();
    assert_eq!(tokenizer.settings["do_lower_case"], false);
    warns(Ok(tokenizer), "do_lower_case is not sent");

    let cased = json!({
        "config.json": {"model_type": "bert"},
        "vocab.txt": "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nthe\nThe\n",
    });
    assert_eq!(of(cased).unwrap().vocabulary.vocabulary[5..], ["the", "The [id 6]"]);
    warns(
        of(json!({
            "config.json": {"model_type": "roberta"},
            "vocab.json": {"<s>": 0, "<pad>": 1, "</s>": 2, "<unk>": 3, "a": 4, "b": 5, "ab": 6},
            "merges.txt": "#version: 0.2\na b\na c\n",
        })),
        r#"a c); texts"#,
    );
}

/// The source that decides the class, and the contradictory sources that are reported.
#[test]
fn tokenizer_class_comes_from_name_model_type_or_content() {
    let bert = json!({"type": "WordPiece", "vocab": {"[PAD]": 0, "[UNK]": 1, "[CLS]": 2, "[SEP]": 3, "[MASK]": 4, "<s>": 5, "</s>": 6,
        "<pad>": 7, "<mask>": 8}});
    let around = |first: &str, last: &str| json!({"type": "BertProcessing", "cls": [first, 0], "sep": [last, 0]});
    let read = |class: Option<&str>, model_type: Option<&str>, [first, last]: [&str; 2]| {
        of(json!({
            "config.json": {"model_type": model_type},
            "tokenizer_config.json": {"tokenizer_class": class},
            "tokenizer.json": {"model": bert, "post_processor": around(first, last)},
        }))
    };
    let (cls, s) = (["[CLS]", "[SEP]"], ["<s>", "</s>"]);
    use TokenizerKind::{Bert, MpNet};
    for (class, model_type, content, kind, reported) in [
        (Some("BertTokenizer"), Some("bert"), cls, Bert, &[][..]),
        (Some("MPNetTokenizer"), Some("bert"), s, MpNet, &["model_type bert means"]),
        (None, Some("mpnet"), s, MpNet, &[]),
        (None, Some("nobody-knows"), s, MpNet, &[]),
        (None, None, cls, Bert, &[]),
    ] {
        let tokenizer = read(class, model_type, content).unwrap();
        assert_eq!(tokenizer.kind, kind, "{class:?} {model_type:?}");
        let disagree = |warning: &&String| warning.contains("disagree");
        let warnings: Vec<_> = tokenizer.warnings.iter().filter(disagree).collect();
        assert_eq!(warnings.len(), reported.len(), "{warnings:?}");
        assert!(warnings.iter().zip(reported).all(|(warning, part)| warning.contains(part)));
    }
    // If the slow files support the named class, the other two sources are reported.
    let all = of(json!({
        "config.json": {"model_type": "mpnet"},
        "tokenizer_config.json": {"tokenizer_class": "BertTokenizer"},
        "vocab.txt": "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\n",
        "tokenizer.json": {"model": bert, "post_processor": around("<s>", "</s>")},
    }))
    .unwrap();
    assert_eq!(all.kind, Bert);
    for part in [
        "model_type mpnet means Elasticsearch's mpnet; bert is used",
        "the content of tokenizer.json means",
    ] {
        assert!(all.warnings.iter().any(|warning| warning.contains(part)), "{:?}", all.warnings);
    }
    // Where nothing else holds a vocabulary, the tokens of the template are renamed.
    warns(read(Some("BertTokenizer"), Some("bert"), s), "<s> → [CLS], </s> → [SEP]");
}

#[test]
fn sentencepiece_model_is_found_under_every_name() {
    let whole = read(&fixtures().join("xlm-roberta/base/model")).unwrap();
    for name in ["spiece.model", "spm.model"] {
        let without = ["tokenizer.json".to_owned()];
        let folder = folder(Some("xlm-roberta/base"), &without, &Map::new());
        fs::rename(folder.path().join("sentencepiece.bpe.model"), folder.path().join(name))
            .unwrap();
        assert_eq!(read(folder.path()).unwrap().vocabulary, whole.vocabulary, "{name}");
    }
}

#[test]
fn special_tokens_with_other_names_are_renamed_in_the_upload() {
    // Elasticsearch looks for its own names.
    let named = json!({"pad_token": "<blank>", "cls_token": "[CLS]"});
    let vocabulary = |padding: &str| format!("{padding}\n[UNK]\n[CLS]\n[SEP]\n[MASK]\na\n");
    let with = |padding: &str, config: &Value| {
        of(json!({
            "config.json": {"model_type": "bert"},
            "tokenizer_config.json": config,
            "vocab.txt": vocabulary(padding),
        }))
    };
    let renamed = with("<blank>", &named).unwrap();
    assert_eq!((renamed.special.padding, renamed.vocabulary.vocabulary[0].as_str()), (0, "[PAD]"));
    warns(Ok(renamed), "<blank> → [PAD]");
    // A role whose token no file holds cannot be renamed.
    let error = with("<blank>", &json!({})).unwrap_err();
    assert!(error.to_string().contains("lack [PAD]"), "{error}");
    assert_eq!(with("[PAD]", &json!({})).unwrap().special.padding, 0);
    for (role, token) in [("cls_token", "[MASK]"), ("sep_token", "[MASK]")] {
        let error = with("[PAD]", &json!({ role: token })).unwrap_err();
        assert!(matches!(error, TokenizerError::OtherToken { .. }), "{error}");
        assert!(error.to_string().contains("every text would get wrong tokens"), "{error}");
    }
    for role in ["unk_token", "mask_token"] {
        let renamed = with("[PAD]", &json!({ role: "a" })).unwrap();
        let server = if role == "unk_token" { "[UNK]" } else { "[MASK]" };
        assert_eq!(renamed.vocabulary.vocabulary[5], server);
        assert!(!renamed.vocabulary.vocabulary[..5].contains(&server.to_owned()));
    }
}

#[cfg(feature = "torch")]
#[test]
fn lower_casing_before_the_tokenizer_is_not_sent() {
    let folder = tempfile::tempdir().unwrap();
    let model = crate::fixtures::Fixture::named("bert/st-mean").model();
    crate::fixtures::copy(&model, folder.path());
    let settings = |lower: bool, cased: bool| {
        for (name, key) in [("sentence_bert_config.json", lower), ("tokenizer_config.json", !cased)]
        {
            let path = folder.path().join(name);
            let text = fs::read_to_string(&path).unwrap_or_else(|_| "{}".into());
            let mut json: Value = serde_json::from_str(&text).unwrap();
            json["do_lower_case"] = key.into();
            fs::write(path, json.to_string()).unwrap();
        }
        let files = ModelFiles::open(folder.path()).unwrap();
        let options = Options::of_task(Task::TextEmbedding);
        Conversion::read(&files, options, &rust_eland::observer::Progress::quiet())
            .unwrap()
            .tokenizer()
            .settings["do_lower_case"]
            .clone()
    };
    assert_eq!(settings(false, true), false);
    // Elasticsearch would strip the accents too.
    assert_eq!(settings(true, true), false);
    assert_eq!(settings(false, false), true);
}

#[test]
fn contradictory_tokenizer_files_are_reported() {
    let normalizer = |lowercase| {
        let tokenizer = json!({"normalizer": {"type": "BertNormalizer", "lowercase": lowercase}, "model": {
            "type": "WordPiece", "vocab": {"[PAD]": 0, "[UNK]": 1, "[CLS]": 2, "[SEP]": 3, "[MASK]": 4, "b": 5}}});
        of(json!({
            "config.json": {"model_type": "bert"},
            "vocab.txt": "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\na\n",
            "tokenizer.json": tokenizer,
        }))
    };
    warns(normalizer(false), "has lowercase false");
    assert_eq!(normalizer(false).unwrap().settings["do_lower_case"], true);
    warns(normalizer(true), r#""a" has 5 and none, "b" has none and 5"#);
    warns(
        bert(json!({"tokenizer_class": "MPNetTokenizer", "cls_token": "<s>"}))
            .or_else(|_| mpnet_in_bert()),
        "model_type bert",
    );
    let broken = of(json!({
        "config.json": {"model_type": "bert"},
        "vocab.txt": "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\na\n",
        "tokenizer.json": "{",
    }));
    warns(broken, "vocab.txt is used instead");
    warns(bert(json!({"cls_token": "a"})), "a → [CLS]");
}

fn mpnet_in_bert() -> Result<Tokenizer, TokenizerError> {
    of(json!({
        "config.json": {"model_type": "bert", "tokenizer_class": "MPNetTokenizer"},
        "vocab.txt": "<s>\n<pad>\n</s>\n[UNK]\n<mask>\n",
    }))
}

#[test]
fn damaged_files_are_rejected() {
    let bare = |files: Value| {
        let mut all = json!({"config.json": {"model_type": "bert"}});
        all.as_object_mut().unwrap().extend(files.as_object().unwrap().clone());
        of(all).unwrap_err().to_string()
    };
    assert!(bare(json!({})).contains("no vocab.txt and no tokenizer.json"));
    assert!(bare(json!({"vocab.txt": ""})).contains("vocab.txt contains no tokens"));
    assert!(
        bare(json!({"vocab.txt": "a\n"})).contains("lack [PAD]"),
        "{}",
        bare(json!({"vocab.txt": "a\n"}))
    );
    assert!(bare(json!({"tokenizer.json": "{"})).contains("tokenizer.json cannot be used"));
    let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n";
    assert!(bare(json!({"tokenizer.json": pointer})).contains("git lfs pull"));
    let far = json!({"[PAD]": 0, "[UNK]": 4_000_000_000_u32});
    let far = json!({"tokenizer.json": {"model": {"type": "WordPiece", "vocab": far}}});
    assert!(bare(far).contains("has the id 4000000003"));
    let unrelated = json!({
        "config.json": {"model_type": "roberta"},
        "vocab.json": {"<s>": 0},
        "merges.txt": "#version: 0.2\na b\n",
    });
    assert!(bare(unrelated).contains("do not belong together"));
    let mut model = json!({"config.json": {"model_type": "xlm-roberta"}});
    for (content, wanted) in
        [("", "no tokens"), ("hello", "not a SentencePiece model"), (pointer, "git lfs pull")]
    {
        model["sentencepiece.bpe.model"] = content.into();
        assert!(bare(model.clone()).contains(wanted), "{}", bare(model.clone()));
    }
}

#[test]
fn vocabulary_larger_than_the_embeddings_is_rejected() {
    let mut tokenizer = bert(json!({})).unwrap();
    assert!(tokenizer.check_embeddings(6).is_ok() && tokenizer.check_embeddings(100).is_ok());
    assert!(matches!(
        tokenizer.check_embeddings(5),
        Err(TokenizerError::TooLarge { tokens: 6, rows: 5 })
    ));
    // Transformers adds a mask token that is missing in the files.
    let without_mask = json!({
        "config.json": {"model_type": "bert"},
        "vocab.txt": "[PAD]\n[UNK]\n[CLS]\n[SEP]\na\n",
    });
    let mut tokenizer = of(without_mask).unwrap();
    assert_eq!(tokenizer.vocabulary.vocabulary.len(), 6);
    tokenizer.check_embeddings(5).unwrap();
    assert_eq!(tokenizer.vocabulary.vocabulary.len(), 5);
    warns(Ok(tokenizer), "left out of the vocabulary");
}

#[test]
fn scores_are_written_with_a_decimal_point() {
    let tokenizer = read(&fixtures().join("xlm-roberta/base/model")).unwrap();
    let text = serde_json::to_string(&tokenizer.vocabulary).unwrap();
    assert!(text.contains(r#""scores":[0.0,0.0,0.0,0.0,-2.5"#) && !text.contains("merges"));
    let tokenizer = read(&fixtures().join("bert/base/model")).unwrap();
    assert!(!serde_json::to_string(&tokenizer.vocabulary).unwrap().contains("scores"));
}
