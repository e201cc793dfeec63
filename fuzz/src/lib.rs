//! Fuzz targets for the readers of downloaded files. `make fuzz` runs them.

pub mod limit;
pub mod targets;
