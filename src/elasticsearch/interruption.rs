//! Ctrl-C and SIGTERM while something is in the making on the cluster: once to stop in good order, twice to stop now.

use std::io;

use tokio::sync::watch;

use super::ClientError;

/// Tells whether the user wants the work to stop. Clones tell the same.
#[derive(Debug, Clone)]
pub struct Interruption(watch::Receiver<u8>);

/// Asks for the stop.
#[derive(Debug)]
pub struct Interrupter(watch::Sender<u8>);

impl Interrupter {
    /// Asks to stop in good order; the second time, to stop now.
    pub fn interrupt(&self) {
        self.0.send_modify(|times| *times = times.saturating_add(1));
    }
}

impl Interruption {
    /// One that nobody asks for until [`Interrupter::interrupt`] is called.
    #[must_use]
    pub fn new() -> (Interrupter, Self) {
        let (sender, receiver) = watch::channel(0);
        (Interrupter(sender), Self(receiver))
    }

    /// Takes over Ctrl-C and SIGTERM from here on. `told` is called at the first of them.
    ///
    /// # Errors
    /// [`ClientError::Signals`] when the system does not let signals be listened to.
    pub fn of_signals(told: impl FnOnce() + Send + 'static) -> Result<Self, ClientError> {
        let mut signals =
            Signals::new().map_err(|error| ClientError::Signals(error.to_string()))?;
        let (interrupter, interruption) = Self::new();
        tokio::spawn(async move {
            signals.next().await;
            interrupter.interrupt();
            told();
            loop {
                signals.next().await;
                interrupter.interrupt();
            }
        });
        Ok(interruption)
    }

    /// Whether a stop is asked for.
    #[must_use]
    pub fn is_requested(&self) -> bool {
        *self.0.borrow() > 0
    }

    /// Waits until a stop is asked for.
    pub async fn requested(&mut self) {
        self.times(1).await;
    }

    /// Waits until a stop is asked for twice.
    pub async fn repeated(&mut self) {
        self.times(2).await;
    }

    async fn times(&mut self, times: u8) {
        if self.0.wait_for(|asked| *asked >= times).await.is_err() {
            // Nobody is left who could ask.
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
