//! How the upload changes or approximates a model's tokenizer.

/// How the upload changes or approximates a model's tokenizer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Adaptation {
    /// The tokenizer is uploaded as it is.
    #[default]
    None,
    /// Special tokens are renamed, or a step before the algorithm is left out.
    Adapted,
    /// Words are split with another expression.
    Approximated,
}

/// Architectures that were imported with adapted tokenizers before differences were measured. For these a difference is only
/// reported.
const ESTABLISHED: [&str; 13] = [
    "bart",
    "bert",
    "camembert",
    "deberta-v2",
    "distilbert",
    "dpr",
    "electra",
    "mobilebert",
    "mpnet",
    "retribert",
    "roberta",
    "squeezebert",
    "xlm-roberta",
];

impl Adaptation {
    /// Whether a model of an architecture is refused if the tokens differ too much.
    #[must_use]
    pub fn needs_exactness(self, architecture: &str) -> bool {
        match self {
            Self::None => false,
            Self::Adapted => !ESTABLISHED.contains(&architecture),
            Self::Approximated => true,
        }
    }
}
