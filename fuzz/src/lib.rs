//! Fuzz targets for what reads files from the hub. `make fuzz` runs them.

pub mod limit;
pub mod targets;
