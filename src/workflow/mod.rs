//! The steps from a model to a served model, shared by all commands and by the public API.
//!
//! ```text
//! ModelSource ── resolve ──► ResolvedSource ── prepare ──► Bundle ── store ──► Outcome ── serve ──► Served
//! ```
//!
//! [`ModelSource::resolve`] queries the hub once. It determines the commit and the list of files, which the plan, the fingerprint
//! and the bundle use. [`ImportRequest`] runs all steps in order; [`ExportRequest`] writes the bundle to a folder instead of storing it.

mod check;
mod export;
mod import;
pub mod import_fingerprint;
#[cfg(feature = "torch")]
mod local_model;
#[cfg(not(feature = "torch"))]
#[path = "local_model_without_torch.rs"]
mod local_model;
mod prepare;
mod resolve;
mod serve;
pub mod token_comparison;
#[cfg(feature = "torch")]
pub mod verification;

pub use check::{CheckLine, CheckState, ClusterCheck, Subject};
pub use export::{ExportRequest, Exported};
pub use import::{
    ImportInput, ImportRequest, Imported, PlannedContent, PlannedImport, StopSignal,
    ValidatedImport, connect,
};
pub use local_model::LocalModel;
pub use prepare::{ModelRequest, Prepared};
pub use resolve::{ModelSource, ResolvedSource, plan_download};
pub use serve::{ServeRequest, Served, StartRequest, Started};
