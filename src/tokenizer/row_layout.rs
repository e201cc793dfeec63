//! Layout of the rows that the model's own tokenizer produces: special tokens around and between the texts.

use serde_json::Value;

use super::class::Class;
use super::tokenizer_json::{TokenizerJson, is, parts};

/// One piece of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Piece {
    /// The tokens of the first text.
    First,
    /// The tokens of the second text.
    Second,
    /// A special token, by its id.
    Token(i64),
}

/// The pieces of a row in their order, each with the token type of its tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowLayout {
    /// The pieces with their token types. Both texts appear at most once.
    pub pieces: Vec<(Piece, i64)>,
}

impl RowLayout {
    /// A first token, the first text, separators, and with `between` separators between the texts a second text. All types are 0.
    #[must_use]
    pub fn of_server(first: i64, separator: i64, between: Option<usize>) -> Self {
        let separator = Piece::Token(separator);
        let mut pieces = vec![Piece::Token(first), Piece::First];
        if let Some(between) = between {
            pieces.extend(std::iter::repeat_n(separator, between));
            pieces.push(Piece::Second);
        }
        pieces.push(separator);
        Self { pieces: pieces.into_iter().map(|piece| (piece, 0)).collect() }
    }

    /// One text and a separator. All types are 0.
    #[must_use]
    pub fn without_first(separator: i64) -> Self {
        Self { pieces: vec![(Piece::First, 0), (Piece::Token(separator), 0)] }
    }

    /// One text or two without special tokens.
    pub(super) fn of_texts(pair: bool, types: bool) -> Self {
        let mut pieces = vec![(Piece::First, 0)];
        pieces.extend(pair.then_some((Piece::Second, i64::from(types))));
        Self { pieces }
    }

    /// The pieces without their types.
    pub fn order(&self) -> impl Iterator<Item = Piece> {
        self.pieces.iter().map(|(piece, _)| *piece)
    }

    /// Number of special tokens.
    #[must_use]
    pub fn special_tokens(&self) -> i64 {
        self.order().map(|piece| i64::from(matches!(piece, Piece::Token(_)))).sum()
    }

    /// Whether all tokens have type 0.
    #[must_use]
    pub fn is_untyped(&self) -> bool {
        self.pieces.iter().all(|(_, kind)| *kind == 0)
    }

    /// Whether the tokens up to the first separator have type 0 and all others type 1, as in BERT's pairs.
    #[must_use]
    pub fn is_typed_as_bert(&self) -> bool {
        const FIRST: usize = 3;
        self.pieces.iter().enumerate().all(|(place, (_, kind))| *kind == i64::from(place >= FIRST))
    }

    /// The layout with another type for the pieces from the second text on, and without types if `types` is false.
    fn typed(mut self, types: bool) -> Self {
        const FIRST: usize = 3;
        for (place, (_, kind)) in self.pieces.iter_mut().enumerate() {
            *kind = i64::from(types && place >= FIRST);
        }
        self
    }
}

/// Whether the model's tokenizer outputs token types: `model_input_names` in `tokenizer_config.json`, otherwise those of its class.
pub(super) fn makes_token_types(names: Option<&[String]>, class_names: Option<bool>) -> bool {
    match names {
        Some(names) => names.iter().any(|name| name == "token_type_ids"),
        None => class_names.unwrap_or(true),
    }
}

/// Returns the id of a token by its name.
pub(super) type IdOf<'a> = dyn Fn(&str) -> Option<i64> + 'a;

/// Ids of the first token and of the separator.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ends {
    pub(super) first: i64,
    pub(super) separator: i64,
}

/// Layout of rows with one text that a tokenizer class produces without `tokenizer.json`.
pub(super) fn single_of_class(class: Class, ends: Ends) -> RowLayout {
    match class {
        Class::T5 => RowLayout::without_first(ends.separator),
        _ => RowLayout::of_server(ends.first, ends.separator, None),
    }
}

/// Layout of pairs that a tokenizer class produces without `tokenizer.json`.
pub(super) fn pair_of_class(class: Class, makes_types: bool, ends: Ends) -> RowLayout {
    let layout = |between| RowLayout::of_server(ends.first, ends.separator, Some(between));
    match class {
        Class::Bert | Class::BertJapanese | Class::Deberta | Class::Albert | Class::DebertaV2 => {
            layout(1).typed(makes_types)
        }
        Class::T5 => {
            let separator = Piece::Token(ends.separator);
            let pieces = [Piece::First, separator, Piece::Second, separator];
            RowLayout { pieces: pieces.map(|piece| (piece, 0)).to_vec() }
        }
        Class::MpNet | Class::Roberta | Class::XlmRoberta | Class::Camembert => layout(2),
        // Without a post-processor in tokenizer.json.
        Class::Gemma => RowLayout::of_texts(true, false),
    }
}

/// The layout that the post-processor of `tokenizer.json` gives to rows of one text (`single`) or of two (`pair`). None if it has no
/// post-processor for them.
///
/// `id` returns the id of a token by its name. Without it, the file's own ids count.
///
/// # Errors
/// What is unusual about a layout that cannot be built.
pub(super) fn of_json(
    json: &TokenizerJson,
    name: &str,
    makes_types: bool,
    id: Option<&IdOf<'_>>,
) -> Option<Result<RowLayout, String>> {
    let wants_pair = name == "pair";
    parts(json.post_processor(), "processors").into_iter().find_map(|part| {
        if let (Some(first), Some(separator)) = (end(part, "cls", id), end(part, "sep", id)) {
            let two = is(part, "RobertaProcessing");
            let between = wants_pair.then_some(if two { 2 } else { 1 });
            let layout = RowLayout::of_server(first, separator, between);
            return Some(Ok(layout.typed(wants_pair && makes_types && !two)));
        }
        let template = part.get(name)?.as_array()?;
        Some(of_template(part, template, wants_pair, makes_types, id))
    })
}

/// The id of a token in `BertProcessing` and `RobertaProcessing`: `["[SEP]", 102]`.
fn end(part: &Value, name: &str, id: Option<&IdOf<'_>>) -> Option<i64> {
    let end = part.get(name)?;
    match id {
        Some(id) => id(end.get(0)?.as_str()?),
        None => end.get(1)?.as_i64(),
    }
}

fn of_template(
    part: &Value,
    template: &[Value],
    wants_pair: bool,
    makes_types: bool,
    id: Option<&IdOf<'_>>,
) -> Result<RowLayout, String> {
    let mut pieces = Vec::new();
    let mut described = Vec::new();
    for entry in template {
        let Some((kind, fields)) = entry.as_object().and_then(|entry| entry.iter().next()) else {
            continue;
        };
        let name = fields.get("id").and_then(Value::as_str).unwrap_or_default();
        described.push(name.to_owned());
        let token_type = fields.get("type_id").and_then(Value::as_i64).unwrap_or(0);
        let token_type = if makes_types { token_type } else { 0 };
        if !(0..2).contains(&token_type) {
            return Err(format!("tokenizer.json gives tokens the type {token_type}"));
        }
        match (kind.as_str(), name) {
            ("Sequence", "A") => pieces.push((Piece::First, token_type)),
            ("Sequence", _) => pieces.push((Piece::Second, token_type)),
            _ => {
                let ids: Option<Vec<i64>> = match id {
                    Some(id) => id(name).map(|id| vec![id]),
                    // A name can have several.
                    None => part
                        .get("special_tokens")
                        .and_then(|all| all.get(name)?.get("ids")?.as_array())
                        .and_then(|ids| ids.iter().map(Value::as_i64).collect()),
                };
                let unknown =
                    || format!("tokenizer.json puts {name} around texts, which has no id");
                let tokens = ids.ok_or_else(unknown)?.into_iter().map(Piece::Token);
                pieces.extend(tokens.map(|token| (token, token_type)));
            }
        }
    }
    let count = |wanted| pieces.iter().filter(|(piece, _)| *piece == wanted).count();
    if count(Piece::First) != 1 || count(Piece::Second) != usize::from(wants_pair) {
        return Err(format!("tokenizer.json makes rows of {}", described.join(" ")));
    }
    Ok(RowLayout { pieces })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Reads a template such as `[CLS]:0 A:0 [SEP]:0`.
    fn read(template: &str, wants_pair: bool, makes_types: bool) -> Result<RowLayout, String> {
        let entries: Vec<Value> = template
            .split(' ')
            .map(|piece| {
                let (name, kind) = piece.split_once(':').unwrap();
                let key = if matches!(name, "A" | "B") { "Sequence" } else { "SpecialToken" };
                json!({key: {"id": name, "type_id": kind.parse::<i64>().unwrap()}})
            })
            .collect();
        let part = json!({"special_tokens":
            {"[CLS]": {"ids": [2]}, "[SEP]": {"ids": [3]}, "[TWO]": {"ids": [7, 8]}}});
        of_template(&part, &entries, wants_pair, makes_types, None)
    }

    #[test]
    fn template_is_read_with_ids_and_types() {
        let layout = read("[CLS]:0 A:0 [SEP]:0 B:1 [SEP]:1", true, true).unwrap();
        assert_eq!(layout, RowLayout::of_server(2, 3, Some(1)).typed(true));
        assert!(layout.is_typed_as_bert() && !layout.is_untyped());
        assert_eq!(layout.special_tokens(), 3);
        let untyped = read("[CLS]:0 A:0 [SEP]:0 B:1 [SEP]:1", true, false).unwrap();
        assert_eq!(untyped, RowLayout::of_server(2, 3, Some(1)));
        let single = read("A:1 [TWO]:1", false, true).unwrap();
        let pieces = [Piece::First, Piece::Token(7), Piece::Token(8)].map(|piece| (piece, 1));
        assert_eq!(single.pieces, pieces);
    }

    #[test]
    fn layout_that_cannot_be_built_is_refused() {
        for (template, wants_pair) in [
            ("[CLS]:0 A:0 [SEP]:0", true),
            ("[CLS]:0 A:0 B:0 B:0", true),
            ("[CLS]:0 A:0 B:0", false),
            ("[NONE]:0 A:0", false),
            ("[CLS]:0 A:2", false),
        ] {
            assert!(read(template, wants_pair, true).is_err(), "{template}");
        }
    }
}
