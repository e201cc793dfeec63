//! The program: parse, run, print the error, choose the exit code.

use std::io::Write as _;
use std::process::ExitCode;

use rust_eland::cli;

fn main() -> ExitCode {
    #[cfg(feature = "torch")]
    rust_eland::torchscript::set_environment();
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => {
            let line = format!("error: cannot start the threads of the program: {error}");
            let _ = writeln!(std::io::stderr(), "{line}");
            return ExitCode::FAILURE;
        }
    };
    let code = match runtime.block_on(cli::run(std::env::args_os())) {
        Ok(()) => 0,
        Err(failed) => {
            failed.print();
            failed.exit_code()
        }
    };
    runtime.shutdown_background();
    let _ = std::io::stdout().flush();
    // A usual exit would run the destructors of libtorch. They take a tenth of a second, and a conversion that was interrupted may
    // still run on another thread.
    signal_hook::low_level::exit(code.into())
}
