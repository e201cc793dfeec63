//! Servers between the program and a cluster: forwarders with and without TLS, and servers with a fixed response.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use rustls::ServerConfig;
use standin::StandIn;
use tokio::io::copy_bidirectional;
use tokio::runtime::Runtime;
use tokio_rustls::TlsAcceptor;

/// Forwards connections, usually to a stand-in. Stops on drop.
pub struct Front {
    address: SocketAddr,
    runtime: Option<Runtime>,
}

impl Front {
    /// Listens on an address such as `[::1]:0` without TLS.
    pub fn plain(at: &str, standin: &StandIn) -> std::io::Result<Self> {
        Self::start(TcpListener::bind(at)?, address_of(standin), None)
    }

    /// Listens with TLS on the loopback interface.
    pub fn tls(standin: &StandIn, config: ServerConfig) -> Self {
        Self::tls_to(address_of(standin), config)
    }

    /// Like [`Self::tls`], but forwards to any address.
    pub fn tls_to(address: String, config: ServerConfig) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        Self::start(listener, address, Some(TlsAcceptor::from(Arc::new(config)))).unwrap()
    }

    fn start(
        listener: TcpListener,
        to: String,
        acceptor: Option<TlsAcceptor>,
    ) -> std::io::Result<Self> {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let address = listener.local_addr()?;
        listener.set_nonblocking(true)?;
        runtime.spawn(async move {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            while let Ok((mut near, _)) = listener.accept().await {
                let (to, acceptor) = (to.clone(), acceptor.clone());
                // The client reports broken connections.
                tokio::spawn(async move {
                    let mut far = tokio::net::TcpStream::connect(to).await?;
                    match acceptor {
                        None => copy_bidirectional(&mut near, &mut far).await,
                        Some(acceptor) => {
                            let mut near = acceptor.accept(near).await?;
                            copy_bidirectional(&mut near, &mut far).await
                        }
                    }
                });
            }
        });
        Ok(Self { address, runtime: Some(runtime) })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn port(&self) -> u16 {
        self.address.port()
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

fn address_of(standin: &StandIn) -> String {
    standin.url().trim_start_matches("http://").to_owned()
}

/// A server that responds based on the head of a request, and records the heads.
pub struct Canned {
    address: SocketAddr,
    heads: Arc<Mutex<Vec<String>>>,
}

impl Canned {
    /// Responds to every request with these bytes and closes the connection.
    pub fn answering(bytes: impl Into<Vec<u8>>) -> Self {
        let bytes = bytes.into();
        Self::by_head(move |_| bytes.clone())
    }

    /// Responds with the result of a function of the request's head, which is empty for other protocols than HTTP.
    pub fn by_head(answer: impl Fn(&str) -> Vec<u8> + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let heads = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&heads);
        // The thread ends with the test process.
        thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(mut stream) = stream else { continue };
                let head = head(&mut stream).unwrap_or_default();
                let bytes = answer(&head);
                kept.lock().unwrap().push(head);
                let _ = stream.write_all(&bytes);
                let _ = stream.shutdown(Shutdown::Write);
            }
        });
        Self { address, heads }
    }

    /// Responds with a status line, headers and a body.
    pub fn with(status: &str, headers: &str, body: &str) -> Self {
        Self::answering(http(status, headers, body))
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// Heads of all requests so far.
    pub fn heads(&self) -> Vec<String> {
        self.heads.lock().unwrap().clone()
    }
}

/// An HTTP response.
pub fn http(status: &str, headers: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!(
        "HTTP/1.1 {status}\r\n{headers}content-length: {length}\r\nconnection: close\r\n\r\n{body}"
    )
    .into_bytes()
}

/// Reads the head of a request up to the empty line, or returns `None` for other protocols than HTTP.
fn head(stream: &mut TcpStream) -> Option<String> {
    let mut bytes = Vec::new();
    let mut byte = [0];
    while !bytes.ends_with(b"\r\n\r\n") {
        if stream.read(&mut byte).ok()? == 0 || bytes.first() == Some(&0x16) {
            return None;
        }
        bytes.push(byte[0]);
    }
    String::from_utf8(bytes).ok()
}
