//! The model card, `README.md`.

use crate::source::ModelFiles;

/// Languages in the front matter of the model card.
pub(super) fn languages(files: &ModelFiles) -> Vec<String> {
    let Ok(Some(card)) = files.text("README.md") else { return Vec::new() };
    let mut lines = card.trim_start_matches('\u{feff}').lines();
    if lines.next().map(str::trim_end) != Some("---") {
        return Vec::new();
    }
    let mut lines = lines.take_while(|line| line.trim_end() != "---");
    let Some(value) = lines.find_map(|line| line.strip_prefix("language:")) else {
        return Vec::new();
    };
    let code = |text: &'_ str| text.split('#').next().unwrap_or_default().trim().to_owned();
    let inline = code(value);
    let words: Vec<String> = if inline.is_empty() {
        lines.map_while(|line| line.trim_start().strip_prefix("- ")).map(code).collect()
    } else {
        inline.trim_matches(['[', ']']).split(',').map(code).collect()
    };
    let clean = |word: String| word.trim_matches(['"', '\'']).to_owned();
    let is_name = |word: &String| {
        !word.is_empty()
            && word.len() <= 32
            && word.chars().all(|c| c.is_alphanumeric() || "-_ ".contains(c))
    };
    words.into_iter().map(clean).filter(is_name).collect()
}

/// Whether the model card contains a word, in lower case here. The import of a hub model does not download the card.
#[cfg(feature = "torch")]
pub(super) fn mentions(files: &ModelFiles, word: &str) -> bool {
    matches!(files.text("README.md"), Ok(Some(card)) if card.to_lowercase().contains(word))
}
