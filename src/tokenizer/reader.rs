//! Reads the files of one tokenizer and converts them to the form that is uploaded.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::added::AddedTokens;
use super::class::Class;
use super::ids::{self, Ids, Precedence};
use super::own_names::RENAMED;
use super::row_layout::Ends;
use super::tokenizer_json::{self, Algorithm, TokenizerJson, WordSplit};
use super::unigram::TextChanges;
use super::{
    Adaptation, DO_LOWER_CASE, RowLayout, Tokenizer, TokenizerError, TokenizerKind, byte_level,
    hide_capitals, japanese, row_layout, sentencepiece_bpe, unigram, wordpiece,
};
use crate::config::TokenizerConfig;
use crate::source::ModelFiles;
use crate::special_tokens::SpecialTokens;
use crate::vocabulary::Vocabulary;

/// State shared by the readers of all tokenizer families.
pub(super) struct Reader<'a> {
    pub(super) files: &'a ModelFiles,
    pub(super) config: &'a TokenizerConfig,
    pub(super) json: Option<&'a TokenizerJson>,
    /// Whether rows have a first token and a separator, which the vocabulary must contain. If not, tokens that Elasticsearch requires may be
    /// missing.
    pub(super) has_special_tokens: bool,
}

/// A vocabulary without added tokens.
#[derive(Debug, Default)]
pub(super) struct Base {
    /// Tokens with their ids. If a token occurs several times, its last id is used.
    pub(super) tokens: Vec<(usize, String)>,
    pub(super) merges: Option<Vec<String>>,
    /// Scores by id.
    pub(super) scores: Option<Vec<f64>>,
    pub(super) notes: Vec<String>,
}

impl Base {
    pub(super) fn of(tokens: Vec<(usize, String)>) -> Self {
        Self { tokens, ..Self::default() }
    }

    /// Orders the tokens by id and adds the added tokens, as the slow tokenizer does.
    pub(super) fn numbered(
        mut self,
        added: &AddedTokens,
        class: Class,
    ) -> Result<(Self, Ids), TokenizerError> {
        let tokens = std::mem::take(&mut self.tokens);
        Ok((self, ids::slow(tokens, added, precedence(class))?))
    }
}

/// Everything that was read.
pub(super) struct Draft {
    pub(super) class: Class,
    /// Whether `tokenizer.json` alone determined the class.
    pub(super) by_content: bool,
    /// Whether the vocabulary comes from `tokenizer.json`.
    pub(super) from_json: bool,
    /// Whether the class returns token types; `None` without a class.
    pub(super) makes_token_types: Option<bool>,
    pub(super) base: Base,
    pub(super) ids: Ids,
    pub(super) added: AddedTokens,
}

/// The special tokens of a vocabulary.
struct SpecialIds {
    special: SpecialTokens,
    /// Id of the token that starts a row.
    first: i64,
    /// The model's names of the renamed tokens, by id.
    own_names: Vec<(usize, String)>,
}

impl Reader<'_> {
    /// Reads the files of the slow tokenizer. `None` if they do not exist.
    pub(super) fn slow(&self, class: Class) -> Result<Option<Base>, TokenizerError> {
        match class.algorithm() {
            Algorithm::WordPiece => wordpiece::slow(self),
            // The files of the slow tokenizer contain no merges.
            Algorithm::Bpe if class == Class::Gemma => Ok(None),
            Algorithm::Bpe => byte_level::slow(self),
            _ => unigram::slow(self, class),
        }
    }

    /// Reads the files of the slow tokenizer under other names.
    pub(super) fn by_other_names(&self, class: Class) -> Result<Option<Base>, TokenizerError> {
        match class.algorithm() {
            Algorithm::Unigram => unigram::by_any_name(self, class),
            _ => Ok(None),
        }
    }

    pub(super) fn fast(&self, json: &TokenizerJson, class: Class) -> Result<Base, TokenizerError> {
        let base = match class.algorithm() {
            Algorithm::WordPiece => wordpiece::fast(json)?,
            Algorithm::Bpe if class == Class::Gemma && !json.is_sentencepiece_bpe() => {
                return Err(TokenizerError::Unsupported(json.describe()));
            }
            Algorithm::Bpe => byte_level::fast(json)?,
            _ => unigram::fast(json, class)?,
        };
        if base.tokens.is_empty() {
            Err(TokenizerError::Empty(tokenizer_json::NAME))
        } else {
            Ok(base)
        }
    }

    /// Warns if the ids of the slow tokenizer differ from those in `tokenizer.json`. Other errors in `tokenizer.json` are ignored,
    /// because it is not used.
    pub(super) fn compare(
        &self,
        json: &TokenizerJson,
        class: Class,
        added: &AddedTokens,
        slow: &Ids,
    ) -> Option<String> {
        let base = self.fast(json, class).ok()?;
        let fast = ids::fast(&base.tokens, &json.added_tokens, added).ok()?;
        let some = ids::some_of(&ids::differences(&slow.tokens, &fast.tokens))?;
        let files = slow_files(class);
        Some(format!(
            "{files} and tokenizer.json assign different ids: {some}; those of {files} are used"
        ))
    }

    /// Validates what was read, and converts it to the form that is uploaded.
    pub(super) fn finish(
        &self,
        draft: Draft,
        mut warnings: Vec<String>,
    ) -> Result<Tokenizer, TokenizerError> {
        let Draft {
            class,
            by_content,
            from_json,
            makes_token_types,
            base: Base { mut merges, scores, notes, .. },
            mut ids,
            added,
        } = draft;
        warnings.extend(notes);
        warnings.extend(ids.warnings.iter().cloned());
        let mut kind = class.kind();
        let mut settings = Map::new();
        match class {
            Class::Bert | Class::MpNet => {
                let lower_case = wordpiece::do_lower_case(self, by_content, &mut warnings);
                settings.insert(DO_LOWER_CASE.into(), lower_case.into());
            }
            Class::BertJapanese => {
                kind = japanese::kind(self, &mut warnings)?;
                let lower_case = self.config.do_lower_case.unwrap_or(false);
                settings.insert(DO_LOWER_CASE.into(), lower_case.into());
            }
            Class::Roberta | Class::Deberta => {
                let add = byte_level::add_prefix_space(self, by_content, &mut warnings);
                settings.insert("add_prefix_space".into(), add.into());
            }
            Class::Gemma => {
                settings.insert("add_prefix_space".into(), false.into());
                let notes = merges
                    .as_mut()
                    .map(|merges| sentencepiece_bpe::to_byte_level(&mut ids.tokens, merges));
                warnings.extend(notes.into_iter().flatten());
                warnings.extend(self.note_of_flags(by_content));
            }
            Class::XlmRoberta | Class::Camembert | Class::T5 | Class::Albert | Class::DebertaV2 => {
                unigram::check_settings(self, class, from_json, &mut warnings)
            }
        }
        let json = self.json.filter(|json| json.algorithm() == class.algorithm());
        let unusual = json.map(TokenizerJson::unusual_steps).unwrap_or_default();
        if !unusual.is_empty() && class != Class::BertJapanese {
            warnings.push(format!(
                "tokenizer.json changes or splits texts in a way that Elasticsearch does not, so some of them are tokenized differently: {}",
                unusual.join(", ")
            ));
        }
        let mut adaptation = Adaptation::None;
        let TextChanges { lower_cases, removes_accents } =
            unigram::text_changes(self, class, from_json);
        if lower_cases || removes_accents {
            adaptation = Adaptation::Approximated;
        }
        if let (Class::Roberta | Class::Deberta, Some(json)) = (class, json) {
            let notes = byte_level::notes_of_steps(json);
            if matches!(json.word_split(), Some(WordSplit::Similar(_))) {
                adaptation = Adaptation::Approximated;
            } else if !notes.is_empty() {
                adaptation = Adaptation::Adapted;
            }
            warnings.extend(notes);
        }
        if let Some(merges) = &merges {
            if merges.is_empty() {
                return Err(TokenizerError::NoMerges(kind.name()));
            }
            warnings.extend(ids::some_of(&byte_level::ambiguous(merges)).map(|some| match class {
                // The merges of white space and of rows of one symbol, with many characters.
                Class::Gemma => "several merges have the same result, which Elasticsearch does not distinguish; runs of white space or of one symbol can be tokenized differently".to_owned(),
                _ => format!("several merges have the same result ({some}); Elasticsearch uses the rank of the last one for all of them"),
            }));
        }
        let scores = scores.map(|mut scores| {
            scores.resize(ids.tokens.len(), 0.);
            scores
        });
        let types = self.makes_token_types(makes_token_types);
        let [single, pair] =
            ["single", "pair"].map(|rows| self.layout_of_json(rows, class, from_json, types, &ids));
        let SpecialIds { special, first, own_names } =
            self.special_tokens(class, kind, from_json, &mut ids, &added, &mut warnings)?;
        let ends = Ends { first, separator: special.separator };
        let single_of_class = || Ok(row_layout::single_of_class(class, ends));
        let is_followed = json.is_none_or(|json| !from_json || json.has_steps_of_the_server());
        let is_rewritten = class == Class::Gemma;
        if !unusual.is_empty() || !own_names.is_empty() || !is_followed || is_rewritten {
            adaptation = adaptation.max(Adaptation::Adapted);
        }
        self.warn_of_added(kind, &added, &mut warnings);
        self.warn_of_truncation(&mut warnings);
        if settings.get(DO_LOWER_CASE) == Some(&Value::Bool(true)) {
            hide_capitals(&mut ids.tokens, kind);
        }
        Ok(Tokenizer {
            kind,
            vocabulary: Vocabulary { vocabulary: ids.tokens.into(), merges, scores },
            settings,
            special,
            single: single.unwrap_or_else(single_of_class),
            pair: pair.unwrap_or_else(|| Ok(row_layout::pair_of_class(class, types, ends))),
            first,
            lower_cases,
            max_length: self.config.max_length(),
            adaptation,
            kept: None,
            warnings,
            appended: ids.appended,
            own_names,
        })
    }

    /// Ids of the special tokens. If they have other names than Elasticsearch requires, they are renamed in `ids`: Elasticsearch finds
    /// tokens by name, and the graph only uses ids. A byte-level BPE vocabulary may lack the tokens for padding and unknown text, and that of
    /// T5 lacks the first token of a row. [`Tokenizer::append_tokens`] appends them.
    fn special_tokens(
        &self,
        class: Class,
        kind: TokenizerKind,
        from_json: bool,
        ids: &mut Ids,
        added: &AddedTokens,
        warnings: &mut Vec<String>,
    ) -> Result<SpecialIds, TokenizerError> {
        let server = kind.tokens();
        // A fast tokenizer follows the template in its file, and a slow one the roles.
        let template = self.json.filter(|_| from_json).map(TokenizerJson::template);
        let template = template.flatten();
        let first = template.and_then(|template| template.first).or(added.role("cls_token"));
        let last = template.and_then(|template| template.last).or(added.role("sep_token"));
        // Gemma has no such roles. If the rows lack one of the tokens, the graph composes them.
        let is_gemma = self.json.is_some_and(TokenizerJson::is_sentencepiece_bpe);
        let role = |name: &str| added.role(name).filter(|_| is_gemma);
        let (first, last) = (first.or(role("bos_token")), last.or(role("eos_token")));
        let last = last.or_else(|| added.role("eos_token").filter(|_| class == Class::T5));
        // The libraries of static embeddings fill no rows, so that no file names their token for padding.
        let padding = || ["[PAD]", "<pad>"].into_iter().find(|token| ids.place(token).is_some());
        let padding =
            added.role("pad_token").or_else(|| padding().filter(|_| !self.has_special_tokens));
        let wanted = [
            ("first token", first, server.class),
            ("last token", last, server.separator),
            ("pad_token", padding, server.padding),
            ("unk_token", added.role("unk_token"), server.unknown),
            ("mask_token", added.role("mask_token"), server.mask),
        ];
        let mut renamed: Vec<(usize, &str)> = Vec::new();
        let mut names = Vec::new();
        let has_all_bytes =
            kind == TokenizerKind::Roberta && byte_level::has_all_bytes(&ids.tokens);
        let appends = |token: &str| match class {
            Class::T5 => token == server.class,
            _ => has_all_bytes && [server.padding, server.unknown].contains(&token),
        };
        let is_wanted =
            |role: &str| self.has_special_tokens || role == "pad_token" || role == "unk_token";
        for (role, token, server) in wanted.into_iter().filter(|(role, ..)| is_wanted(role)) {
            let Some(token) = token else { continue };
            let other = || TokenizerError::OtherToken {
                role,
                token: token.to_owned(),
                kind: kind.name(),
                server,
            };
            let required = matches!(role, "first token" | "last token");
            match ids.place(token) {
                Some(id) => {
                    let is_taken =
                        renamed.iter().any(|(place, name)| *place == id && *name != server);
                    match is_taken {
                        // Another token gets this name, which the model does not read.
                        true if appends(server) => continue,
                        true => return Err(other()),
                        false => renamed.push((id, server)),
                    }
                    if token != server {
                        names.push(format!("{token} → {server}"));
                    }
                }
                None if token == server => (),
                None if required => return Err(other()),
                None => warnings.push(format!(
                    "the tokenizer's {role} is {token}, which is not in the vocabulary; Elasticsearch's {} tokenizer uses {server}",
                    kind.name()
                )),
            }
        }
        let mut own_names = Vec::new();
        if !names.is_empty() {
            own_names = ids.rename(&renamed);
            warnings.push(format!(
                "{RENAMED} to the names that Elasticsearch's {} tokenizer requires: {}",
                kind.name(),
                names.join(", ")
            ));
        }
        let missing: Vec<_> = [server.padding, server.separator, server.class, server.unknown]
            .into_iter()
            .filter(|token| ids.place(token).is_none() && !appends(token))
            .collect();
        if !missing.is_empty() && self.has_special_tokens {
            return Err(TokenizerError::MissingTokens { kind: kind.name(), missing });
        }
        let id = |token: &str| ids.place(token).and_then(|id| i64::try_from(id).ok()).unwrap_or(-1);
        let (padding, mut separator) = (id(server.padding), id(server.separator));
        if !self.has_special_tokens {
            // Rows without a separator only have one as an example, which can be any token.
            separator = separator.max(0);
        }
        let special = SpecialTokens { padding, separator, appended: None, without_embedding: None };
        Ok(SpecialIds { special, first: id(server.class), own_names })
    }

    /// Note for a Gemma tokenizer whose two files disagree about the tokens around a text.
    fn note_of_flags(&self, by_content: bool) -> Option<String> {
        let template = self.json?.template();
        let of_json = [
            template.is_some_and(|template| template.first.is_some()),
            template.is_some_and(|template| template.last.is_some()),
        ];
        let [first, last] =
            [self.config.add_bos_token.unwrap_or(true), self.config.add_eos_token.unwrap_or(false)];
        (!by_content && of_json != [first, last]).then(|| {
            format!(
                "tokenizer_config.json and tokenizer.json disagree about the tokens around a text (add_bos_token {first}, add_eos_token {last}, but the post-processor has bos {}, eos {}); Transformers 4 follows the first file, and Transformers 5 and this import the second",
                of_json[0], of_json[1]
            )
        })
    }

    /// Whether the tokenizer outputs token types.
    fn makes_token_types(&self, by_class: Option<bool>) -> bool {
        row_layout::makes_token_types(self.config.model_input_names.as_deref(), by_class)
    }

    /// The layout that `tokenizer.json` gives to rows of one text (`single`) or of two (`pair`); none where the class decides.
    fn layout_of_json(
        &self,
        rows: &str,
        class: Class,
        from_json: bool,
        types: bool,
        ids: &Ids,
    ) -> Option<Result<RowLayout, String>> {
        let json = self.json.filter(|json| json.algorithm() == class.algorithm())?;
        if from_json {
            let bare = || Ok(RowLayout::of_texts(rows == "pair", types));
            return Some(row_layout::of_json(json, rows, types, None).unwrap_or_else(bare));
        }
        let id = |token: &str| ids.place(token).and_then(|id| i64::try_from(id).ok());
        // Names that the other files do not hold say nothing of their tokenizer.
        row_layout::of_json(json, rows, types, Some(&id)).filter(Result::is_ok)
    }

    /// Warns about added tokens, which the tokenizer recognizes in a text but Elasticsearch splits.
    fn warn_of_added(&self, kind: TokenizerKind, added: &AddedTokens, warnings: &mut Vec<String>) {
        let word_piece = matches!(
            kind,
            TokenizerKind::Bert | TokenizerKind::BertJapanese | TokenizerKind::MpNet
        );
        let in_json = self.json.iter().flat_map(|json| &json.added_tokens);
        let all: BTreeSet<&str> = in_json
            .map(|token| token.content.as_str())
            .chain(added.by_id.values().map(String::as_str))
            .chain(added.special.iter().map(String::as_str))
            .collect();
        let is_special = |token: &&str| {
            added.roles.iter().flatten().any(|role| role == token) || token.ends_with("NOTUSED")
        };
        let is_gemma = self.json.is_some_and(TokenizerJson::is_sentencepiece_bpe);
        let is_blank = |token: &str| token.chars().all(|c| c.is_whitespace() || c == '▁');
        let in_json = || self.json.iter().flat_map(|json| &json.added_tokens);
        let within: Vec<String> = in_json()
            .filter(|token| {
                let text = token.content.as_str();
                word_piece
                    && !token.single_word
                    && text.chars().all(char::is_alphanumeric)
                    && !is_special(&text)
            })
            .map(|token| token.content.clone())
            .collect();
        warnings.extend(ids::some_of(&within).map(|some| {
            format!(
                "Elasticsearch reads {} added tokens as ordinary words: {some}. Texts that contain them within longer words, or in \
                 another case, are tokenized differently",
                within.len()
            )
        }));
        // Elasticsearch finds a plain word in the vocabulary, and merges white space.
        let is_split = |token: &&str| match word_piece {
            true => !token.chars().all(char::is_alphanumeric),
            false => !is_gemma || !is_blank(token),
        };
        let split: Vec<String> = all
            .into_iter()
            .filter(|token| !is_special(token) && is_split(token))
            .map(|token| match token.contains(char::is_whitespace) {
                true => format!("{token:?}"),
                false => token.to_owned(),
            })
            .collect();
        warnings.extend(ids::some_of(&split).map(|some| {
            format!(
                "Elasticsearch splits {} added tokens that the tokenizer keeps whole: {some}. Texts that contain them are tokenized \
                 differently",
                split.len()
            )
        }));
    }

    /// Warns if the tokenizer truncates long texts at the beginning.
    fn warn_of_truncation(&self, warnings: &mut Vec<String>) {
        let left = match self.config.truncation_side.as_deref() {
            Some(side) => side == "left",
            None => self.json.is_some_and(TokenizerJson::truncates_left),
        };
        if left {
            warnings.push(
                "the tokenizer truncates long texts at the beginning (truncation_side left); Elasticsearch truncates them at the end"
                    .to_owned(),
            );
        }
    }
}

fn precedence(class: Class) -> Precedence {
    match class {
        Class::MpNet => Precedence::Vocabulary,
        Class::XlmRoberta | Class::Camembert => Precedence::Replaced,
        _ => Precedence::Added,
    }
}

/// Names of the files of the slow tokenizer, for messages.
pub(super) fn slow_files(class: Class) -> String {
    match class.algorithm() {
        Algorithm::WordPiece => wordpiece::VOCABULARY.into(),
        Algorithm::Bpe => format!("{} with {}", byte_level::VOCABULARY, byte_level::MERGES),
        _ => unigram::own_file(class).into(),
    }
}
