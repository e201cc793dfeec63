//! Layout of two texts in a row, as the model's own tokenizer produces it.

use serde_json::Value;

use super::class::Class;
use super::tokenizer_json::{TokenizerJson, is, parts};

/// Layout of a pair: the first text, separators, the second text, a separator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PairLayout {
    /// Number of separators between the texts.
    pub separators: usize,
    /// Whether every token after the first separator has type 1. Otherwise all tokens have type 0.
    pub typed: bool,
}

/// Whether the model's tokenizer returns token types, according to `model_input_names` in `tokenizer_config.json`, or else to its
/// class.
pub(super) fn makes_token_types(names: Option<&[String]>, class_names: Option<bool>) -> bool {
    match names {
        Some(names) => names.iter().any(|name| name == "token_type_ids"),
        None => class_names.unwrap_or(true),
    }
}

/// Layout of a class, if no `tokenizer.json` defines one.
pub(super) fn of_class(class: Class, makes_token_types: bool) -> PairLayout {
    match class {
        Class::Bert | Class::BertJapanese | Class::DebertaV2 => {
            PairLayout { separators: 1, typed: makes_token_types }
        }
        Class::MpNet | Class::Roberta | Class::XlmRoberta | Class::Camembert => {
            PairLayout { separators: 2, typed: false }
        }
    }
}

/// A piece of a template.
#[derive(Debug, PartialEq, Eq)]
enum Piece<'a> {
    First,
    Second,
    Token(&'a str),
}

/// Layout of the post-processor in `tokenizer.json`. `None` if it has none.
///
/// # Errors
/// The reason, if a row of Elasticsearch cannot be converted to the layout.
pub(super) fn of_json(
    json: &TokenizerJson,
    makes_token_types: bool,
) -> Option<Result<PairLayout, String>> {
    parts(json.post_processor(), "processors").into_iter().find_map(|part| {
        if is(part, "BertProcessing") {
            return Some(Ok(PairLayout { separators: 1, typed: makes_token_types }));
        }
        if is(part, "RobertaProcessing") {
            return Some(Ok(PairLayout { separators: 2, typed: false }));
        }
        let pieces: Vec<(Piece<'_>, u64)> =
            part.get("pair")?.as_array()?.iter().filter_map(piece).collect();
        Some(of_template(&pieces, makes_token_types))
    })
}

fn piece(piece: &Value) -> Option<(Piece<'_>, u64)> {
    let (kind, fields) = piece.as_object()?.iter().next()?;
    let id = fields.get("id")?.as_str()?;
    let kind = match (kind.as_str(), id) {
        ("Sequence", "A") => Piece::First,
        ("Sequence", "B") => Piece::Second,
        (_, token) => Piece::Token(token),
    };
    Some((kind, fields.get("type_id").and_then(Value::as_u64).unwrap_or(0)))
}

fn of_template(pieces: &[(Piece<'_>, u64)], makes_types: bool) -> Result<PairLayout, String> {
    let [
        (Piece::Token(_), begin),
        (Piece::First, first),
        middle @ ..,
        (Piece::Second, second),
        (Piece::Token(separator), end),
    ] = pieces
    else {
        return Err(format!(
            "tokenizer.json lays out a pair as {}, but Elasticsearch as first token, text, separator, text, separator",
            describe(pieces)
        ));
    };
    let between: Vec<u64> = middle
        .iter()
        .filter(|(piece, _)| *piece == Piece::Token(separator))
        .map(|(_, kind)| *kind)
        .collect();
    if between.len() != middle.len() || !(1..=2).contains(&between.len()) {
        return Err(format!(
            "tokenizer.json inserts {} between the texts of a pair, but Elasticsearch inserts one or two {separator}",
            describe(middle)
        ));
    }
    if !makes_types {
        return Ok(PairLayout { separators: between.len(), typed: false });
    }
    let of_first = [*begin, *first].into_iter().chain(between.first().copied());
    let of_second = between.iter().skip(1).copied().chain([*second, *end]);
    let all = |mut types: Vec<u64>| {
        types.dedup();
        if let [one] = types[..] { Some(one) } else { None }
    };
    match (all(of_first.collect()), all(of_second.collect())) {
        (Some(0), Some(0)) => Ok(PairLayout { separators: between.len(), typed: false }),
        (Some(0), Some(1)) => Ok(PairLayout { separators: between.len(), typed: true }),
        _ => Err(format!(
            "tokenizer.json assigns the types {} to the tokens of a pair; only type 0 up to the first separator and type 1 after it are supported",
            pieces.iter().map(|(_, kind)| kind.to_string()).collect::<Vec<_>>().join(" ")
        )),
    }
}

fn describe(pieces: &[(Piece<'_>, u64)]) -> String {
    let name = |(piece, _): &(Piece<'_>, u64)| match piece {
        Piece::First => "A".to_owned(),
        Piece::Second => "B".to_owned(),
        Piece::Token(token) => (*token).to_owned(),
    };
    if pieces.is_empty() {
        return "nothing".to_owned();
    }
    pieces.iter().map(name).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(template: &str, types: &str) -> Result<PairLayout, String> {
        let types = types.split(' ').map(|kind| kind.parse().unwrap());
        let pieces = template.split(' ').map(|piece| match piece {
            "A" => Piece::First,
            "B" => Piece::Second,
            token => Piece::Token(token),
        });
        of_template(&pieces.zip(types).collect::<Vec<_>>(), true)
    }

    #[test]
    fn layout_counts_separators_and_reads_types() {
        let layout = |separators, typed| Ok(PairLayout { separators, typed });
        assert_eq!(read("[CLS] A [SEP] B [SEP]", "0 0 0 1 1"), layout(1, true));
        assert_eq!(read("[CLS] A [SEP] B [SEP]", "0 0 0 0 0"), layout(1, false));
        assert_eq!(read("<s> A </s> </s> B </s>", "0 0 0 0 0 0"), layout(2, false));
        assert_eq!(read("<s> A </s> </s> B </s>", "0 0 0 1 1 1"), layout(2, true));
    }

    #[test]
    fn layout_that_cannot_be_restored_is_refused() {
        for (template, types) in [
            ("[CLS] B [SEP] A [SEP]", "0 0 0 1 1"),
            ("A [SEP] B [SEP]", "0 0 0 0"),
            ("[CLS] A B [SEP]", "0 0 0 0"),
            ("[CLS] A [X] B [SEP]", "0 0 0 0 0"),
            ("[CLS] A [SEP] B [SEP]", "0 0 0 1 0"),
            ("[CLS] A [SEP] B [SEP]", "1 1 1 0 0"),
        ] {
            assert!(read(template, types).is_err(), "{template} {types}");
        }
    }
}
