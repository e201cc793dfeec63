//! Converts tokens with ids to the list that is uploaded, in which the position of a token is its id.

use std::collections::{BTreeMap, HashMap};

use super::TokenizerError;
use super::added::AddedTokens;
use super::tokenizer_json::AddedToken;

/// Precedence between the vocabulary and an added token with the same text or id, as in `get_vocab` of a slow tokenizer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Precedence {
    /// The text gets the added token's id.
    Added,
    /// The text keeps the vocabulary's id (MPNet).
    Vocabulary,
    /// The added token replaces the vocabulary's token with the same id (SentencePiece tokenizers that follow fairseq).
    Replaced,
}

/// A vocabulary in the order of its ids.
#[derive(Debug)]
pub(super) struct Ids {
    pub(super) tokens: Vec<String>,
    /// Special tokens that the vocabulary does not contain, and that have no id in any file.
    pub(super) appended: Vec<String>,
    pub(super) warnings: Vec<String>,
}

impl Ids {
    /// Id of a token in the files: its last position, as in Elasticsearch.
    pub(super) fn place(&self, token: &str) -> Option<usize> {
        let place = self.tokens.iter().rposition(|other| other == token)?;
        (!self.appended.iter().any(|other| other == token)).then_some(place)
    }

    /// Renames tokens. Other tokens with one of the new names are renamed to filler tokens. Returns the replaced names, by id.
    pub(super) fn rename(&mut self, names: &[(usize, &str)]) -> Vec<(usize, String)> {
        let mut replaced = Vec::new();
        for (id, token) in self.tokens.iter_mut().enumerate() {
            let new = match names.iter().find(|(place, _)| *place == id) {
                Some((_, name)) => (*name).to_owned(),
                None if names.iter().any(|(_, name)| name == token) => filler(id),
                None => continue,
            };
            replaced.push((id, std::mem::replace(token, new)));
        }
        replaced
    }
}

/// Assigns ids as `PreTrainedTokenizer` does. `vocabulary` contains the tokens of the vocabulary files with their ids; if a token
/// occurs several times, its last id is used.
pub(super) fn slow(
    vocabulary: Vec<(usize, String)>,
    added: &AddedTokens,
    precedence: Precedence,
) -> Result<Ids, TokenizerError> {
    let mut by_id: BTreeMap<usize, &str> =
        added.by_id.iter().map(|(id, token)| (*id, token.as_str())).collect();
    let mut ids = with_added(&vocabulary, &by_id, precedence);
    let (next, before) = (ids.len(), by_id.clone());
    let mut appended = Vec::new();
    let mut lost = Vec::new();
    for token in &added.special {
        let id = ids.get(token.as_str()).copied().unwrap_or_else(|| {
            appended.push(token.clone());
            next + appended.len() - 1
        });
        // The token replaces an added token with the same id.
        if let Some(old) = by_id.insert(id, token).filter(|old| old != token) {
            lost.push(format!("{old:?} to {token:?} at {id}"));
        }
    }
    let warnings = some_of(&lost).map(|some| {
        format!(
            "added tokens have ids of special tokens, which take precedence, as in Transformers: {some}"
        )
    });
    if by_id != before {
        ids = with_added(&vocabulary, &by_id, precedence);
    }
    lay_out(&vocabulary, by_id.values().copied(), &ids, appended, warnings.into_iter().collect())
}

/// Ids of a vocabulary, including added tokens.
fn with_added<'a>(
    vocabulary: &'a [(usize, String)],
    added: &BTreeMap<usize, &'a str>,
    precedence: Precedence,
) -> HashMap<&'a str, usize> {
    let mut ids: HashMap<&str, usize> = HashMap::with_capacity(vocabulary.len() + added.len());
    if precedence == Precedence::Vocabulary {
        ids.extend(added.iter().map(|(id, token)| (*token, *id)));
    }
    let kept = |id: &usize| precedence != Precedence::Replaced || !added.contains_key(id);
    ids.extend(
        vocabulary.iter().filter(|(id, _)| kept(id)).map(|(id, token)| (token.as_str(), *id)),
    );
    if precedence != Precedence::Vocabulary {
        ids.extend(added.iter().map(|(id, token)| (*token, *id)));
    }
    ids
}

/// Assigns ids as `PreTrainedTokenizerFast` does. `in_file` contains the added tokens of `tokenizer.json`; added tokens of other
/// files follow them.
pub(super) fn fast(
    vocabulary: &[(usize, String)],
    in_file: &[AddedToken],
    added: &AddedTokens,
) -> Result<Ids, TokenizerError> {
    let mut ids: HashMap<&str, usize> = HashMap::with_capacity(vocabulary.len());
    ids.extend(vocabulary.iter().map(|(id, token)| (token.as_str(), *id)));
    let size = ids.len();
    let mut next = size;
    let mut renumbered = Vec::new();
    for token in in_file {
        let id = *ids.entry(&token.content).or_insert(next);
        next = next.max(id.saturating_add(1));
        if id != token.id {
            renumbered.push(format!("{:?} has {id}, not {}", token.content, token.id));
        }
    }
    for token in added.by_id.values() {
        let id = *ids.entry(token).or_insert(next);
        next = next.max(id.saturating_add(1));
    }
    let mut appended = Vec::new();
    for token in &added.special {
        let id = *ids.entry(token).or_insert_with(|| {
            appended.push(token.clone());
            next
        });
        next = next.max(id.saturating_add(1));
    }
    let warnings = some_of(&renumbered).map(|some| {
        format!("tokenizer.json assigns ids to added tokens that differ from those in Transformers: {some}")
    });
    let in_file = in_file.iter().map(|token| &token.content);
    let others = in_file.chain(added.by_id.values()).chain(&added.special);
    lay_out(vocabulary, others.map(String::as_str), &ids, appended, warnings.into_iter().collect())
}

/// Places each token at the position of its id: first those of the vocabulary, then the others, which replace earlier tokens at the
/// same position. An empty position gets a filler token, so that the ids of later tokens do not change.
fn lay_out<'a>(
    vocabulary: &'a [(usize, String)],
    others: impl Iterator<Item = &'a str>,
    ids: &HashMap<&str, usize>,
    appended: Vec<String>,
    mut warnings: Vec<String>,
) -> Result<Ids, TokenizerError> {
    let length = ids.values().max().map_or(0, |id| id.saturating_add(1));
    // Real vocabularies have few gaps. Many gaps would cost memory out of proportion to the file.
    if length > 2 * ids.len() + 1024 {
        return Err(TokenizerError::Id { id: length - 1, tokens: ids.len() });
    }
    let mut places: Vec<Option<&'a str>> = vec![None; length];
    let at = |id: usize, token: &str| ids.get(token) == Some(&id);
    for (id, token) in vocabulary {
        if let Some(place) = places.get_mut(*id) {
            *place = Some(token);
        }
    }
    let mut replaced = Vec::new();
    for token in others {
        let Some(&id) = ids.get(token) else { continue };
        let Some(place) = places.get_mut(id) else { continue };
        if let Some(old) = place.replace(token)
            && old != token
            && at(id, old)
        {
            replaced.push(format!("{old:?} and {token:?} at {id}"));
        }
    }
    let mut twice = Vec::new();
    let tokens = places
        .into_iter()
        .enumerate()
        .map(|(id, place)| match place {
            Some(token) if at(id, token) => token.to_owned(),
            Some(token) => {
                let counts = ids.get(token).copied().unwrap_or_default();
                twice.push(format!("{token:?} at {id} and {counts}"));
                // The server also uses the last position of a repeated token.
                if counts > id { token.to_owned() } else { filler(id) }
            }
            None => filler(id),
        })
        .collect();
    warnings.extend(some_of(&twice).map(|some| {
        format!("the vocabulary contains tokens twice ({some}); the second id is used, as in Transformers")
    }));
    warnings.extend(some_of(&replaced).map(|some| {
        format!("the vocabulary has two tokens with the same id ({some}); only the second one is uploaded")
    }));
    Ok(Ids { tokens, appended, warnings })
}

/// A token that no text contains, because the server splits words at spaces.
pub(super) fn filler(id: usize) -> String {
    format!("[unused id {id}]")
}

/// The first items of a list and the number of further items, for a message. `None` for an empty list.
pub(super) fn some_of(list: &[String]) -> Option<String> {
    const SHOWN: usize = 3;
    let shown = list.get(..SHOWN).unwrap_or(list).join(", ");
    match list.len() {
        0 => None,
        n if n > SHOWN => Some(format!("{shown} and {} more", n - SHOWN)),
        _ => Some(shown),
    }
}

/// Tokens with different ids in two lists, for a message.
pub(super) fn differences(a: &[String], b: &[String]) -> Vec<String> {
    fn ids(tokens: &[String]) -> HashMap<&str, usize> {
        tokens.iter().enumerate().map(|(id, token)| (token.as_str(), id)).collect()
    }
    if a == b {
        return Vec::new();
    }
    let (a_ids, b_ids) = (ids(a), ids(b));
    let name = |id: Option<&usize>| id.map_or("none".into(), usize::to_string);
    let other = |(id, token): (usize, &String)| {
        let (here, there) = (a_ids.get(token.as_str()), b_ids.get(token.as_str()));
        // If a list contains a token twice, its last position is used.
        let counts = here.or(there) == Some(&id);
        (counts && here != there)
            .then(|| format!("{token:?} has {} and {}", name(here), name(there)))
    };
    let only_b = |(_, token): &(usize, &String)| !a_ids.contains_key(token.as_str());
    a.iter()
        .enumerate()
        .filter_map(other)
        .chain(b.iter().enumerate().filter(only_b).filter_map(other))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vocabulary(tokens: &[&str]) -> Vec<(usize, String)> {
        tokens.iter().map(|token| (*token).to_owned()).enumerate().collect()
    }

    fn added(by_id: &[(usize, &str)], special: &[&str]) -> AddedTokens {
        AddedTokens {
            by_id: by_id.iter().map(|(id, token)| (*id, (*token).to_owned())).collect(),
            special: special.iter().map(|token| (*token).to_owned()).collect(),
            ..AddedTokens::default()
        }
    }

    #[test]
    fn repeated_token_keeps_all_ids_in_place() {
        let ids =
            slow(vocabulary(&["a", "b", "a", "c"]), &added(&[], &[]), Precedence::Added).unwrap();
        assert_eq!(ids.tokens, ["a", "b", "a", "c"]);
        assert_eq!(ids.warnings.len(), 1);
    }

    #[test]
    fn added_token_replaces_the_token_at_its_id() {
        let moved = added(&[(0, "b"), (4, "c")], &[]);
        let ids = slow(vocabulary(&["a", "b", "c"]), &moved, Precedence::Added).unwrap();
        // `b` has the id 0, so the later `b` must not be found.
        assert_eq!(ids.tokens, ["b", "[unused id 1]", "c", "[unused id 3]", "c"]);
        let ids = slow(vocabulary(&["a", "b", "c"]), &moved, Precedence::Vocabulary).unwrap();
        assert_eq!(ids.tokens, ["a", "b", "c"]);
    }

    #[test]
    fn special_tokens_that_are_missing_come_last() {
        let special = added(&[(3, "x")], &["b", "[A]", "[B]"]);
        let ids = slow(vocabulary(&["a", "b", "c"]), &special, Precedence::Added).unwrap();
        assert_eq!(ids.tokens, ["a", "b", "c", "x", "[A]", "[B]"]);
        assert_eq!(ids.appended, ["[A]", "[B]"]);
        // As in Transformers, the number of tokens determines the next id, so the first special token gets the id of `x`.
        let special = added(&[(4, "x")], &["[A]", "[B]"]);
        let ids = slow(vocabulary(&["a", "b", "c"]), &special, Precedence::Added).unwrap();
        assert_eq!(ids.tokens, ["a", "b", "c", "[unused id 3]", "[A]", "[B]"]);
        assert_eq!(ids.warnings.len(), 1);
    }

    #[test]
    fn huge_id_is_rejected_without_a_huge_list() {
        let far = added(&[(usize::MAX, "x")], &[]);
        let error = slow(vocabulary(&["a"]), &far, Precedence::Added).unwrap_err();
        assert!(matches!(error, TokenizerError::Id { .. }));
    }
}
