//! Byte-level BPE with other special tokens than RoBERTa's: names, appended tokens, and the ids that Elasticsearch computes.

use rust_eland::server_tokenization::{NO_SPAN, Truncate, byte_symbols};
use rust_eland::tokenizer::{RowLayout, Tokenizer, TokenizerError, TokenizerKind};
use serde_json::{Value, json};

use crate::tokenizer_files::{Files, server};

const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";
const QWEN2: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

impl Files {
    /// The layout of ModernBERT: special tokens `[CLS] [SEP] [PAD] [UNK] [MASK]` after the bytes and the merges, and runs of spaces as added
    /// tokens.
    fn modern_bert() -> Self {
        let merges = ["t h", "Ġ th", "Ġth e", "i n", "Ġ a", "- o", "o f", "Ã ©", ". c"];
        let mut tokens: Vec<String> = byte_symbols().map(String::from).collect();
        tokens.extend(merges.iter().map(|merge| merge.replace(' ', "")));
        let first = tokens.len();
        tokens.extend(["[UNK]", "[CLS]", "[SEP]", "[PAD]", "[MASK]", "  "].map(str::to_owned));
        let ids: serde_json::Map<String, Value> =
            tokens.iter().enumerate().map(|(id, token)| (token.clone(), id.into())).collect();
        let added: Vec<Value> = tokens[first..]
            .iter()
            .enumerate()
            .map(|(at, token)| {
                json!({"id": first + at, "content": token, "single_word": false, "lstrip": token == "[MASK]",
                    "rstrip": false, "normalized": false, "special": token != "  "})
            })
            .collect();
        let token = |name: &str| json!({"SpecialToken": {"id": name, "type_id": 0}});
        let text = |name: &str| json!({"Sequence": {"id": name, "type_id": 0}});
        let special = |name: &str| json!({"id": name, "ids": [ids[name]], "tokens": [name]});
        Self {
            config: json!({
                "tokenizer_class": "PreTrainedTokenizerFast", "cls_token": "[CLS]", "sep_token": "[SEP]", "pad_token": "[PAD]",
                "unk_token": "[UNK]", "mask_token": "[MASK]", "model_max_length": 8192,
                "model_input_names": ["input_ids", "attention_mask"],
            }),
            tokenizer: json!({
                "version": "1.0",
                "added_tokens": added,
                "normalizer": {"type": "NFC"},
                "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
                "post_processor": {
                    "type": "TemplateProcessing",
                    "single": [token("[CLS]"), text("A"), token("[SEP]")],
                    "pair": [token("[CLS]"), text("A"), token("[SEP]"), text("B"), token("[SEP]")],
                    "special_tokens": {"[CLS]": special("[CLS]"), "[SEP]": special("[SEP]")},
                },
                "decoder": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
                "model": {"type": "BPE", "unk_token": null, "vocab": ids, "merges": merges},
            }),
        }
    }

    /// Replaces the step that splits words by an expression.
    fn splitting(mut self, expression: &str) -> Self {
        self.tokenizer["pre_tokenizer"] = json!({"type": "Sequence", "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": expression}, "behavior": "Isolated", "invert": false},
            {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false},
        ]});
        self
    }
}

/// Asserts that Elasticsearch computes the ids of the model's own tokenizer.
fn assert_same_ids(files: &Files, tokenizer: &Tokenizer, texts: &[&str]) {
    let (model, server) = (files.model(), server(tokenizer));
    for text in texts {
        let rows = server.single(text, Truncate::First, NO_SPAN).unwrap();
        assert_eq!(rows[0].ids, model.ids(text, None).unwrap(), "{text:?}");
    }
}

const TEXTS: [&str; 6] = [
    "the thin-of the, a.com in the café's",
    "it's 42 <3 'quoted' (the) state-of-the-art",
    "é 東京 мир 😀",
    " a\nthe",
    "the [MASK] in",
    "",
];

#[test]
fn special_tokens_with_other_names_are_renamed_with_the_same_ids() {
    let files = Files::modern_bert();
    let tokenizer = files.read().unwrap();
    assert_eq!(tokenizer.kind, TokenizerKind::Roberta);
    assert_eq!(tokenizer.settings["add_prefix_space"], false);
    let tokens = &tokenizer.vocabulary.vocabulary;
    assert_eq!(tokens.len(), 271);
    assert_eq!(tokens[265..], ["<unk>", "<s>", "</s>", "<pad>", "<mask>", "  "]);
    assert_eq!((tokenizer.special.padding, tokenizer.special.separator), (268, 267));
    assert_eq!(tokenizer.first, 266);
    assert_eq!(tokenizer.max_length, Some(8192));
    assert_eq!(tokenizer.pair, Ok(RowLayout::of_server(266, 267, Some(1))));
    let texts: Vec<String> = TEXTS.map(|text| text.replace("[MASK]", "<mask>")).to_vec();
    let served = server(&tokenizer);
    let model = files.model();
    for (text, own) in texts.iter().zip(TEXTS) {
        let rows = served.single(text, Truncate::First, NO_SPAN).unwrap();
        assert_eq!(rows[0].ids, model.ids(own, None).unwrap(), "{text:?}");
    }
    let warnings = tokenizer.warnings.join("\n");
    for part in [
        "[CLS] → <s>, [SEP] → </s>, [PAD] → <pad>, [UNK] → <unk>, [MASK] → <mask>",
        "NFC",
        "splits 1 added tokens",
    ] {
        assert!(warnings.contains(part), "{part}: {warnings}");
    }
}

#[test]
fn byte_level_bpe_keeps_the_names() {
    let files = Files::modern_bert();
    let mut tokenizer = files.read().unwrap();
    tokenizer.keep_names();
    assert_eq!(tokenizer.kind, TokenizerKind::ByteLevelBpe);
    assert_eq!(
        Value::Object(tokenizer.settings.clone()),
        json!({"add_prefix_space": false, "unk_token": "[UNK]", "pad_token": "[PAD]", "bos_token": "[CLS]", "eos_token": "[SEP]",
            "mask_token": "[MASK]"})
    );
    assert_eq!(
        tokenizer.vocabulary.vocabulary[265..270],
        ["[UNK]", "[CLS]", "[SEP]", "[PAD]", "[MASK]"]
    );
    assert_eq!(tokenizer.mask_token(), "[MASK]");
    assert!(!tokenizer.warnings.iter().any(|warning| warning.contains("renamed")));
    assert_same_ids(&files, &tokenizer, &TEXTS);
}

#[test]
fn tokens_that_elasticsearch_requires_are_appended() {
    let mut files = Files::modern_bert();
    files.config["unk_token"] = Value::Null;
    // The token at the end of a text also fills rows.
    files.config["pad_token"] = "[SEP]".into();
    let mut tokenizer = files.read().unwrap();
    tokenizer.check_embeddings(271).unwrap();
    tokenizer.append_tokens();
    let tokens = &tokenizer.vocabulary.vocabulary;
    assert_eq!(tokens[271..], ["<unk>", "<pad>"]);
    assert_eq!(tokens[265..268], ["[UNK]", "<s>", "</s>"]);
    assert_eq!((tokenizer.special.padding, tokenizer.special.separator), (272, 267));
    assert_eq!(tokenizer.special.without_embedding.map(|tokens| tokens.first), Some(271));
    assert_eq!(tokenizer.model_tokens(), 271);
    assert!(tokenizer.warnings.iter().any(|it| it.ends_with("requires them: <unk>, <pad>")));
    assert_same_ids(&files, &tokenizer, &TEXTS[..4]);
    // A text could contain a byte without a token.
    files.tokenizer["model"]["vocab"].as_object_mut().unwrap().remove("Ń");
    assert!(matches!(files.read(), Err(TokenizerError::OtherToken { role: "pad_token", .. })));
}

#[test]
fn word_split_of_another_model_is_exact_approximated_or_refused() {
    let exact = Files::modern_bert().splitting(GPT2);
    let tokenizer = exact.read().unwrap();
    let notes = |tokenizer: &Tokenizer| tokenizer.warnings.join("\n");
    assert!(!notes(&tokenizer).contains("expression"), "{}", notes(&tokenizer));
    assert_same_ids(&exact, &tokenizer, &TEXTS[..4]);
    let similar = Files::modern_bert().splitting(QWEN2).read().unwrap();
    assert!(notes(&similar).contains("the expression of Qwen 2"), "{}", notes(&similar));
    let error = Files::modern_bert().splitting(r"\p{Han}+|\s+").read().unwrap_err().to_string();
    assert!(error.contains(r"Elasticsearch does not split in this way: \p{Han}+|\s+"), "{error}");
    let mut whole = Files::modern_bert();
    whole.tokenizer["pre_tokenizer"]["use_regex"] = false.into();
    assert!(matches!(whole.read(), Err(TokenizerError::Unsupported(_))));
}
