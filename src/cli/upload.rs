//! How the upload goes about it.

use std::env;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use clap::builder::{PossibleValuesParser, RangedU64ValueParser, TypedValueParser};

use super::units;
use crate::elasticsearch::{
    ClientError, Import, Interruption, LARGEST_PART, OnConflict, SMALLEST_PART,
};
use crate::retry::RetryPolicy;

/// Takes over Ctrl-C and SIGTERM for uploads, and tells at the first how to stop at once.
pub(super) fn interruption() -> Result<Interruption, ClientError> {
    Interruption::of_signals(|| tracing::warn!("stopping; once more (Ctrl-C) to stop at once"))
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Upload")]
pub(super) struct UploadArguments {
    /// What to do when the cluster has a model of this id: fail; replace it once the new one is ready; skip, which succeeds when the
    /// same definition is there; or update, which replaces it unless the very same is there
    #[arg(
        long,
        value_name = "WHAT",
        default_value = "fail",
        value_parser = PossibleValuesParser::new(OnConflict::NAMES).try_map(|name| name.parse::<OnConflict>())
    )]
    on_conflict: OnConflict,
    /// The same as --on-conflict replace
    #[arg(long, conflicts_with = "on_conflict")]
    clear_previous: bool,
    /// How many parts go up at a time
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = RangedU64ValueParser::<usize>::new().range(1..=64))]
    upload_concurrency: usize,
    /// Bytes of a part, such as 512KiB or 4MiB; raised by itself when 10,000 parts would not hold the model
    #[arg(long, value_name = "SIZE", default_value = "1MiB", value_parser = part_size)]
    part_size: usize,
    /// How often a request is sent again when the cluster is busy or away
    #[arg(long, value_name = "N", default_value_t = RetryPolicy::default().retries)]
    retries: u32,
    /// How long a request is sent again after it first failed, such as 90s or 15m
    #[arg(long, value_name = "TIME", default_value = "10m", value_parser = units::duration)]
    timeout: Duration,
    /// Where the journals of uploads are kept, from which the same command goes on after an interruption [default: rust-eland in
    /// $XDG_STATE_HOME or ~/.local/state]
    #[arg(long, value_name = "FOLDER", env = "RUST_ELAND_STATE_DIR")]
    state_dir: Option<PathBuf>,
}

impl UploadArguments {
    pub(super) fn import(&self) -> Import {
        let retry =
            RetryPolicy { retries: self.retries, timeout: self.timeout, ..RetryPolicy::default() };
        Import {
            on_conflict: if self.clear_previous { OnConflict::Replace } else { self.on_conflict },
            concurrency: self.upload_concurrency,
            part_size: self.part_size,
            retry,
            state_folder: self.state_dir.clone().or_else(state_folder).or_else(|| {
                tracing::warn!(
                    "neither --state-dir nor HOME is set: an interrupted import begins anew"
                );
                None
            }),
            ..Import::default()
        }
    }
}

/// The XDG base directory for state. A relative path in the variable is to be passed over.
fn state_folder() -> Option<PathBuf> {
    let absolute =
        |name: &str| env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    absolute("XDG_STATE_HOME")
        .or_else(|| Some(absolute("HOME")?.join(".local/state")))
        .map(|folder| folder.join("rust-eland"))
}

fn part_size(text: &str) -> Result<usize, String> {
    let size = units::bytes(text)?;
    match usize::try_from(size) {
        Ok(size) if (SMALLEST_PART..=LARGEST_PART).contains(&size) => Ok(size),
        _ => Err("a part has 1 KiB to 35 MiB".into()),
    }
}
