//! Tries a request again while that may help, a limited number of times.

use crate::limits::RETRY_DELAY;
use crate::{Error, Result};
use std::time::Duration;

/// How often a failed request is tried, and how long is waited in between.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Retry {
    tries: u32,
    delay: Duration,
}

impl Retry {
    /// Waits between tries, twice as long each time.
    pub(crate) fn with_backoff(tries: u32) -> Self {
        Self {
            tries,
            delay: RETRY_DELAY,
        }
    }

    /// Does not wait between tries: for stores whose faults come from a test.
    pub(crate) fn immediate() -> Self {
        Self {
            tries: crate::limits::STORE_TRIES,
            delay: Duration::ZERO,
        }
    }

    /// Runs a request until it succeeds, fails for good, or has been tried often enough.
    // Not `AsyncFn`: the compiler cannot see yet that what it returns is `Send`.
    pub(crate) async fn run<T, F: Future<Output = object_store::Result<T>>>(
        &self,
        operation: &'static str,
        object: &str,
        request: impl Fn() -> F,
    ) -> Result<T> {
        for tries in 1.. {
            let source = match request().await {
                Ok(value) => return Ok(value),
                Err(error) => Box::new(error),
            };
            let object = || object.to_owned();
            if !is_transient(&source) {
                return Err(Error::Refused {
                    operation,
                    object: object(),
                    source,
                });
            }
            if tries >= self.tries {
                return Err(Error::Store {
                    operation,
                    object: object(),
                    tries,
                    source,
                });
            }
            tracing::debug!(operation, object = object(), tries, error = %source, "trying again");
            self.pause(tries).await;
        }
        unreachable!("the loop ends by itself")
    }

    /// Waits as long as is due after the `round`th try.
    pub(crate) async fn pause(&self, round: u32) {
        let delay = self.delay * 2u32.pow((round - 1).min(6));
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
    }
}

/// Tells whether the same request may be answered differently a moment later. Stores put what they cannot classify (5xx, resets,
/// I/O errors) into `Generic`.
fn is_transient(error: &object_store::Error) -> bool {
    matches!(
        error,
        object_store::Error::Generic { .. } | object_store::Error::JoinError { .. }
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;
    use std::sync::atomic::{AtomicU32, Ordering};

    fn generic() -> object_store::Error {
        object_store::Error::Generic {
            store: "test",
            source: "503".into(),
        }
    }

    async fn run(fail_first: u32, error: fn() -> object_store::Error) -> (Result<()>, u32) {
        let tries = AtomicU32::new(0);
        let request = || async {
            if tries.fetch_add(1, Ordering::SeqCst) < fail_first {
                Err(error())
            } else {
                Ok(())
            }
        };
        let result = Retry {
            tries: 3,
            delay: Duration::ZERO,
        }
        .run("read", "a/b", request)
        .await;
        (result, tries.into_inner())
    }

    #[tokio::test]
    async fn transient_failures_are_retried_within_the_budget() {
        let (result, tries) = run(2, generic).await;
        assert!(result.is_ok() && tries == 3);
        let (result, tries) = run(3, generic).await;
        let error = result.unwrap_err();
        assert_eq!((error.kind(), tries), (ErrorKind::Retry, 3));
        assert!(
            error.to_string().contains("read a/b") && error.to_string().contains("503"),
            "{error}"
        );
    }

    #[tokio::test]
    async fn refusals_are_not_retried() {
        let denied = || object_store::Error::PermissionDenied {
            path: "a/b".into(),
            source: "no".into(),
        };
        let (result, tries) = run(1, denied).await;
        assert_eq!((result.unwrap_err().kind(), tries), (ErrorKind::User, 1));
    }
}
