//! The HTTP server under the management interface: so many connections at once, each with a limit to its patience, so
//! that clients which send or read slowly keep nobody else out.

use axum::Router;
use axum::body::{Body, Bytes, to_bytes};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, oneshot};
use tokio::time::{Sleep, sleep, timeout};

/// How long clients are waited for, and how many.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// Connections at once; more wait in the kernel.
    pub connections: usize,
    /// For a request's head, on a new connection and on one that is kept; then as long again for its body.
    pub request: Duration,
    /// For a client to take more of its answer.
    pub stall: Duration,
    /// The longest body, bytes.
    pub max_body: usize,
}

impl Default for Patience {
    fn default() -> Patience {
        Patience {
            connections: 256,
            request: Duration::from_secs(15),
            stall: Duration::from_secs(30),
            max_body: 1 << 20,
        }
    }
}

impl Patience {
    /// The whole body, or what its sender is told.
    pub(super) async fn body(&self, body: Body) -> Result<Bytes, Response> {
        match timeout(self.request, to_bytes(body, self.max_body)).await {
            Ok(Ok(body)) => Ok(body),
            // The client has gone, or has sent too much: then it reads this.
            Ok(Err(error)) => Err((StatusCode::PAYLOAD_TOO_LARGE, error.to_string()).into_response()),
            Err(_) => Err(StatusCode::REQUEST_TIMEOUT.into_response()),
        }
    }
}

/// Pause after an accept that failed (no descriptors left).
const PAUSE: Duration = Duration::from_millis(100);

/// Serves until told to stop, then until the last answer is out.
pub async fn serve(listener: TcpListener, router: Router, patience: Patience, mut stop: oneshot::Receiver<()>) {
    let places = Arc::new(Semaphore::new(patience.connections));
    let graceful = GracefulShutdown::new();
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(patience.request);
    loop {
        let (place, stream) = tokio::select! {
            _ = &mut stop => break,
            next = async {
                let place = Arc::clone(&places).acquire_owned().await;
                (place, listener.accept().await)
            } => match next {
                (Ok(place), Ok((stream, _))) => (place, stream),
                (_, outcome) => {
                    if let Err(error) = outcome {
                        tracing::warn!(%error, "a connection to the management interface was not accepted");
                    }
                    sleep(PAUSE).await;
                    continue;
                }
            },
        };
        let _ = stream.set_nodelay(true);
        let io = TokioIo::new(Impatient { stream, stall: patience.stall, until: None });
        let connection = graceful.watch(http.serve_connection(io, TowerToHyperService::new(router.clone())));
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection to the management interface ended");
            }
            drop(place);
        });
    }
    drop(listener);
    graceful.shutdown().await;
}

/// A connection that fails when its peer takes nothing for `stall`.
struct Impatient {
    stream: TcpStream,
    stall: Duration,
    /// Set while a write waits.
    until: Option<Pin<Box<Sleep>>>,
}

impl Impatient {
    fn hold<T>(&mut self, wrote: Poll<io::Result<T>>, cx: &mut Context<'_>) -> Poll<io::Result<T>> {
        if wrote.is_ready() {
            self.until = None;
            return wrote;
        }
        let stall = self.stall;
        ready!(self.until.get_or_insert_with(|| Box::pin(sleep(stall))).as_mut().poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncRead for Impatient {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Impatient {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let wrote = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.hold(wrote, cx)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::routing::{get, post};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    const LONG: Duration = Duration::from_secs(20);

    /// A server with little patience, one place, an echo and an answer without end.
    async fn server() -> (std::net::SocketAddr, oneshot::Sender<()>, tokio::task::JoinHandle<()>) {
        let patience = Patience {
            connections: 1,
            request: Duration::from_millis(100),
            stall: Duration::from_millis(100),
            max_body: 8,
        };
        let endless = || async { Body::from(vec![b'x'; 64 << 20]) };
        let echo = move |body: Body| async move { patience.body(body).await };
        let router = Router::new().route("/", post(echo)).route("/endless", get(endless));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel();
        (addr, stop, tokio::spawn(serve(listener, router, patience, stopped)))
    }

    async fn answer(stream: &mut TcpStream) -> String {
        let mut text = String::new();
        timeout(LONG, stream.read_to_string(&mut text)).await.unwrap().unwrap();
        text
    }

    #[tokio::test]
    async fn a_client_that_does_not_finish_its_head_or_take_its_answer_loses_its_place() {
        let (addr, stop, task) = server().await;
        let mut slow = TcpStream::connect(addr).await.unwrap();
        slow.write_all(b"POST / HTTP/1.1\r\nHos").await.unwrap();
        let mut deaf = TcpStream::connect(addr).await.unwrap();
        deaf.write_all(b"GET /endless HTTP/1.1\r\nHost: h\r\n\r\n").await.unwrap();
        let mut good = TcpStream::connect(addr).await.unwrap();
        good.write_all(b"POST / HTTP/1.1\r\nHost: h\r\nConnection: close\r\nContent-Length: 2\r\n\r\nhi")
            .await
            .unwrap();
        let told = answer(&mut good).await;
        assert!(told.starts_with("HTTP/1.1 200") && told.ends_with("hi"), "{told}");
        drop(stop);
        timeout(LONG, task).await.unwrap().unwrap();
        drop((slow, deaf));
    }

    #[tokio::test]
    async fn a_body_that_does_not_come_or_is_too_long_is_refused() {
        let (addr, _stop, _task) = server().await;
        for (request, status) in [("2\r\n\r\nh", "408"), ("9\r\n\r\nlong body", "413"), ("2\r\n\r\nhi", "200")] {
            let mut client = TcpStream::connect(addr).await.unwrap();
            let head = "POST / HTTP/1.1\r\nHost: h\r\nConnection: close\r\nContent-Length: ";
            client.write_all(format!("{head}{request}").as_bytes()).await.unwrap();
            let told = answer(&mut client).await;
            assert!(told.starts_with(&format!("HTTP/1.1 {status}")), "{request:?}: {told}");
        }
    }
}
