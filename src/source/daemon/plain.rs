//! Connections to engines without encryption. All that an engine answers has a limit, because the client that reads it holds
//! all of it in memory; only the bytes of an export have none.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};

use bollard::errors::Error as EngineError;
use bollard::{BollardRequest, ClientVersion, Docker};
use hyper::Response;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

/// How many bytes an answer may have: a list of ten thousand images has ten million.
const ANSWER_BYTES_MAX: u64 = 32 << 20;

/// How many bytes more a connection may receive.
#[derive(Clone)]
pub(super) struct Limit(Arc<AtomicU64>);

impl Default for Limit {
    fn default() -> Self {
        Limit(Arc::new(AtomicU64::new(ANSWER_BYTES_MAX)))
    }
}

impl Limit {
    /// The bytes of an export are passed on as they come; the words of one that failed are not.
    pub(super) fn lifted_for(&self, response: Response<Incoming>, is_export: bool) -> Response<Incoming> {
        if is_export && response.status().is_success() {
            self.0.store(u64::MAX, Ordering::Relaxed);
        }
        response
    }
}

/// A connection with a limit.
pub(super) struct Limited<S> {
    inner: S,
    limit: Limit,
}

impl<S> Limited<S> {
    pub(super) fn new(inner: S, limit: &Limit) -> Self {
        Limited { inner, limit: limit.clone() }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Limited<S> {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        ready!(Pin::new(&mut this.inner).poll_read(context, buffer))?;
        let count = (buffer.filled().len() - before) as u64;
        let left = this.limit.0.load(Ordering::Relaxed);
        if left == u64::MAX {
            return Poll::Ready(Ok(()));
        }
        this.limit.0.store(left.saturating_sub(count), Ordering::Relaxed);
        if count > left {
            let message = format!("the answer is longer than {ANSWER_BYTES_MAX} bytes");
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, message)));
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Limited<S> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().inner).poll_write(context, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_shutdown(context)
    }
}

/// A client for a socket in the file system.
pub(super) fn unix(path: &str, timeout: u64, version: &ClientVersion) -> Result<Docker, EngineError> {
    let path = path.to_string();
    of_streams(move || UnixStream::connect(path.clone()), timeout, version)
}

/// A client for `HOST:PORT`.
pub(super) fn tcp(address: &str, timeout: u64, version: &ClientVersion) -> Result<Docker, EngineError> {
    let address = address.to_string();
    of_streams(move || TcpStream::connect(address.clone()), timeout, version)
}

/// A client with a connection of its own for each request.
fn of_streams<S, F>(
    connect: impl Fn() -> F + Send + Sync + 'static,
    timeout: u64,
    version: &ClientVersion,
) -> Result<Docker, EngineError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    F: Future<Output = io::Result<S>> + Send + 'static,
{
    let transport = move |request: BollardRequest| {
        let connecting = connect();
        Box::pin(async move {
            let stream = connecting.await.map_err(|err| EngineError::IOError { err })?;
            ask(stream, request).await
        })
    };
    Docker::connect_with_custom_transport(transport, Some("http://docker"), timeout, version)
}

async fn ask<S>(stream: S, mut request: BollardRequest) -> Result<Response<Incoming>, EngineError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let is_export = is_export(&request);
    address(&mut request);
    let limit = Limit::default();
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(Limited::new(stream, &limit))).await?;
    // The other end of an error is the request or the body, which tells it.
    tokio::spawn(connection);
    Ok(limit.lifted_for(sender.send_request(request).await?, is_export))
}

/// Gives a request the form that a server, not a proxy, is asked in.
pub(super) fn address(request: &mut BollardRequest) {
    if let Some(path) = request.uri().path_and_query().cloned() {
        *request.uri_mut() = path.into();
    }
    request.headers_mut().insert("host", hyper::header::HeaderValue::from_static("docker"));
}

/// Whether what is asked for is an archive of images.
pub(super) fn is_export(request: &BollardRequest) -> bool {
    request.uri().path().ends_with("/images/get") || request.uri().path().ends_with("/get")
}
