//! Tokenization as the server does it (contract, 3): the program's own module, which `tests/suite/server_tokens.rs` compares with what
//! Elasticsearch's classes returned.

#[cfg(torch)]
pub(crate) use rust_eland::server_tokenization::Inputs;
pub(crate) use rust_eland::server_tokenization::{Row, Tokenizer};

use axum::http::StatusCode;
use rust_eland::server_tokenization::TokenizationError;

use crate::configuration::tokenization::Tokenization;
use crate::errors::ApiError;
use crate::vocabulary::Vocabulary;

/// Builds a tokenizer from a stored vocabulary. A missing token is an error only here, when a deployment starts (contract, 3.2).
pub(crate) fn build(
    settings: &Tokenization,
    vocabulary: Vocabulary,
) -> Result<Tokenizer, ApiError> {
    let Vocabulary { vocabulary, merges, scores } = vocabulary;
    Ok(Tokenizer::build(settings.library_settings(), vocabulary, &merges, &scores)?)
}

impl From<TokenizationError> for ApiError {
    fn from(error: TokenizationError) -> Self {
        match error {
            TokenizationError::Server { exception, message } => {
                let status = StatusCode::from_u16(exception.status())
                    .unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
                Self::exception(status, exception.name(), message)
            }
            TokenizationError::NoJapaneseAnalyser => Self::not_implemented(error.to_string()),
        }
    }
}
