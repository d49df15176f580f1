//! What is being answered on one connection, until the last byte of its body.

use axum::Router;
use axum::body::{Body, Bytes, HttpBody};
use hyper::body::{Frame, Incoming, SizeHint};
use hyper::service::Service;
use hyper::{Request, Response};
use hyper_util::service::TowerToHyperService;
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::watch;

/// Counts the answers of a connection.
pub(super) struct Activity(watch::Sender<usize>);

impl Activity {
    pub(super) fn new() -> Self {
        Self(watch::Sender::new(0))
    }

    /// The routes, counted.
    pub(super) fn service(&self, routes: Router) -> CountedRoutes {
        CountedRoutes {
            count: self.0.clone(),
            routes: TowerToHyperService::new(routes),
        }
    }

    /// Waits until nothing was answered for so long.
    pub(super) async fn idle_for(&self, time: Duration) {
        let mut count = self.0.subscribe();
        loop {
            // The sender is this one's own.
            let _ = count.wait_for(|answers| *answers == 0).await;
            let busy = count.wait_for(|answers| *answers > 0);
            if tokio::time::timeout(time, busy).await.is_err() {
                return;
            }
        }
    }
}

/// Routes whose answers are counted.
pub(super) struct CountedRoutes {
    count: watch::Sender<usize>,
    routes: TowerToHyperService<Router>,
}

impl Service<Request<Incoming>> for CountedRoutes {
    type Response = Response<Counted>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Counted>, Infallible>> + Send>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let answering = Answering::begin(&self.count);
        let answer = self.routes.call(request);
        Box::pin(async move {
            let response: Response<Body> = answer.await?;
            Ok(response.map(|body| Counted {
                body,
                _answering: answering,
            }))
        })
    }
}

struct Answering(watch::Sender<usize>);

impl Answering {
    fn begin(count: &watch::Sender<usize>) -> Self {
        count.send_modify(|answers| *answers += 1);
        Self(count.clone())
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        self.0.send_modify(|answers| *answers -= 1);
    }
}

/// A body that counts as activity until it is gone.
pub(super) struct Counted {
    body: Body,
    _answering: Answering,
}

impl HttpBody for Counted {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt as _;
    use std::pin::pin;

    #[tokio::test]
    async fn a_connection_is_idle_only_when_its_last_answer_is_out() {
        let activity = Activity::new();
        let (first, second) = (Answering::begin(&activity.0), Answering::begin(&activity.0));
        let mut idle = pin!(activity.idle_for(Duration::ZERO));
        assert!(idle.as_mut().now_or_never().is_none());
        drop(first);
        assert!(idle.as_mut().now_or_never().is_none());
        drop(second);
        idle.await;

        let mut later = pin!(activity.idle_for(Duration::from_secs(3_600)));
        assert!(later.as_mut().now_or_never().is_none());
    }
}
