//! The HTTP server of the stand-in, and its interface for tests.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use axum::body::Body;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tempfile::TempDir;
use tokio::runtime;
use tokio::sync::mpsc;

use crate::api::router;
use crate::cluster::Cluster;
use crate::faults::{FaultState, Faults, around};
use crate::log::{Exchange, RequestLog};
use crate::options::Options;
use crate::vocabulary::Vocabulary;

/// A running stand-in. It listens on the loopback interface and stops when dropped.
pub struct StandIn {
    address: SocketAddr,
    /// Current cluster. A restart opens another one on the same directory.
    cluster: Arc<Mutex<Arc<Cluster>>>,
    log: Arc<RequestLog>,
    faults: Arc<FaultState>,
    stop: mpsc::UnboundedSender<Order>,
    thread: Option<JoinHandle<()>>,
    /// Temporary directory if the options set none; deleted on drop.
    _directory: Option<TempDir>,
}

/// Commands for the server's thread.
enum Order {
    Stop,
    /// Restart after this time.
    Restart(Duration),
}

impl StandIn {
    /// Starts a stand-in.
    ///
    /// # Panics
    /// If the port is in use, the directory cannot be written, or the id of an existing model is invalid.
    #[must_use]
    pub fn start(options: Options) -> Self {
        match Self::try_start(options) {
            Ok(standin) => standin,
            Err(error) => panic!("the stand-in could not start: {error}"),
        }
    }

    /// Starts a stand-in.
    ///
    /// # Errors
    /// If the port is in use, the directory cannot be written, or the id of an existing model is invalid.
    pub fn try_start(options: Options) -> io::Result<Self> {
        let (data, directory) = match &options.data {
            Some(data) => (data.clone(), None),
            None => {
                let directory = tempfile::tempdir()?;
                (directory.path().to_owned(), Some(directory))
            }
        };
        let log = Arc::new(RequestLog::default());
        let faults = Arc::new(FaultState::default());
        faults.set(options.faults.clone());
        let first = Cluster::open(options.clone(), &data, Arc::clone(&log))?;
        // Binding needs no runtime, so that asynchronous tests can start a stand-in too.
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, options.port))?;
        let address = listener.local_addr()?;
        let (stop, mut orders) = mpsc::unbounded_channel();
        let cluster = Arc::new(Mutex::new(Arc::clone(&first)));
        let mut server = Server {
            listener: Some(listener),
            cluster: first,
            log: Arc::clone(&log),
            faults: Arc::clone(&faults),
            // A weak reference, so that the channel is closed with the stand-in.
            restart: stop.downgrade(),
        };
        let current = Arc::clone(&cluster);
        let thread = thread::spawn(move || {
            loop {
                match server.serve(&mut orders) {
                    Ok(Some(Order::Restart(time))) => {
                        let again = server.come_back(time, address, &options, &data, &current);
                        server = match again {
                            Ok(server) => server,
                            Err(error) => {
                                return tracing::error!("the stand-in could not restart: {error}");
                            }
                        };
                    }
                    Ok(Some(Order::Stop) | None) => return,
                    Err(error) => return tracing::error!("the stand-in stopped serving: {error}"),
                }
            }
        });
        let thread = Some(thread);
        Ok(Self { address, cluster, log, faults, stop, thread, _directory: directory })
    }

    fn cluster(&self) -> Arc<Cluster> {
        Arc::clone(&self.cluster.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Replaces the injected faults and restarts their request counters.
    pub fn set_faults(&self, faults: Faults) {
        self.faults.set(faults);
    }

    /// Number of requests held by a `hold` fault, including those whose clients disconnected.
    #[must_use]
    pub fn held(&self) -> usize {
        self.faults.held()
    }

    /// Releases the held requests.
    pub fn release(&self) {
        self.faults.release();
    }

    /// Highest number of concurrent requests so far.
    #[must_use]
    pub fn most_at_once(&self) -> usize {
        self.faults.most_at_once()
    }

    /// Address of the stand-in, without a trailing slash.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// All completed requests, in order.
    #[must_use]
    pub fn requests(&self) -> Vec<Exchange> {
        self.log.all()
    }

    /// Ids of the stored models.
    #[must_use]
    pub fn model_ids(&self) -> Vec<String> {
        self.cluster().store.configurations().into_iter().map(|model| model.model_id).collect()
    }

    /// Stored configuration of a model, as `GET` returns it.
    #[must_use]
    pub fn configuration(&self, id: &str) -> Option<Value> {
        self.cluster().store.configuration(id).map(|model| model.document.into())
    }

    /// Stored vocabulary of a model.
    #[must_use]
    pub fn vocabulary(&self, id: &str) -> Option<Vocabulary> {
        self.cluster().store.vocabulary(id)
    }

    /// File with the stored parts of a model's definition, in order. The definition may be incomplete.
    #[must_use]
    pub fn definition(&self, id: &str) -> Option<PathBuf> {
        self.cluster().store.configuration(id)?;
        self.cluster().store.assemble(id).ok()
    }
}

impl Drop for StandIn {
    fn drop(&mut self) {
        // Sending fails if the thread has ended.
        let _ = self.stop.send(Order::Stop);
        if let Some(thread) = self.thread.take() {
            // A panic in the server's thread has already been reported.
            let _ = thread.join();
        }
    }
}

/// A server between two restarts.
struct Server {
    /// Taken when the server starts, and closed before its connections.
    listener: Option<TcpListener>,
    cluster: Arc<Cluster>,
    log: Arc<RequestLog>,
    faults: Arc<FaultState>,
    restart: mpsc::WeakUnboundedSender<Order>,
}

impl Server {
    /// Serves requests until it receives a command. All connections end then.
    fn serve(&mut self, orders: &mut mpsc::UnboundedReceiver<Order>) -> io::Result<Option<Order>> {
        let runtime =
            runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        let listener = self.listener.take().ok_or(io::ErrorKind::NotConnected)?;
        listener.set_nonblocking(true)?;
        let order = runtime.block_on(async {
            let accept = self.accept(tokio::net::TcpListener::from_std(listener)?);
            tokio::select! {
                error = accept => Err(error),
                order = orders.recv() => Ok(order),
            }
        });
        // Wait for requests that are accessing the disk.
        runtime.shutdown_timeout(Duration::from_secs(5));
        order
    }

    async fn accept(&self, listener: tokio::net::TcpListener) -> io::Error {
        let api = router(Arc::clone(&self.cluster));
        loop {
            let stream = match listener.accept().await {
                Ok((stream, _)) => stream,
                // The client disconnected before it was served.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => continue,
                Err(error) => return error,
            };
            // Without this option small responses are delayed.
            let _ = stream.set_nodelay(true);
            let (api, log, faults) = (api.clone(), Arc::clone(&self.log), Arc::clone(&self.faults));
            let orders = self.restart.clone();
            let service = service_fn(move |request: hyper::Request<Incoming>| {
                let (api, log, faults) = (api.clone(), Arc::clone(&log), Arc::clone(&faults));
                let orders = orders.clone();
                async move {
                    let restart = |time| {
                        if let Some(orders) = orders.upgrade() {
                            let _ = orders.send(Order::Restart(time));
                        }
                    };
                    around(&faults, &log, api, restart, request.map(Body::new)).await
                }
            });
            tokio::spawn(async move {
                let served = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
                if let Err(error) = served.await {
                    tracing::debug!("a connection ended: {error}");
                }
            });
        }
    }

    /// Stops, then opens a new cluster with the same port and directory.
    fn come_back(
        self,
        time: Duration,
        address: SocketAddr,
        options: &Options,
        data: &Path,
        current: &Mutex<Arc<Cluster>>,
    ) -> io::Result<Self> {
        let Self { cluster, log, faults, restart, .. } = self;
        drop(cluster);
        thread::sleep(time);
        let cluster = Cluster::open(options.clone(), data, Arc::clone(&log))?;
        *current.lock().unwrap_or_else(PoisonError::into_inner) = Arc::clone(&cluster);
        let listener = Some(TcpListener::bind(address)?);
        Ok(Self { listener, cluster, log, faults, restart })
    }
}
