//! Families of models that Elasticsearch cannot serve, by the signs in their small files.

use serde_json::Value;

use super::TensorShapes;

/// A family of models that Elasticsearch cannot serve.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refusal {
    /// The family, in the plural.
    pub family: &'static str,
    /// Why Elasticsearch cannot serve the family.
    pub reason: &'static str,
}

/// What the small files of a model declare. Missing files are null.
#[derive(Clone, Copy)]
pub struct Declared<'a> {
    /// `config.json`.
    pub config: &'a Value,
    /// `tokenizer_config.json`.
    pub tokenizer: &'a Value,
    /// `modules.json`.
    pub modules: &'a Value,
    /// Whether the repository has a file.
    pub has_file: &'a dyn Fn(&str) -> bool,
    /// The tensors of the checkpoint; `None` if they are unknown before a download.
    pub tensors: Option<&'a TensorShapes>,
}

/// A sign of a family.
#[derive(Debug)]
enum Sign {
    /// The `model_type` in `config.json`.
    ModelType(&'static str),
    /// The `model_type` in `config.json`, and a key beside it.
    ModelTypeWith(&'static str, &'static str),
    /// A key of `config.json`.
    Key(&'static str),
    /// A class in `architectures` of `config.json`.
    Class(&'static str),
    /// The beginning of a class in `modules.json`.
    Module(&'static str),
    /// The `tokenizer_class` in `tokenizer_config.json` or `config.json`, without `Fast`.
    TokenizerClass(&'static str),
    /// The `word_tokenizer_type` in `tokenizer_config.json`.
    WordTokenizer(&'static str),
    /// A file of the repository.
    File(&'static str),
    /// A projection `[dimension, hidden]` of each token, without bias and with this name.
    TokenProjection(&'static str),
}

use Sign::{
    Class, File, Key, ModelType, ModelTypeWith, Module, TokenProjection, TokenizerClass,
    WordTokenizer,
};

const MANY_VECTORS: &str = "they return one vector for each token, and Elasticsearch's tasks return one vector for each text";

/// Names of the families, their signs, and the reasons. The first family with a sign is named.
const FAMILIES: [(&str, &[Sign], &str); 10] = [
    (
        "ColBERT models",
        &[
            Class("HF_ColBERT"),
            Class("ColBERT"),
            Module("pylate."),
            Module("sentence_transformers.multi_vector"),
            File("artifact.metadata"),
            TokenProjection("linear.weight"),
        ],
        MANY_VECTORS,
    ),
    (
        "GLiNER models",
        &[File("gliner_config.json"), Key("ent_token"), ModelType("gliner")],
        "their labels are part of the text and their answers are spans, which no task of Elasticsearch reads",
    ),
    (
        "embedding models and rerankers based on Qwen",
        &[
            ModelType("qwen2"),
            ModelType("qwen2_5_vl"),
            ModelType("qwen2_vl"),
            ModelType("qwen3"),
            ModelType("qwen3_vl"),
            ModelType("jina_embeddings_v4"),
            ModelTypeWith("jina_embeddings_v5", "max_window_layers"),
        ],
        "Elasticsearch splits words with the expression of GPT-2 instead of Qwen's, so these decoders would read wrong tokens",
    ),
    (
        "embedding models based on Mistral, such as e5-mistral",
        &[ModelType("mistral")],
        "they are decoders of 7 billion parameters, which need 28 GB of memory in float32",
    ),
    (
        "layout models",
        &[
            ModelType("layoutlm"),
            ModelType("layoutlmv2"),
            ModelType("layoutlmv3"),
            ModelType("layoutxlm"),
            ModelType("lilt"),
            ModelType("markuplm"),
        ],
        "they read the position of each word on a page, which Elasticsearch does not send",
    ),
    (
        "BERTweet models",
        &[TokenizerClass("BertweetTokenizer")],
        "Elasticsearch has no tokenizer for their vocabulary of fastBPE",
    ),
    (
        "PhoBERT models",
        &[TokenizerClass("PhobertTokenizer")],
        "they read words segmented by VnCoreNLP, and Elasticsearch has no tokenizer for their vocabulary of fastBPE",
    ),
    (
        "models with a jieba tokenizer",
        &[
            TokenizerClass("RoFormerTokenizer"),
            TokenizerClass("CpmTokenizer"),
            ModelType("roformer"),
        ],
        "Elasticsearch cannot segment Chinese text with jieba",
    ),
    (
        "models with a Sudachi tokenizer",
        &[WordTokenizer("sudachi"), TokenizerClass("BertSudachipyTokenizer")],
        "Elasticsearch segments Japanese text with Kuromoji, not with Sudachi",
    ),
    (
        "models with a Juman++ tokenizer",
        &[WordTokenizer("jumanpp")],
        "Elasticsearch segments Japanese text with Kuromoji, not with Juman++",
    ),
];

impl Declared<'_> {
    /// The family that Elasticsearch cannot serve, if the files have one of its signs.
    #[must_use]
    pub fn refusal(&self) -> Option<Refusal> {
        let has_sign = |(_, signs, _): &&(&str, &[Sign], &str)| signs.iter().any(|it| self.has(it));
        let (family, _, reason) = FAMILIES.iter().find(has_sign)?;
        Some(Refusal { family, reason })
    }

    fn has(&self, sign: &Sign) -> bool {
        let text = |value: &Value, key: &str, wanted: &str| {
            value.get(key).and_then(Value::as_str).is_some_and(|found| found == wanted)
        };
        let is_type = |model_type| text(self.config, "model_type", model_type);
        let list =
            |value: Option<&Value>| value.and_then(Value::as_array).cloned().unwrap_or_default();
        let class_of_tokenizer = |value: &Value, wanted: &str| {
            let class = value.get("tokenizer_class").and_then(Value::as_str);
            class.is_some_and(|class| class.strip_suffix("Fast").unwrap_or(class) == wanted)
        };
        match sign {
            ModelType(model_type) => is_type(model_type),
            ModelTypeWith(model_type, key) => {
                is_type(model_type) && self.config.get(key).is_some_and(|value| !value.is_null())
            }
            Key(key) => self.config.get(key).is_some_and(|value| !value.is_null()),
            Class(class) => list(self.config.get("architectures")).iter().any(|it| it == class),
            Module(beginning) => list(Some(self.modules)).iter().any(|module| {
                let class = module.get("type").and_then(Value::as_str);
                class.is_some_and(|class| class.starts_with(beginning))
            }),
            TokenizerClass(class) => {
                class_of_tokenizer(self.tokenizer, class) || class_of_tokenizer(self.config, class)
            }
            WordTokenizer(kind) => text(self.tokenizer, "word_tokenizer_type", kind),
            File(name) => (self.has_file)(name),
            TokenProjection(name) => self.tensors.is_some_and(|tensors| {
                let bias = name.replace("weight", "bias");
                matches!(tensors.get(*name).map(Vec::as_slice), Some([rows, columns]) if rows < columns)
                    && !tensors.contains_key(&bias)
                    && !tensors.keys().any(|name| name.starts_with("classifier."))
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// The family of a repository with these files and tensors.
    fn family(
        config: Value,
        tokenizer: Value,
        modules: Value,
        files: &[&str],
        tensors: &[(&str, [i64; 2])],
    ) -> Option<&'static str> {
        let tensors =
            tensors.iter().map(|(name, shape)| ((*name).to_owned(), shape.to_vec())).collect();
        let declared = Declared {
            config: &config,
            tokenizer: &tokenizer,
            modules: &modules,
            has_file: &|name| files.contains(&name),
            tensors: Some(&tensors),
        };
        declared.refusal().map(|refusal| refusal.family)
    }

    #[test]
    fn families_are_recognized_by_each_kind_of_sign() {
        let none = || Value::Null;
        let of_config = |config: Value| family(config, none(), none(), &[], &[]);
        let of_tokenizer = |tokenizer: Value| family(none(), tokenizer, none(), &[], &[]);
        let colbert = Some("ColBERT models");
        assert_eq!(
            of_config(json!({"architectures": ["HF_ColBERT"], "model_type": "bert"})),
            colbert
        );
        let modules = json!([{"type": "sentence_transformers.models.Transformer"}, {"type": "pylate.models.Dense.Dense"}]);
        assert_eq!(family(none(), none(), modules, &[], &[]), colbert);
        assert_eq!(family(none(), none(), none(), &["artifact.metadata"], &[]), colbert);
        let projection = [("bert.embeddings.LayerNorm.weight", [1, 8]), ("linear.weight", [4, 8])];
        assert_eq!(family(none(), none(), none(), &[], &projection), colbert);
        assert_eq!(family(none(), none(), none(), &[], &[("linear.weight", [8, 8])]), None);
        assert_eq!(
            family(none(), none(), none(), &["gliner_config.json"], &[]),
            Some("GLiNER models")
        );
        let qwen = Some("embedding models and rerankers based on Qwen");
        assert_eq!(of_config(json!({"model_type": "qwen3"})), qwen);
        let small = json!({"model_type": "jina_embeddings_v5", "max_window_layers": 28});
        assert_eq!(of_config(small), qwen);
        assert_eq!(
            of_config(json!({"model_type": "jina_embeddings_v5", "is_decoder": false})),
            None
        );
        let mistral = of_config(json!({"model_type": "mistral"})).unwrap();
        assert!(mistral.contains("e5-mistral"));
        assert_eq!(of_config(json!({"model_type": "layoutlmv3"})), Some("layout models"));
        let tweets = json!({"model_type": "roberta", "tokenizer_class": "BertweetTokenizer"});
        assert_eq!(of_config(tweets), Some("BERTweet models"));
        let phobert = json!({"tokenizer_class": "PhobertTokenizerFast"});
        assert_eq!(of_tokenizer(phobert), Some("PhoBERT models"));
        let jieba = json!({"tokenizer_class": "RoFormerTokenizer"});
        assert_eq!(of_tokenizer(jieba), Some("models with a jieba tokenizer"));
        let sudachi =
            json!({"tokenizer_class": "BertJapaneseTokenizer", "word_tokenizer_type": "sudachi"});
        assert_eq!(of_tokenizer(sudachi), Some("models with a Sudachi tokenizer"));
        let chitra = json!({"tokenizer_class": "BertSudachipyTokenizer"});
        assert_eq!(of_tokenizer(chitra), Some("models with a Sudachi tokenizer"));
        let served = json!({"model_type": "bert", "architectures": ["BertModel"]});
        let mecab = json!({"word_tokenizer_type": "mecab"});
        assert_eq!(family(served, mecab, none(), &["config.json"], &[]), None);
    }
}
