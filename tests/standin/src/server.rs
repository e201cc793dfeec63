//! A stand-in that listens, and what a test can ask of it.

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

/// A running stand-in. It listens on the loopback interface only and stops when it is dropped.
pub struct StandIn {
    address: SocketAddr,
    /// The cluster of the moment: a restart opens another one over the same directory.
    cluster: Arc<Mutex<Arc<Cluster>>>,
    log: Arc<RequestLog>,
    faults: Arc<FaultState>,
    stop: mpsc::UnboundedSender<Order>,
    thread: Option<JoinHandle<()>>,
    /// Kept until the end when no directory was named.
    _directory: Option<TempDir>,
}

/// What the server's thread is told.
enum Order {
    Stop,
    /// Go away for so long.
    Restart(Duration),
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
        let log = Arc::new(RequestLog::default());
        let faults = Arc::new(FaultState::default());
        faults.set(options.faults.clone());
        let first = Cluster::open(options.clone(), &data, Arc::clone(&log))?;
        // Bound without the runtime, so that asynchronous tests can start a stand-in too.
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, options.port))?;
        let address = listener.local_addr()?;
        let (stop, mut orders) = mpsc::unbounded_channel();
        let cluster = Arc::new(Mutex::new(Arc::clone(&first)));
        let mut server = Server {
            listener: Some(listener),
            cluster: first,
            log: Arc::clone(&log),
            faults: Arc::clone(&faults),
            // Weak, so that the channel is closed with the stand-in.
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
                                return tracing::error!("the stand-in does not come back: {error}");
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

    /// Puts other faults in place of those of the options. Counting begins again.
    pub fn set_faults(&self, faults: Faults) {
        self.faults.set(faults);
    }

    /// How many requests are held by a fault of that kind, or were until their clients went.
    #[must_use]
    pub fn held(&self) -> usize {
        self.faults.held()
    }

    /// Lets the requests that are held go on.
    pub fn release(&self) {
        self.faults.release();
    }

    /// How many requests have been under way at the same time, at most.
    #[must_use]
    pub fn most_at_once(&self) -> usize {
        self.faults.most_at_once()
    }

    /// Where it listens, without a slash at the end.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// All requests that have been answered, in order.
    #[must_use]
    pub fn requests(&self) -> Vec<Exchange> {
        self.log.all()
    }

    /// The ids of the stored models.
    #[must_use]
    pub fn model_ids(&self) -> Vec<String> {
        self.cluster().store.configurations().into_iter().map(|model| model.model_id).collect()
    }

    /// The stored configuration of a model, as `GET` returns it.
    #[must_use]
    pub fn configuration(&self, id: &str) -> Option<Value> {
        self.cluster().store.configuration(id).map(|model| model.document.into())
    }

    /// The stored vocabulary of a model.
    #[must_use]
    pub fn vocabulary(&self, id: &str) -> Option<Vocabulary> {
        self.cluster().store.vocabulary(id)
    }

    /// A file with the stored parts of a model's definition, in order, whether they make a whole or not.
    #[must_use]
    pub fn definition(&self, id: &str) -> Option<PathBuf> {
        self.cluster().store.configuration(id)?;
        self.cluster().store.assemble(id).ok()
    }
}

impl Drop for StandIn {
    fn drop(&mut self) {
        // A thread that has ended does not listen any more.
        let _ = self.stop.send(Order::Stop);
        if let Some(thread) = self.thread.take() {
            // A panic in the server's thread has been reported by then.
            let _ = thread.join();
        }
    }
}

/// One life of the server, from a start to the end or the next restart.
struct Server {
    /// Taken when it serves, and closed before the connections are.
    listener: Option<TcpListener>,
    cluster: Arc<Cluster>,
    log: Arc<RequestLog>,
    faults: Arc<FaultState>,
    restart: mpsc::WeakUnboundedSender<Order>,
}

impl Server {
    /// Serves until an order comes. All connections end with it, wherever they are.
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
        // Requests that are being carried out on the disk are finished.
        runtime.shutdown_timeout(Duration::from_secs(5));
        order
    }

    async fn accept(&self, listener: tokio::net::TcpListener) -> io::Error {
        let api = router(Arc::clone(&self.cluster));
        loop {
            let stream = match listener.accept().await {
                Ok((stream, _)) => stream,
                // The client was gone before it was served.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => continue,
                Err(error) => return error,
            };
            // Small answers would wait for more to come.
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

    /// Goes away, and begins another life on the same port over what is on disk.
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
