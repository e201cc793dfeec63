//! How the upload changes or approximates a model's tokenizer.

/// How the upload changes or approximates a model's tokenizer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Adaptation {
    /// The tokenizer is uploaded as it is.
    #[default]
    None,
    /// Special tokens are renamed, or a step before the algorithm is left out.
    Adapted,
    /// Words are split with another expression, or texts are not changed as the model's tokenizer changes them.
    Approximated,
}

impl Adaptation {
    /// Whether a model is refused if the tokens differ too much. A model of an established architecture was imported with an adapted
    /// tokenizer before differences were measured, so for it they are only reported.
    #[must_use]
    pub fn needs_exactness(self, is_established: bool) -> bool {
        match self {
            Self::None => false,
            Self::Adapted => !is_established,
            Self::Approximated => true,
        }
    }
}
