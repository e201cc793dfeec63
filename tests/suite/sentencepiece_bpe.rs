//! SentencePiece BPE (Gemma) as byte-level BPE: the upload, and the ids that Elasticsearch computes, with a small tokenizer and with that of
//! Gemma 3 (`make gemma` downloads it).

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use rust_eland::config::ModelConfig;
use rust_eland::server_tokenization::{NO_SPAN, Truncate};
use rust_eland::source::ModelFiles;
use rust_eland::tokenizer::{
    Adaptation, ModelTokenizer, RowLayout, Tokenizer, TokenizerError, TokenizerKind,
};
use serde_json::{Value, json};

use crate::fixtures::Fixture;
use crate::program::downloaded;
use crate::tokenizer_files::{Files, server};

/// Merges of pieces, in the order of their ranks. All merges to `▁the` stand together, as in converted files.
const MERGES: [(&str, &str); 13] = [
    ("\n", "\n"),
    ("▁", "▁"),
    ("t", "h"),
    ("▁", "t"),
    ("▁t", "he"),
    ("▁th", "e"),
    ("c", "a"),
    ("é", "s"),
    ("ca", "f"),
    ("▁", "м"),
    ("и", "р"),
    ("東", "京"),
    ("क", "ा"),
];

impl Files {
    /// The layout of Gemma: special tokens, added tokens, bytes, characters, and merges.
    fn gemma() -> Self {
        let mut tokens: Vec<String> =
            ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>"].map(str::to_owned).into();
        tokens.extend(["<unused0>", "\n\n", "▁▁", "<table>", "<s>", "</s>"].map(str::to_owned));
        let added = tokens.len();
        tokens.extend((0..=u8::MAX).map(|byte| format!("<0x{byte:02X}>")));
        tokens.extend("▁abcdefghijlmnorstuwxyzTI,.-'()<>3é😀мир東京का\n".chars().map(String::from));
        for result in MERGES.map(|(a, b)| [a, b].concat()) {
            if !tokens.contains(&result) {
                tokens.push(result);
            }
        }
        tokens.extend(["he", "▁th"].map(str::to_owned));
        let mut merges: Vec<Value> = MERGES.map(|(a, b)| json!([a, b])).into();
        merges.insert(2, json!(["h", "e"]));
        let ids: serde_json::Map<String, Value> =
            tokens.iter().enumerate().map(|(id, token)| (token.clone(), id.into())).collect();
        let added: Vec<Value> = tokens[..added]
            .iter()
            .enumerate()
            .map(|(id, token)| {
                json!({"id": id, "content": token, "single_word": false, "lstrip": false, "rstrip": false,
                    "normalized": false, "special": id < 4})
            })
            .collect();
        let token = |name: &str| json!({"SpecialToken": {"id": name, "type_id": 0}});
        let text = |name: &str| json!({"Sequence": {"id": name, "type_id": 0}});
        let special = |name: &str| json!({"id": name, "ids": [ids[name]], "tokens": [name]});
        Self {
            config: json!({
                "tokenizer_class": "GemmaTokenizer", "bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<pad>",
                "unk_token": "<unk>", "mask_token": "<mask>", "add_bos_token": true, "add_eos_token": true,
                "model_max_length": 2048,
            }),
            tokenizer: json!({
                "version": "1.0",
                "added_tokens": added,
                "normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
                "pre_tokenizer": {"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious", "invert": false},
                "post_processor": {
                    "type": "TemplateProcessing",
                    "single": [token("<bos>"), text("A"), token("<eos>")],
                    "pair": [token("<bos>"), text("A"), token("<eos>"), text("B"), token("<eos>")],
                    "special_tokens": {"<bos>": special("<bos>"), "<eos>": special("<eos>")},
                },
                "model": {"type": "BPE", "unk_token": "<unk>", "fuse_unk": true, "byte_fallback": true, "vocab": ids,
                    "merges": merges},
            }),
        }
    }
}

#[test]
fn sentencepiece_bpe_becomes_byte_level_bpe_with_the_same_ids() {
    let files = Files::gemma();
    let mut tokenizer = files.read().unwrap();
    assert_eq!(tokenizer.kind, TokenizerKind::Roberta);
    assert_eq!(tokenizer.adaptation, Adaptation::Adapted);
    assert_eq!(tokenizer.settings["add_prefix_space"], false);
    let tokens = &tokenizer.vocabulary.vocabulary;
    assert_eq!(tokens[..4], ["<pad>", "</s>", "<s>", "<unk>"]);
    // Tags with the names of special tokens get other names.
    assert_eq!(tokens[6..11], ["ĊĊ", "ĠĠ", "<table>", "[unused id 9]", "[unused id 10]"]);
    assert_eq!(tokens[11 + 0x61], format!("[unused id {}]", 11 + 0x61));
    assert_eq!([&tokens[11 + 0x6b], &tokens[11 + 0xe6]], ["k", "æ"]);
    assert_eq!((tokenizer.special.padding, tokenizer.special.separator), (0, 1));
    assert_eq!(tokenizer.first, 2);
    assert_eq!(tokenizer.single, Ok(RowLayout::of_server(2, 1, None)));
    assert_eq!(tokenizer.pair, Ok(RowLayout::of_server(2, 1, Some(1))));
    assert_eq!(tokenizer.max_length, Some(2048));
    let warnings = tokenizer.warnings.join("\n");
    for part in ["inside of 1 tokens", ": का", "<bos> → <s>, <eos> → </s>", "splits 4 added tokens"]
    {
        assert!(warnings.contains(part), "{part}: {warnings}");
    }
    assert!(!warnings.contains("same result"), "{warnings}");
    tokenizer.append_tokens();
    assert_eq!(tokenizer.model_tokens(), tokenizer.vocabulary.vocabulary.len() as i64);
    let (served, model) = (server(&tokenizer), files.model());
    for text in [
        "the café's (thé) <3 мир 東京 😀",
        "the the, ath-the. I'm 3 kQ5",
        "zebra 東 京 é😀é the",
        "a\n\nthe<mask> the",
        "",
        " ",
    ] {
        let rows = served.single(text, Truncate::First, NO_SPAN).unwrap();
        assert_eq!(rows[0].ids, model.ids(text, None).unwrap(), "{text:?}");
    }
    // A combining mark is a word of its own, and the first bytes of an unknown character are merged.
    for text in ["का", "本 की 🎉"] {
        let rows = served.single(text, Truncate::First, NO_SPAN).unwrap();
        assert_ne!(rows[0].ids, model.ids(text, None).unwrap(), "{text:?}");
    }
}

#[test]
fn gemma_without_a_class_is_recognized_by_content() {
    let mut files = Files::gemma();
    files.config["tokenizer_class"] = "PreTrainedTokenizerFast".into();
    let tokenizer = files.read().unwrap();
    assert_eq!(tokenizer.kind, TokenizerKind::Roberta);
    assert_eq!(tokenizer.vocabulary.vocabulary[..3], ["<pad>", "</s>", "<s>"]);
    assert!(!tokenizer.warnings.iter().any(|warning| warning.contains("disagree")));
}

#[test]
fn rows_without_end_and_contradicting_flags_are_noted() {
    let mut files = Files::gemma();
    let post_processor = &mut files.tokenizer["post_processor"];
    post_processor["single"].as_array_mut().unwrap().pop();
    post_processor["pair"].as_array_mut().unwrap().pop();
    let tokenizer = files.read().unwrap();
    // The graph composes rows without the token that Elasticsearch requires.
    assert_eq!(tokenizer.special.separator, 1);
    assert_ne!(tokenizer.single, Ok(RowLayout::of_server(2, 1, None)));
    let warnings = tokenizer.warnings.join("\n");
    assert!(
        warnings.contains("add_eos_token true, but the post-processor has bos true, eos false")
    );
}

#[test]
fn other_sentencepiece_bpe_is_refused() {
    let refused = |change: &dyn Fn(&mut Value)| {
        let mut files = Files::gemma();
        change(&mut files.tokenizer);
        files.read().unwrap_err().to_string()
    };
    for error in [
        // Llama 2 puts a space before a text.
        refused(&|json| {
            json["normalizer"] = json!({"type": "Sequence", "normalizers": [
                {"type": "Prepend", "prepend": "▁"}, json["normalizer"]]});
        }),
        refused(&|json| json["model"]["byte_fallback"] = false.into()),
        refused(&|json| json["pre_tokenizer"] = json!({"type": "Whitespace"})),
    ] {
        assert!(error.contains("BPE of another kind than RoBERTa's"), "{error}");
    }
    let folder = Files::gemma().write();
    fs::remove_file(folder.path().join("tokenizer.json")).unwrap();
    fs::write(folder.path().join("tokenizer.model"), "").unwrap();
    let files = ModelFiles::open(folder.path()).unwrap();
    let error = Tokenizer::read(&files, &ModelConfig::read(&files).unwrap()).unwrap_err();
    assert!(error.to_string().contains("tokenizer.json"), "{error}");
}

#[test]
fn tokens_without_embedding_are_dropped_if_no_merge_results_in_them() {
    let mut files = Files::gemma();
    let vocabulary = files.tokenizer["model"]["vocab"].as_object().unwrap().len();
    files.tokenizer["added_tokens"].as_array_mut().unwrap().push(json!({
        "id": vocabulary, "content": "<image_soft_token>", "single_word": false, "lstrip": false, "rstrip": false,
        "normalized": false, "special": true}));
    let mut tokenizer = files.read().unwrap();
    let rows = i64::try_from(vocabulary).unwrap();
    tokenizer.check_embeddings(rows).unwrap();
    assert_eq!(tokenizer.vocabulary.vocabulary.len(), vocabulary);
    assert!(tokenizer.warnings.iter().any(|it| it.contains("<image_soft_token>")));
    // A merge results in one of the last tokens.
    let error = tokenizer.check_embeddings(rows - 2).unwrap_err();
    assert!(matches!(error, TokenizerError::TooLarge { .. }));
}

/// The texts of a fixture with their ids, which Transformers computed. Returns those with other ids in Elasticsearch.
fn different_texts(fixture: &str) -> Vec<String> {
    #[derive(serde::Deserialize)]
    struct Case {
        text: String,
        ids: Vec<u32>,
    }
    let fixture = Fixture::named(fixture);
    let files = ModelFiles::open(&fixture.model()).unwrap();
    let tokenizer = Tokenizer::read(&files, &ModelConfig::read(&files).unwrap()).unwrap();
    let served = server(&tokenizer);
    let cases = fs::read(fixture.model().parent().unwrap().join("tokens.json")).unwrap();
    let cases: Vec<Case> = serde_json::from_slice(&cases).unwrap();
    assert!(cases.len() > 60);
    let ids = |text: &str| served.single(text, Truncate::First, NO_SPAN).unwrap()[0].ids.clone();
    cases.into_iter().filter(|case| ids(&case.text) != case.ids).map(|case| case.text).collect()
}

#[test]
fn texts_of_the_fixtures_have_the_ids_of_transformers_except_named_ones() {
    // Runs of spaces, tags and special tokens, the separator of SentencePiece, and characters outside of the vocabulary that begin like
    // others.
    let expected = [
        "a  b",
        "<table><s>x</s></table>",
        "👍🏽 👨\u{200d}👩\u{200d}👧",
        "▁ ▁▁ x▁y",
        "A\u{200d}B",
        "<bos> <mask> <unk> <0x41>",
        "ﬁne ＡＢＣ",
    ];
    for fixture in ["gemma3/embeddinggemma-300m", "modernbert/mmbert-base"] {
        assert_eq!(different_texts(fixture), expected, "{fixture}");
    }
}

/// Folder in which `make gemma` stores the tokenizer.
fn gemma_3() -> PathBuf {
    downloaded("tokenizer-gemma3", "gemma")
}

/// Number of generated texts.
const TEXTS: usize = 2000;

/// Texts of a script, made from the sentences of the program: sentences, halves of two sentences, and both with other punctuation.
fn texts() -> BTreeMap<&'static str, Vec<String>> {
    let mut sentences: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    let mut script = "";
    for line in include_str!("../../src/conversion/prose.txt").lines() {
        match line.strip_prefix("== ") {
            Some(heading) => script = heading.split_once(' ').unwrap().1,
            None => sentences.entry(script).or_default().push(line),
        }
    }
    let mut texts: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    let half = |sentence: &str, first: bool| -> String {
        let characters: Vec<char> = sentence.chars().collect();
        let (start, end) = characters.split_at(characters.len() / 2);
        let half: String = if first { start } else { end }.iter().collect();
        half.trim().to_owned()
    };
    let joints = [" ", ", ", "\n", " (42%) ", "-", "…", "\" — \""];
    let mut made = 0;
    for round in 0.. {
        for (script, sentences) in &sentences {
            for (at, sentence) in sentences.iter().enumerate() {
                let other = sentences[(at + round) % sentences.len()];
                let joint = joints[round % joints.len()];
                let text = match round {
                    0 => (*sentence).to_owned(),
                    _ => half(sentence, true) + joint + &half(other, false),
                };
                texts.entry(script).or_default().push(text);
                made += 1;
                if made == TEXTS {
                    return texts;
                }
            }
        }
    }
    texts
}

#[test]
#[cfg_attr(not(feature = "torch"), ignore = "`make test` downloads the tokenizer")]
fn ids_of_gemma_3_are_equal_except_in_scripts_with_combining_marks() {
    let files = ModelFiles::open(&gemma_3()).unwrap();
    let config = ModelConfig::parse(serde_json::Map::from_iter([(
        "model_type".to_owned(),
        "gemma3_text".into(),
    )]));
    let tokenizer = Tokenizer::read(&files, &config).unwrap();
    assert_eq!(tokenizer.vocabulary.vocabulary.len(), 262_145);
    assert_eq!(tokenizer.vocabulary.merges.as_ref().unwrap().len(), 534_940);
    let served = server(&tokenizer);
    let model = ModelTokenizer::read(&files, 512).unwrap().unwrap();
    let mut shares = BTreeMap::new();
    for (script, texts) in texts() {
        let differs = |text: &&String| {
            let own: Vec<u32> = model.tokens(text).unwrap().iter().map(|token| token.id).collect();
            let server: Vec<u32> =
                served.tokens(text).unwrap().iter().map(|token| token.id).collect();
            own != server
        };
        let different = texts.iter().filter(differs).count();
        shares.insert(script, (different, texts.len()));
    }
    for (script, (different, texts)) in shares {
        match script {
            "Bengali" | "Devanagari" | "Tamil" | "Thai" => assert_eq!(different, texts, "{script}"),
            _ => assert_eq!(different, 0, "{script}, of {texts}"),
        }
    }
}
