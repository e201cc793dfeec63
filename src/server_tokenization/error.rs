//! Why the server does not tokenize a text.

/// An exception that the server throws for a text or a vocabulary. The user sees it as an error of that document.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenizationError {
    /// The server throws an exception.
    #[error("{message}")]
    Server {
        /// The class of the exception.
        exception: Exception,
        /// The message of the exception.
        message: String,
    },
    /// The tokenizer needs a dictionary that this program does not have.
    #[error(
        "the tokens of a bert_ja model cannot be computed on this machine: Elasticsearch segments the text with its Japanese analyser (kuromoji), which this program does not contain"
    )]
    NoJapaneseAnalyser,
}

/// The class of an exception in the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exception {
    /// `ElasticsearchStatusException` with status 400.
    BadRequest,
    /// `ElasticsearchStatusException` with status 409.
    Conflict,
    /// `IllegalArgumentException`, status 400.
    IllegalArgument,
    /// `IllegalStateException`, status 500.
    IllegalState,
    /// `IndexOutOfBoundsException`, status 500.
    IndexOutOfBounds,
    /// `ArrayIndexOutOfBoundsException`, status 500.
    ArrayIndexOutOfBounds,
}

impl Exception {
    /// The name of the exception in an answer of the server.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::BadRequest | Self::Conflict => "status_exception",
            Self::IllegalArgument => "illegal_argument_exception",
            Self::IllegalState => "illegal_state_exception",
            Self::IndexOutOfBounds => "index_out_of_bounds_exception",
            Self::ArrayIndexOutOfBounds => "array_index_out_of_bounds_exception",
        }
    }

    /// The HTTP status of an answer with the exception.
    #[must_use]
    pub fn status(self) -> u16 {
        match self {
            Self::BadRequest | Self::IllegalArgument => 400,
            Self::Conflict => 409,
            Self::IllegalState | Self::IndexOutOfBounds | Self::ArrayIndexOutOfBounds => 500,
        }
    }

    pub(super) fn error(self, message: impl Into<String>) -> TokenizationError {
        TokenizationError::Server { exception: self, message: message.into() }
    }

    /// The error of an index outside a list, in Java's words.
    pub(crate) fn index(self, index: i64, length: usize) -> TokenizationError {
        self.error(format!("Index {index} out of bounds for length {length}"))
    }
}
