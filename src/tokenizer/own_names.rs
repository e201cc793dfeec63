//! The model's own names of special tokens, for the tokenizer of Elasticsearch that accepts any names.

use std::sync::Arc;

use serde_json::Value;

use super::{ServerTokens, Tokenizer, TokenizerKind};

/// Beginning of the warning that special tokens are renamed.
pub(super) const RENAMED: &str = "special tokens are renamed in the uploaded vocabulary";

/// Setting of `byte_level_bpe` that names the token for a missing word.
const MASK_TOKEN: &str = "mask_token";

impl Tokenizer {
    /// Token that marks a missing word in a text.
    #[must_use]
    pub fn mask_token(&self) -> &str {
        let named = self.settings.get(MASK_TOKEN).and_then(Value::as_str);
        named.unwrap_or_else(|| self.kind.mask_token())
    }

    /// Whether the upload gives other names to special tokens of a byte-level BPE vocabulary than the model does.
    #[must_use]
    pub fn renames_tokens(&self) -> bool {
        self.kind == TokenizerKind::Roberta && !self.own_names.is_empty()
    }

    /// Restores the model's names of special tokens, which needs the tokenizer `byte_level_bpe`. Does nothing if no token is renamed.
    pub fn keep_names(&mut self) {
        if !self.renames_tokens() {
            return;
        }
        let ServerTokens { padding, separator, class, unknown, mask } = self.kind.tokens();
        let roles = [
            ("unk_token", unknown),
            ("pad_token", padding),
            ("bos_token", class),
            ("eos_token", separator),
            (MASK_TOKEN, mask),
        ];
        let ids = roles.map(|(setting, name)| (setting, self.vocabulary.id(name)));
        let tokens = Arc::make_mut(&mut self.vocabulary.vocabulary);
        for (id, name) in &self.own_names {
            if let Some(token) = tokens.get_mut(*id) {
                token.clone_from(name);
            }
        }
        for (setting, id) in ids {
            if let Some(name) = id.and_then(|id| tokens.get(id)) {
                self.settings.insert(setting.to_owned(), name.clone().into());
            }
        }
        self.kind = TokenizerKind::ByteLevelBpe;
        self.own_names.clear();
        self.warnings.retain(|warning| !warning.starts_with(RENAMED));
    }
}
