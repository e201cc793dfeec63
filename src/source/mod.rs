//! Where a model's files come from.

mod directory;
pub mod hub;
mod origin;

pub use directory::{ModelFiles, SourceError};
pub use origin::Origin;
