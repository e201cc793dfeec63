//! The program: parse, run, print the error, choose the exit code.

use std::process::ExitCode;

#[tokio::main]
async fn main() -> ExitCode {
    match rust_eland::cli::run(std::env::args_os()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(failed) => {
            failed.tell();
            ExitCode::from(failed.error.exit_code())
        }
    }
}
