//! SentencePiece models: protobuf messages (`sentencepiece_model.proto`).

use prost::Message;
use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};

use super::TokenizerError;

/// A piece in the file.
#[derive(Clone, PartialEq, Message)]
struct RawPiece {
    #[prost(string, optional, tag = "1")]
    piece: Option<String>,
    #[prost(float, optional, tag = "2")]
    score: Option<f32>,
}

/// The relevant fields of the training settings.
#[derive(Clone, PartialEq, Message)]
pub(super) struct TrainerSpec {
    #[prost(int32, optional, tag = "3")]
    model_type: Option<i32>,
    #[prost(bool, optional, tag = "24")]
    treat_whitespace_as_suffix: Option<bool>,
    #[prost(bool, optional, tag = "35")]
    byte_fallback: Option<bool>,
}

/// The relevant fields of the normalizer settings.
#[derive(Clone, PartialEq, Message)]
pub(super) struct NormalizerSpec {
    #[prost(string, optional, tag = "1")]
    name: Option<String>,
    #[prost(bool, optional, tag = "3")]
    add_dummy_prefix: Option<bool>,
}

/// A piece of the vocabulary. Its index is its id.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Piece {
    pub(super) text: String,
    pub(super) score: f64,
}

/// A SentencePiece model.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct SentencePieceModel {
    pub(super) pieces: Vec<Piece>,
    trainer: TrainerSpec,
    normalizer: NormalizerSpec,
}

/// Highest number of pieces. The largest published model, XLM-V, has 901,629.
const MAX_PIECES: usize = 1 << 20;

impl SentencePieceModel {
    /// Parses a model. Pieces are decoded one by one and counted, so that a file cannot use many times its size in memory.
    pub(super) fn parse(file: &'static str, bytes: &[u8]) -> Result<Self, TokenizerError> {
        let broken = |reason: String| TokenizerError::Broken { file, reason };
        let undecodable =
            |e: prost::DecodeError| broken(format!("it is not a SentencePiece model ({e})"));
        let mut rest = bytes;
        let mut model = Self {
            pieces: Vec::new(),
            trainer: TrainerSpec::default(),
            normalizer: NormalizerSpec::default(),
        };
        while !rest.is_empty() {
            let (tag, wire_type) = decode_key(&mut rest).map_err(undecodable)?;
            if wire_type != WireType::LengthDelimited || tag > 3 {
                skip_field(wire_type, tag, &mut rest, DecodeContext::default())
                    .map_err(undecodable)?;
                continue;
            }
            let length = decode_varint(&mut rest).map_err(undecodable)?;
            let (message, behind) = usize::try_from(length)
                .ok()
                .and_then(|length| rest.split_at_checked(length))
                .ok_or_else(|| broken("it is truncated; download it again".into()))?;
            rest = behind;
            match tag {
                1 if model.pieces.len() == MAX_PIECES => {
                    return Err(broken(format!("it has more than {MAX_PIECES} pieces")));
                }
                1 => {
                    let raw = RawPiece::decode(message).map_err(undecodable)?;
                    let (text, score) =
                        (raw.piece.unwrap_or_default(), raw.score.unwrap_or_default());
                    if text.is_empty() {
                        return Err(broken(format!("piece {} is empty", model.pieces.len())));
                    }
                    if !score.is_finite() {
                        return Err(broken(format!("the piece {text:?} has the score {score}")));
                    }
                    model.pieces.push(Piece { text, score: score.into() });
                }
                2 => model.trainer.merge(message).map_err(undecodable)?,
                _ => model.normalizer.merge(message).map_err(undecodable)?,
            }
        }
        if model.pieces.is_empty() {
            return Err(TokenizerError::Empty(file));
        }
        Ok(model)
    }

    /// Name of the training algorithm in the proto file.
    pub(super) fn algorithm(&self) -> &'static str {
        match self.trainer.model_type {
            None | Some(1) => "UNIGRAM",
            Some(2) => "BPE",
            Some(3) => "WORD",
            Some(4) => "CHAR",
            _ => "unknown",
        }
    }

    /// Score of an id, if the id exists.
    pub(super) fn score(&self, id: usize) -> Option<f64> {
        self.pieces.get(id).map(|piece| piece.score)
    }

    /// Whether unknown characters are split into bytes.
    pub(super) fn byte_fallback(&self) -> bool {
        self.trainer.byte_fallback == Some(true)
    }

    /// Warnings for settings that the server does not support.
    pub(super) fn peculiarities(&self) -> Vec<String> {
        let mut all = Vec::new();
        let normalizer = self.normalizer.name.as_deref().unwrap_or_default();
        if normalizer != "nmt_nfkc" {
            all.push(format!(
                "the SentencePiece model normalizes text with {}; Elasticsearch always uses nmt_nfkc",
                if normalizer.is_empty() { "rules without a name" } else { normalizer }
            ));
        }
        if self.normalizer.add_dummy_prefix == Some(false) {
            all.push(
                "the SentencePiece model does not insert a space before a text (add_dummy_prefix false); Elasticsearch always does".into(),
            );
        }
        if self.trainer.treat_whitespace_as_suffix == Some(true) {
            all.push(
                "the SentencePiece model marks the ends of words (treat_whitespace_as_suffix); Elasticsearch marks their beginnings"
                    .into(),
            );
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn piece(text: &str, score: f32) -> Vec<u8> {
        let piece = RawPiece { piece: Some(text.into()), score: Some(score) };
        let mut bytes = vec![0x0a];
        piece.encode_length_delimited(&mut bytes).unwrap();
        bytes
    }

    fn parse(bytes: &[u8]) -> Result<SentencePieceModel, String> {
        SentencePieceModel::parse("spm.model", bytes).map_err(|e| e.to_string())
    }

    #[test]
    fn sentencepiece_model_with_unknown_fields_is_parsed() {
        let mut bytes = piece("▁a", -1.25);
        bytes.extend([0x12, 4, 0x18, 2, 0x20, 7]); // trainer_spec {model_type: BPE, vocab_size: 7}
        bytes.extend([0x1a, 3, 0x0a, 1, b'x']); // normalizer_spec {name: "x"}
        bytes.extend([0x22, 1, 0]); // self_test_data
        bytes.extend(piece("b", 0.));
        let model = parse(&bytes).unwrap();
        assert_eq!(model.pieces.len(), 2);
        assert_eq!(model.pieces[0], Piece { text: "▁a".into(), score: -1.25 });
        assert_eq!(model.algorithm(), "BPE");
        assert_eq!(model.peculiarities().len(), 1);
    }

    #[test]
    fn damaged_files_are_rejected() {
        assert!(parse(b"").unwrap_err().contains("no tokens"));
        assert!(parse(&[0x0a, 0x7f, 0]).unwrap_err().contains("it is truncated"));
        assert!(parse(&[0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f]).is_err());
        assert!(parse(&piece("a", f32::NAN)).unwrap_err().contains("score"));
        assert!(parse(b"{\"no\": \"protobuf\"}").is_err());
        assert!(parse(&[0x0a, 0]).unwrap_err().contains("empty"));
        let many = piece("a", 0.).repeat(MAX_PIECES + 1);
        assert!(parse(&many).unwrap_err().contains("more than"));
    }
}
