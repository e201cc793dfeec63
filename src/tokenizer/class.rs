//! The tokenizer class of a repository in Transformers, and the tokenizer of Elasticsearch that replaces it.

use super::tokenizer_json::{Algorithm, TokenizerJson};
use super::{TokenizerError, TokenizerKind};
use crate::config::{ModelConfig, SpecialTokenNames, TokenizerConfig};

/// Slow tokenizers of Transformers whose vocabularies can be read. Classes that differ only in name are one variant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Class {
    Bert,
    BertJapanese,
    MpNet,
    Roberta,
    Deberta,
    XlmRoberta,
    Camembert,
    T5,
    Albert,
    DebertaV2,
    /// SentencePiece BPE, which is written as byte-level BPE.
    Gemma,
}

/// Meaning of a name in `tokenizer_class`.
enum NamedClass {
    Class(Class),
    /// A tokenizer saved by the tokenizers library, without a class of Transformers. `tokenizer.json` determines the class.
    Generic,
}

/// Supported classes, for messages.
pub(super) const SUPPORTED: &str = "BertTokenizer (also as DistilBertTokenizer, ElectraTokenizer, MobileBertTokenizer, \
     SqueezeBertTokenizer, RetriBertTokenizer, DPRContextEncoderTokenizer, DPRQuestionEncoderTokenizer), \
     BertJapaneseTokenizer with MeCab, MPNetTokenizer, RobertaTokenizer, BartTokenizer, \
     LongformerTokenizer, DebertaTokenizer, XLMRobertaTokenizer, CamembertTokenizer, T5Tokenizer, AlbertTokenizer and \
     DebertaV2Tokenizer, each fast or slow, and GemmaTokenizer with tokenizer.json";

impl Class {
    /// The tokenizer of Elasticsearch.
    pub(super) fn kind(self) -> TokenizerKind {
        match self {
            Self::Bert => TokenizerKind::Bert,
            Self::BertJapanese => TokenizerKind::BertJapanese,
            Self::MpNet => TokenizerKind::MpNet,
            Self::Roberta | Self::Deberta | Self::Gemma => TokenizerKind::Roberta,
            Self::XlmRoberta | Self::Camembert | Self::T5 | Self::Albert => {
                TokenizerKind::XlmRoberta
            }
            Self::DebertaV2 => TokenizerKind::DebertaV2,
        }
    }

    /// The algorithm that splits words into tokens.
    pub(super) fn algorithm(self) -> Algorithm {
        match self {
            Self::Bert | Self::BertJapanese | Self::MpNet => Algorithm::WordPiece,
            Self::Roberta | Self::Deberta | Self::Gemma => Algorithm::Bpe,
            Self::XlmRoberta | Self::Camembert | Self::T5 | Self::Albert | Self::DebertaV2 => {
                Algorithm::Unigram
            }
        }
    }

    /// Whether the class returns token types, according to its `model_input_names` in Transformers.
    fn makes_token_types(self) -> bool {
        match self {
            Self::Bert | Self::BertJapanese | Self::Deberta | Self::Albert | Self::DebertaV2 => {
                true
            }
            Self::MpNet
            | Self::Roberta
            | Self::XlmRoberta
            | Self::Camembert
            | Self::T5
            | Self::Gemma => false,
        }
    }

    /// Default tokens of the class for the roles of [`SPECIAL_TOKEN_ROLES`](crate::config::SPECIAL_TOKEN_ROLES), in the order of
    /// the roles.
    pub(super) fn special_tokens(self) -> [Option<&'static str>; 7] {
        match self {
            Self::Bert | Self::BertJapanese => [
                None,
                None,
                Some("[UNK]"),
                Some("[SEP]"),
                Some("[PAD]"),
                Some("[CLS]"),
                Some("[MASK]"),
            ],
            Self::Deberta | Self::DebertaV2 => {
                ["[CLS]", "[SEP]", "[UNK]", "[SEP]", "[PAD]", "[CLS]", "[MASK]"].map(Some)
            }
            Self::T5 => [None, Some("</s>"), Some("<unk>"), None, Some("<pad>"), None, None],
            Self::Albert => {
                ["[CLS]", "[SEP]", "<unk>", "[SEP]", "<pad>", "[CLS]", "[MASK]"].map(Some)
            }
            Self::MpNet => ["<s>", "</s>", "[UNK]", "</s>", "<pad>", "<s>", "<mask>"].map(Some),
            Self::Gemma => {
                [Some("<bos>"), Some("<eos>"), Some("<unk>"), None, Some("<pad>"), None, None]
            }
            Self::Roberta | Self::XlmRoberta | Self::Camembert => {
                ["<s>", "</s>", "<unk>", "</s>", "<pad>", "<s>", "<mask>"].map(Some)
            }
        }
    }

    fn of_model_type(model_type: &str) -> Option<Self> {
        Some(match model_type {
            "bert" | "distilbert" | "electra" | "ernie" | "mobilebert" | "squeezebert"
            | "retribert" | "dpr" => Self::Bert,
            "mpnet" => Self::MpNet,
            "roberta" | "bart" | "longformer" => Self::Roberta,
            "xlm-roberta" => Self::XlmRoberta,
            "camembert" => Self::Camembert,
            "t5" | "mt5" => Self::T5,
            "albert" => Self::Albert,
            "deberta" => Self::Deberta,
            "deberta-v2" => Self::DebertaV2,
            _ => return None,
        })
    }

    /// The class that matches the content of `tokenizer.json`: its algorithm, and the token at the start of a text. `first` is the
    /// start token in other files.
    fn of_content(json: &TokenizerJson, first: Option<&str>) -> Option<Self> {
        let template = json.template();
        // A row without a first token still shows by the vocabulary whose tokens it has.
        let begins_with = |token: &str| match template.and_then(|template| template.first).or(first)
        {
            Some(first) => first == token,
            None => json.has(token),
        };
        let begins_with_any = template.and_then(|template| template.first).or(first).is_some()
            || begins_with("<s>")
            || begins_with("[CLS]")
            || begins_with("<bos>");
        // T5 has a token at the end of a text only.
        let ends_only = template.is_some_and(|it| it.first.is_none() && it.last == Some("</s>"));
        match json.algorithm() {
            Algorithm::WordPiece if begins_with("[CLS]") => Some(Self::Bert),
            Algorithm::WordPiece if begins_with("<s>") => Some(Self::MpNet),
            // The names of the special tokens do not matter: the upload renames them.
            Algorithm::Bpe if json.is_byte_level() && begins_with_any => Some(Self::Roberta),
            Algorithm::Bpe if json.is_sentencepiece_bpe() && begins_with_any => Some(Self::Gemma),
            Algorithm::Unigram if begins_with("[CLS]") && json.has("[UNK]") => {
                Some(Self::DebertaV2)
            }
            Algorithm::Unigram if begins_with("[CLS]") && json.has("<unk>") => Some(Self::Albert),
            Algorithm::Unigram if ends_only && !json.has("<s>") => Some(Self::T5),
            Algorithm::Unigram if begins_with("<s>") && json.has("<s>NOTUSED") => {
                Some(Self::Camembert)
            }
            Algorithm::Unigram if begins_with("<s>") => Some(Self::XlmRoberta),
            _ => None,
        }
    }
}

/// The class that has the algorithm of `tokenizer.json`, for rows without special tokens, whose names then do not matter.
pub(super) fn of_algorithm(json: &TokenizerJson) -> Result<Class, TokenizerError> {
    match json.algorithm() {
        Algorithm::WordPiece => Ok(Class::Bert),
        Algorithm::Unigram => Ok(Class::XlmRoberta),
        Algorithm::Bpe if json.is_byte_level() => Ok(Class::Roberta),
        Algorithm::Bpe | Algorithm::Other => Err(TokenizerError::Unsupported(json.describe())),
    }
}

fn named(name: &str) -> Option<NamedClass> {
    Some(NamedClass::Class(match name.strip_suffix("Fast").unwrap_or(name) {
        "BertTokenizer"
        | "DistilBertTokenizer"
        | "ElectraTokenizer"
        | "MobileBertTokenizer"
        | "SqueezeBertTokenizer"
        | "RetriBertTokenizer"
        | "DPRContextEncoderTokenizer"
        | "DPRQuestionEncoderTokenizer" => Class::Bert,
        "BertJapaneseTokenizer" => Class::BertJapanese,
        "MPNetTokenizer" => Class::MpNet,
        "RobertaTokenizer" | "BartTokenizer" | "LongformerTokenizer" => Class::Roberta,
        "XLMRobertaTokenizer" => Class::XlmRoberta,
        "CamembertTokenizer" => Class::Camembert,
        "T5Tokenizer" | "MT5Tokenizer" => Class::T5,
        "AlbertTokenizer" => Class::Albert,
        "DebertaTokenizer" => Class::Deberta,
        "DebertaV2Tokenizer" => Class::DebertaV2,
        "GemmaTokenizer" => Class::Gemma,
        // Transformers 5 uses the second name for the class of the first.
        "PreTrainedTokenizer" | "TokenizersBackend" => return Some(NamedClass::Generic),
        _ => return None,
    }))
}

/// Whether a tokenizer returns token types, according to `model_input_names` of its class in Transformers.
fn class_makes_token_types(name: &str) -> bool {
    match name.strip_suffix("Fast").unwrap_or(name) {
        "DistilBertTokenizer" | "RetriBertTokenizer" => false,
        name => match named(name) {
            Some(NamedClass::Class(class)) => class.makes_token_types(),
            _ => true,
        },
    }
}

/// The tokenizer class, and how it was determined.
pub(super) struct Choice {
    pub(super) class: Class,
    /// Whether the class returns token types; `None` if `tokenizer.json` alone decides.
    pub(super) makes_token_types: Option<bool>,
    /// Whether no class of Transformers is named. In this case, `tokenizer.json` alone is used, even if there are other files.
    pub(super) by_content: bool,
    pub(super) warnings: Vec<String>,
}

/// Rejects a tokenizer without an equivalent in Elasticsearch by its name alone.
pub(super) fn check_name(
    config: &TokenizerConfig,
    model: &ModelConfig,
) -> Result<(), TokenizerError> {
    match config.tokenizer_class.as_ref().or(model.tokenizer_class.as_ref()) {
        Some(name) if named(name).is_none() => Err(TokenizerError::Unsupported(name.clone())),
        _ => Ok(()),
    }
}

/// The token at the start of a text, if the settings name one.
fn first_token(config: &TokenizerConfig, map: &SpecialTokenNames) -> Option<String> {
    let own = config.special_tokens();
    let role = |role: &str| own.role(role).or(map.role(role)).flatten();
    role("cls_token").or(role("bos_token")).map(str::to_owned)
}

/// Determines the class from the first source that names one: `tokenizer_class` in `tokenizer_config.json` or `config.json`, the
/// model_type, and the content of `tokenizer.json`. Warns if the sources contradict each other.
pub(super) fn choose(
    config: &TokenizerConfig,
    map: &SpecialTokenNames,
    model: &ModelConfig,
    json: Option<&TokenizerJson>,
) -> Result<Choice, TokenizerError> {
    let content =
        json.and_then(|json| Class::of_content(json, first_token(config, map).as_deref()));
    let names = [
        ("tokenizer_config.json", config.tokenizer_class.as_deref()),
        ("config.json", model.tokenizer_class.as_deref()),
    ];
    // The class from each source, in the order of precedence.
    let mut said: Vec<(String, Class)> = Vec::new();
    let mut generic = None;
    let mut makes_token_types = None;
    for (file, name) in names.into_iter().filter_map(|(file, name)| Some((file, name?))) {
        match named(name) {
            Some(NamedClass::Class(class)) => {
                if said.is_empty() {
                    makes_token_types = Some(class_makes_token_types(name));
                }
                said.push((format!("{file}'s tokenizer_class {name}"), class))
            }
            Some(NamedClass::Generic) if said.is_empty() => generic = Some(name),
            _ => (),
        }
    }
    let model_type = model.model_type.as_deref().unwrap_or_default();
    if let Some(class) = Class::of_model_type(model_type) {
        if said.is_empty() {
            // AutoTokenizer uses the class of the model_type.
            let untyped = matches!(model_type, "distilbert" | "retribert");
            makes_token_types = Some(!untyped && class.makes_token_types());
        }
        said.push((format!("config.json's model_type {model_type}"), class));
    }

    // A model_type that Transformers does not know determines no class either.
    let by_content = generic.or(said.is_empty().then_some("")).zip(json);
    let unsupported = |json: &TokenizerJson| TokenizerError::Unsupported(json.describe());
    let class = match by_content {
        Some((_, json)) => content.ok_or_else(|| unsupported(json))?,
        None => said.first().map(|said| said.1).or(content).ok_or_else(|| {
            json.map_or(TokenizerError::Unsupported("of this model".into()), unsupported)
        })?,
    };
    said.extend(content.map(|class| ("the content of tokenizer.json".to_owned(), class)));
    let warnings = said
        .iter()
        .filter(|(_, other)| !alike(*other, class))
        .map(|(source, other)| {
            format!(
                "the files disagree about the tokenizer: {source} means Elasticsearch's {}; {} is used",
                other.kind().name(),
                class.kind().name()
            )
        })
        .collect();
    let makes_token_types = makes_token_types.filter(|_| by_content.is_none());
    Ok(Choice { class, makes_token_types, by_content: by_content.is_some(), warnings })
}

/// Whether two sources agree. A model_type or a vocabulary does not determine how words are segmented, so this difference is
/// ignored.
fn alike(a: Class, b: Class) -> bool {
    let kind = |class: Class| match class {
        Class::BertJapanese => TokenizerKind::Bert,
        other => other.kind(),
    };
    kind(a) == kind(b)
}

/// The class that matches the content of `tokenizer.json`, if the named class cannot have written the file.
pub(super) fn by_content(
    config: &TokenizerConfig,
    map: &SpecialTokenNames,
    json: &TokenizerJson,
) -> Result<Class, TokenizerError> {
    Class::of_content(json, first_token(config, map).as_deref())
        .ok_or_else(|| TokenizerError::Unsupported(json.describe()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fast_class_equals_its_slow_class() {
        for name in ["DistilBertTokenizer", "DistilBertTokenizerFast"] {
            assert!(matches!(named(name), Some(NamedClass::Class(Class::Bert))), "{name}");
        }
        for name in ["LlamaTokenizer", "Qwen2TokenizerFast", "CLIPTokenizer", "BertweetTokenizer"] {
            assert!(named(name).is_none(), "{name}");
        }
    }
}
