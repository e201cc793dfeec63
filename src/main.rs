//! The program: parse, run, print the error, choose the exit code.

use std::process::ExitCode;

use rust_eland::secrets::redact;

#[tokio::main]
async fn main() -> ExitCode {
    match rust_eland::cli::run(std::env::args_os()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {}", redact(&error.to_string()));
            ExitCode::from(error.exit_code())
        }
    }
}
