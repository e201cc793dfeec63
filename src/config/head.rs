//! Heads of Transformers classes.

use std::fmt;

/// The part of a Transformers class that maps hidden states to the output of a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Head {
    /// No head: the output of the base model.
    Base,
    /// `…ForMaskedLM`: logits `[batch, tokens, vocabulary]`.
    MaskedLm,
    /// `…ForTokenClassification`: logits `[batch, tokens, labels]`.
    TokenClassification,
    /// `…ForSequenceClassification`: logits `[batch, labels]`.
    SequenceClassification,
    /// `…ForQuestionAnswering`: logits of start and end, `[batch, tokens, 2]`.
    QuestionAnswering,
}

impl fmt::Display for Head {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Base => "hidden states",
            Self::MaskedLm => "masked language modelling",
            Self::TokenClassification => "token classification",
            Self::SequenceClassification => "sequence classification",
            Self::QuestionAnswering => "question answering",
        })
    }
}
