//! The steps of an import, shared by every front end: the commands and the public API.

pub mod import_fingerprint;
