//! [`Interruption`]: Ctrl-C and SIGTERM during an upload. The first one finishes requests in flight, the second stops immediately.

use std::io;

use tokio::sync::watch;

use super::ClientError;

/// Whether the user requested a stop. Clones share the state.
#[derive(Debug, Clone)]
pub struct Interruption(watch::Receiver<u8>);

/// The handle that requests the stop.
#[derive(Debug)]
pub struct Interrupter(watch::Sender<u8>);

impl Interrupter {
    /// Requests a stop after the requests in flight; the second call requests an immediate stop.
    pub fn interrupt(&self) {
        self.0.send_modify(|times| *times = times.saturating_add(1));
    }
}

impl Interruption {
    /// An interruption that [`Interrupter::interrupt`] triggers.
    #[must_use]
    pub fn new() -> (Interrupter, Self) {
        let (sender, receiver) = watch::channel(0);
        (Interrupter(sender), Self(receiver))
    }

    /// Starts to handle Ctrl-C and SIGTERM. `on_first` runs at the first signal.
    ///
    /// # Errors
    /// [`ClientError::Signals`] if the operating system refuses to deliver signals.
    pub fn of_signals(on_first: impl FnOnce() + Send + 'static) -> Result<Self, ClientError> {
        let mut signals =
            Signals::new().map_err(|error| ClientError::Signals(error.to_string()))?;
        let (interrupter, interruption) = Self::new();
        tokio::spawn(async move {
            signals.next().await;
            interrupter.interrupt();
            on_first();
            loop {
                signals.next().await;
                interrupter.interrupt();
            }
        });
        Ok(interruption)
    }

    /// Whether a stop was requested.
    #[must_use]
    pub fn is_requested(&self) -> bool {
        *self.0.borrow() > 0
    }

    /// Waits until a stop is requested.
    pub async fn requested(&mut self) {
        self.times(1).await;
    }

    /// Waits until a stop is requested twice.
    pub async fn repeated(&mut self) {
        self.times(2).await;
    }

    async fn times(&mut self, times: u8) {
        if self.0.wait_for(|asked| *asked >= times).await.is_err() {
            // The interrupter was dropped, so no stop can be requested.
            std::future::pending::<()>().await;
        }
    }
}

/// Ctrl-C and SIGTERM.
struct Signals {
    #[cfg(unix)]
    interrupt: tokio::signal::unix::Signal,
    #[cfg(unix)]
    terminate: tokio::signal::unix::Signal,
    #[cfg(windows)]
    interrupt: tokio::signal::windows::CtrlC,
}

impl Signals {
    #[cfg(unix)]
    fn new() -> io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    #[cfg(windows)]
    fn new() -> io::Result<Self> {
        Ok(Self { interrupt: tokio::signal::windows::ctrl_c()? })
    }

    #[cfg(unix)]
    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }

    #[cfg(windows)]
    async fn next(&mut self) {
        self.interrupt.recv().await;
    }
}
