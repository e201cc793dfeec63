//! Ctrl-C and SIGTERM.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag::register_conditional_shutdown;

use super::exit_code::INTERRUPTED;
use crate::elasticsearch::{ClientError, Interruption};

/// Whether a signal ends the program, although a handler is installed.
static ENDS: LazyLock<Arc<AtomicBool>> = LazyLock::new(|| Arc::new(AtomicBool::new(true)));

/// Makes Ctrl-C and SIGTERM end the program if it is the first process of a container. The kernel ignores signals of such a process that
/// have no handler; other processes end.
pub(super) fn end_first_process() {
    if std::process::id() != 1 {
        return;
    }
    for signal in [SIGINT, SIGTERM] {
        let done = register_conditional_shutdown(signal, INTERRUPTED.into(), Arc::clone(&ENDS));
        if let Err(error) = done {
            tracing::warn!("Ctrl-C or a stop of the container may not end the program: {error}");
        }
    }
}

/// Starts to handle Ctrl-C and SIGTERM. `on_first` runs at the first signal.
pub(super) fn interruption(
    on_first: impl FnOnce() + Send + 'static,
) -> Result<Interruption, ClientError> {
    let interruption = Interruption::of_signals(on_first)?;
    ENDS.store(false, Ordering::SeqCst);
    Ok(interruption)
}
