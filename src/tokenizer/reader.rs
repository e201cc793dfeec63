//! From the files of one tokenizer to the form that is uploaded.

use serde_json::{Map, Value};

use super::added::AddedTokens;
use super::class::Class;
use super::ids::{self, Ids, Precedence};
use super::tokenizer_json::{self, Algorithm, TokenizerJson};
use super::{
    DO_LOWER_CASE, Tokenizer, TokenizerError, TokenizerKind, byte_level, case_warning, japanese,
    unigram, wordpiece,
};
use crate::config::TokenizerConfig;
use crate::source::ModelFiles;
use crate::special_tokens::SpecialTokens;
use crate::vocabulary::Vocabulary;

/// What the readers of the families share.
pub(super) struct Reader<'a> {
    pub(super) files: &'a ModelFiles,
    pub(super) config: &'a TokenizerConfig,
    pub(super) json: Option<&'a TokenizerJson>,
}

/// A vocabulary without added tokens.
#[derive(Debug, Default)]
pub(super) struct Base {
    /// Tokens with their ids; of those with the same text the last one counts.
    pub(super) tokens: Vec<(usize, String)>,
    pub(super) merges: Option<Vec<String>>,
    /// By id.
    pub(super) scores: Option<Vec<f64>>,
    pub(super) notes: Vec<String>,
}

impl Base {
    pub(super) fn of(tokens: Vec<(usize, String)>) -> Self {
        Self { tokens, ..Self::default() }
    }

    /// With its tokens in the order of their ids, as the slow tokenizer numbers them.
    pub(super) fn numbered(
        mut self,
        added: &AddedTokens,
        class: Class,
    ) -> Result<(Self, Ids), TokenizerError> {
        let tokens = std::mem::take(&mut self.tokens);
        Ok((self, ids::slow(tokens, added, precedence(class))?))
    }
}

/// All that was read.
pub(super) struct Draft {
    pub(super) class: Class,
    /// tokenizer.json alone decided what it is.
    pub(super) by_content: bool,
    /// The vocabulary is from tokenizer.json.
    pub(super) from_json: bool,
    pub(super) base: Base,
    pub(super) ids: Ids,
    pub(super) added: AddedTokens,
}

impl Reader<'_> {
    /// The files that the slow tokenizer reads, if they are there.
    pub(super) fn slow(&self, class: Class) -> Result<Option<Base>, TokenizerError> {
        match class.algorithm() {
            Algorithm::WordPiece => wordpiece::slow(self),
            Algorithm::Bpe => byte_level::slow(self),
            _ => unigram::slow(self, class),
        }
    }

    /// The same under other names.
    pub(super) fn by_other_names(&self, class: Class) -> Result<Option<Base>, TokenizerError> {
        match class.algorithm() {
            Algorithm::Unigram => unigram::by_any_name(self, class),
            _ => Ok(None),
        }
    }

    pub(super) fn fast(&self, json: &TokenizerJson, class: Class) -> Result<Base, TokenizerError> {
        let base = match class.algorithm() {
            Algorithm::WordPiece => wordpiece::fast(json)?,
            Algorithm::Bpe => byte_level::fast(json)?,
            _ => unigram::fast(json, class)?,
        };
        if base.tokens.is_empty() {
            Err(TokenizerError::Empty(tokenizer_json::NAME))
        } else {
            Ok(base)
        }
    }

    /// Compares the slow tokenizer's ids with those of `tokenizer.json`, which is not used, so that it may be wrong in other ways.
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
            "{files} and tokenizer.json do not give the same ids: {some}; those of the former are used"
        ))
    }

    /// Checks what was read, and puts it into the form that is uploaded.
    pub(super) fn finish(
        &self,
        draft: Draft,
        mut warnings: Vec<String>,
    ) -> Result<Tokenizer, TokenizerError> {
        let Draft {
            class,
            by_content,
            from_json,
            base: Base { merges, scores, notes, .. },
            ids,
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
            Class::Roberta => {
                let add = byte_level::add_prefix_space(self, &mut warnings);
                settings.insert("add_prefix_space".into(), add.into());
            }
            Class::XlmRoberta | Class::Camembert | Class::DebertaV2 => {
                unigram::check_settings(self, class, &mut warnings);
            }
        }
        if settings.get(DO_LOWER_CASE) == Some(&Value::Bool(true)) {
            warnings.extend(case_warning(&ids.tokens));
        }
        if let Some(merges) = &merges {
            if merges.is_empty() {
                return Err(TokenizerError::NoMerges(kind.name()));
            }
            warnings.extend(ids::some_of(&byte_level::ambiguous(merges)).map(|some| {
                format!("there are merges to the same token ({some}); Elasticsearch gives both the later one's rank")
            }));
        }
        let scores = scores.map(|mut scores| {
            scores.resize(ids.tokens.len(), 0.);
            scores
        });
        let special = self.special_tokens(kind, from_json, &ids, &added, &mut warnings)?;
        Ok(Tokenizer {
            kind,
            vocabulary: Vocabulary { vocabulary: ids.tokens, merges, scores },
            settings,
            special,
            max_length: self.config.max_length(),
            warnings,
            appended: ids.appended,
        })
    }

    /// The ids of the special tokens, once it is sure that the server's are the tokenizer's.
    fn special_tokens(
        &self,
        kind: TokenizerKind,
        from_json: bool,
        Ids { tokens, appended, .. }: &Ids,
        added: &AddedTokens,
        warnings: &mut Vec<String>,
    ) -> Result<SpecialTokens, TokenizerError> {
        // The last place counts, as in the server.
        let find = |token: &str| tokens.iter().rposition(|other| other == token);
        let id = |token: &str| find(token).and_then(|id| i64::try_from(id).ok()).unwrap_or(-1);
        let server = kind.tokens();
        let missing: Vec<_> = [server.padding, server.separator, server.class, server.unknown]
            .into_iter()
            .filter(|token| find(token).is_none() || appended.iter().any(|other| other == token))
            .collect();
        if !missing.is_empty() {
            return Err(TokenizerError::MissingTokens { kind: kind.name(), missing });
        }

        // A fast tokenizer goes by its file's template, a slow one by the roles.
        let template = self.json.filter(|_| from_json).map(TokenizerJson::template);
        let (first, last) = match template {
            Some(Some(template)) => {
                (template.first.or(Some("none")), template.last.or(Some("none")))
            }
            Some(None) => {
                warnings.push(format!(
                    "tokenizer.json puts no tokens around a text; Elasticsearch puts {} and {}",
                    server.class, server.separator
                ));
                (None, None)
            }
            None => (added.role("cls_token"), added.role("sep_token")),
        };
        for (role, token, server) in
            [("first token", first, server.class), ("last token", last, server.separator)]
        {
            if let Some(token) = token.filter(|token| *token != server) {
                let kind = kind.name();
                return Err(TokenizerError::OtherToken {
                    role,
                    token: token.to_owned(),
                    kind,
                    server,
                });
            }
        }
        for (role, server) in [("unk_token", server.unknown), ("mask_token", server.mask)] {
            if let Some(token) = added.role(role).filter(|token| *token != server) {
                warnings.push(format!(
                    "the tokenizer's {role} is {token}; Elasticsearch's {} tokenizer takes {server}",
                    kind.name()
                ));
            }
        }
        Ok(SpecialTokens { padding: id(server.padding), separator: id(server.separator) })
    }
}

fn precedence(class: Class) -> Precedence {
    match class {
        Class::MpNet => Precedence::Vocabulary,
        Class::XlmRoberta | Class::Camembert => Precedence::Replaced,
        _ => Precedence::Added,
    }
}

/// The files of the slow tokenizer, for messages.
pub(super) fn slow_files(class: Class) -> String {
    match class.algorithm() {
        Algorithm::WordPiece => wordpiece::VOCABULARY.into(),
        Algorithm::Bpe => format!("{} with {}", byte_level::VOCABULARY, byte_level::MERGES),
        _ => unigram::own_file(class).into(),
    }
}
