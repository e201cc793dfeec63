//! Added tokens and tokens with a role, collected as in Transformers (`_from_pretrained` of
//! `PreTrainedTokenizerBase`).

use std::collections::{BTreeMap, HashSet};

use super::TokenizerError;
use super::class::Class;
use super::tokenizer_json::TokenizerJson;
use crate::config::{SPECIAL_TOKEN_ROLES, SpecialTokenNames, TokenizerConfig};
use crate::source::ModelFiles;

/// Added tokens of a tokenizer.
#[derive(Debug, Default)]
pub(super) struct AddedTokens {
    /// Tokens with ids.
    pub(super) by_id: BTreeMap<usize, String>,
    /// Tokens with a role and other special tokens, each once. They get ids if they have none.
    pub(super) special: Vec<String>,
    pub(super) roles: [Option<String>; 7],
}

impl AddedTokens {
    /// Collects the added tokens. `added_tokens_decoder` in `tokenizer_config.json` replaces all other files; without it (before Transformers
    /// 4.34) they are in `special_tokens_map.json`, `added_tokens.json` and `tokenizer.json`.
    ///
    /// With `by_content`, no class of Transformers is named: then only tokens of `tokenizer.json` have a role by default.
    pub(super) fn gather(
        files: &ModelFiles,
        config: &TokenizerConfig,
        map: &SpecialTokenNames,
        class: Class,
        by_content: bool,
        json: Option<&TokenizerJson>,
    ) -> Result<Self, TokenizerError> {
        let mut by_id = BTreeMap::new();
        if let Some(decoder) = &config.added_tokens_decoder {
            for (id, token) in decoder {
                let id = id.parse().map_err(|_| TokenizerError::Broken {
                    file: "tokenizer_config.json",
                    reason: format!("added_tokens_decoder: {id:?} is not an id"),
                })?;
                by_id.insert(id, token.content.clone());
            }
        } else {
            let old: BTreeMap<String, usize> = files.json("added_tokens.json")?.unwrap_or_default();
            by_id.extend(old.into_iter().map(|(token, id)| (id, token)));
            if let Some(json) = json {
                let tokens = json.added_tokens.iter();
                by_id.extend(tokens.map(|token| (token.id, token.content.clone())));
            }
        }

        let own = config.special_tokens();
        let map = (config.added_tokens_decoder.is_none()).then_some(map);
        let mut defaults = class.special_tokens();
        if let Some(json) = json.filter(|_| by_content) {
            defaults = defaults.map(|token| token.filter(|token| json.has(token)));
            let [_, _, unknown, _, padding, ..] = &mut defaults;
            *unknown = json.unknown().or(*unknown);
            *padding = json.pad().or(*padding);
        }
        let mut roles = [const { None }; 7];
        for ((role, default), to) in SPECIAL_TOKEN_ROLES.into_iter().zip(defaults).zip(&mut roles) {
            let said = map.and_then(|map| map.role(role)).or_else(|| own.role(role));
            *to = said.unwrap_or(default).filter(|token| !token.is_empty()).map(str::to_owned);
        }

        let mut additional = own.additional;
        additional.extend(map.into_iter().flat_map(|map| map.additional.iter().cloned()));
        if class == Class::Camembert {
            // The class numbers its first tokens itself and ignores the files.
            let [_, _, unknown, _, padding, ..] = &roles;
            let first = [
                Some("<s>NOTUSED"),
                padding.as_deref(),
                Some("</s>NOTUSED"),
                unknown.as_deref(),
                Some("<unk>NOTUSED"),
            ];
            by_id.extend(
                first.into_iter().enumerate().filter_map(|(id, t)| Some((id, t?.to_owned()))),
            );
            additional.extend(["<s>NOTUSED", "</s>NOTUSED", "<unk>NOTUSED"].map(str::to_owned));
        }
        let mut seen = HashSet::new();
        let special = roles
            .iter()
            .flatten()
            .chain(&additional)
            .filter(|token| !token.is_empty() && seen.insert(token.as_str()))
            .cloned()
            .collect();
        Ok(Self { by_id, special, roles })
    }

    /// Token with a role of [`SPECIAL_TOKEN_ROLES`].
    pub(super) fn role(&self, role: &str) -> Option<&str> {
        let at = SPECIAL_TOKEN_ROLES.iter().position(|other| *other == role)?;
        self.roles.get(at)?.as_deref()
    }
}
