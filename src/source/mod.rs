//! Where a model's files come from.

mod directory;

pub use directory::{ModelFiles, SourceError};
