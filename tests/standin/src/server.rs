//! A stand-in that listens, and what a test can ask of it.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use serde_json::Value;
use tempfile::TempDir;
use tokio::runtime;
use tokio::sync::oneshot;

use crate::api::router;
use crate::cluster::Cluster;
use crate::log::Exchange;
use crate::options::Options;
use crate::vocabulary::Vocabulary;

/// A running stand-in. It listens on the loopback interface only and stops when it is dropped.
pub struct StandIn {
    address: SocketAddr,
    cluster: Arc<Cluster>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
    /// Kept until the end when no directory was named.
    _directory: Option<TempDir>,
}

impl StandIn {
    /// Starts a stand-in.
    ///
    /// # Panics
    /// When it cannot: the port is taken, the directory cannot be written, an existing model's id is not valid.
    #[must_use]
    pub fn start(options: Options) -> Self {
        match Self::try_start(options) {
            Ok(standin) => standin,
            Err(error) => panic!("the stand-in cannot start: {error}"),
        }
    }

    /// Starts a stand-in.
    ///
    /// # Errors
    /// When the port is taken, the directory cannot be written, or an existing model's id is not valid.
    pub fn try_start(options: Options) -> io::Result<Self> {
        let (data, directory) = match &options.data {
            Some(data) => (data.clone(), None),
            None => {
                let directory = tempfile::tempdir()?;
                (directory.path().to_owned(), Some(directory))
            }
        };
        let port = options.port;
        let cluster = Cluster::open(options, &data)?;
        // Bound without the runtime, so that asynchronous tests can start a stand-in too.
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let runtime =
            runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        let (stop, stopped) = oneshot::channel::<()>();
        let app = router(Arc::clone(&cluster));
        let thread = thread::spawn(move || {
            runtime.block_on(async move {
                let serve =
                    async { axum::serve(tokio::net::TcpListener::from_std(listener)?, app).await };
                tokio::select! {
                    served = serve => {
                        if let Err(error) = served {
                            tracing::error!("the stand-in stopped serving: {error}");
                        }
                    }
                    // The sender is dropped with the stand-in, which is as good as a message.
                    _ = stopped => {}
                }
            });
            runtime.shutdown_background();
        });
        Ok(Self { address, cluster, stop: Some(stop), thread: Some(thread), _directory: directory })
    }

    /// Where it listens, without a slash at the end.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// All requests that have been answered, in order.
    #[must_use]
    pub fn requests(&self) -> Vec<Exchange> {
        self.cluster.log.all()
    }

    /// The ids of the stored models.
    #[must_use]
    pub fn model_ids(&self) -> Vec<String> {
        self.cluster.store.configurations().into_iter().map(|model| model.model_id).collect()
    }

    /// The stored configuration of a model, as `GET` returns it.
    #[must_use]
    pub fn configuration(&self, id: &str) -> Option<Value> {
        self.cluster.store.configuration(id).map(|model| model.document.into())
    }

    /// The stored vocabulary of a model.
    #[must_use]
    pub fn vocabulary(&self, id: &str) -> Option<Vocabulary> {
        self.cluster.store.vocabulary(id)
    }

    /// A file with the stored parts of a model's definition, in order, whether they make a whole or not.
    #[must_use]
    pub fn definition(&self, id: &str) -> Option<PathBuf> {
        self.cluster.store.configuration(id)?;
        self.cluster.store.assemble(id).ok()
    }
}

impl Drop for StandIn {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A panic in the server's thread has been reported by then.
            let _ = thread.join();
        }
    }
}
