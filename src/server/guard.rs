//! Who may ask what: the checks that stand in for authentication until there is some.
//!
//! Whoever can open a connection may use everything. On loopback that is every program of this machine, and it must not
//! become every web page that a user of this machine looks at. A page reaches a local server in two ways, and both are
//! closed for REST: by a name of its own that resolves to 127.0.0.1 (then `Host` is that name), and by a request across
//! origins (then `Origin` is the page's).

use super::metrics::Metrics;
use super::problem::{Kind, Problem};
use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::http::header::{HOST, ORIGIN};
use axum::http::{HeaderMap, HeaderValue};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse as _, Response};
use std::net::IpAddr;
use std::sync::Arc;

/// What is let through.
#[derive(Clone, Copy, Debug)]
pub(super) struct Guard {
    /// Any `Host` and `Origin`: the server was told to be reachable under names that it does not know.
    pub(super) any_host: bool,
}

/// Puts the checks in front of all routes, and what every answer carries behind them.
pub(super) fn protect(routes: Router, guard: Guard, metrics: Arc<Metrics>) -> Router {
    routes.layer(from_fn(move |request: Request, next: Next| {
        let metrics = Arc::clone(&metrics);
        async move {
            let method = request.method().as_str().to_owned();
            let is_rest = request.uri().path() != "/";
            let mut response = match guard.check(is_rest, request.headers()) {
                Ok(()) => next.run(request).await,
                Err(problem) => problem.into_response(),
            };
            metrics.count_request(&method, is_rest, response.status().as_u16());
            add_ids(&mut response);
            response
        }
    }))
}

impl Guard {
    /// Checks the headers of a request.
    ///
    /// # Errors
    /// When a web page seems to have made it.
    fn check(self, is_rest: bool, headers: &HeaderMap) -> Result<(), Problem> {
        // The AWS APIs are called under whatever name a container network or a proxy gives this server.
        if self.any_host || !is_rest {
            return Ok(());
        }
        let host = headers.get(HOST).and_then(|value| value.to_str().ok());
        if !host.is_some_and(is_loopback_authority) {
            let asked = match host {
                Some(host) => format!("the request is for the host {host:?}"),
                None => "the request has no readable Host header".to_owned(),
            };
            return Err(Problem::new(
                Kind::Forbidden,
                format!(
                    "{asked}, and only names of the loopback interface are answered here; use localhost or 127.0.0.1, or start \
                     the server with --insecure-listen-anywhere"
                ),
            ));
        }
        let origin = headers.get(ORIGIN).map(HeaderValue::to_str);
        match origin {
            None => Ok(()),
            Some(Ok(origin))
                if origin
                    .split_once("://")
                    .is_some_and(|(_, authority)| is_loopback_authority(authority)) =>
            {
                Ok(())
            }
            Some(_) => Err(Problem::new(
                Kind::Forbidden,
                "web pages of other origins may not use this API; call it from a program, or from a page on localhost",
            )),
        }
    }
}

/// Says whether a host, with a port or without, is a name of the loopback interface.
fn is_loopback_authority(authority: &str) -> bool {
    let host = match authority.rsplit_once(':') {
        Some((host, port)) if !port.is_empty() && port.bytes().all(|c| c.is_ascii_digit()) => host,
        _ => authority,
    };
    let bare = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
        .unwrap_or(host);
    host.eq_ignore_ascii_case("localhost") || bare.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Adds the ids that clients of AWS put into their messages; a route that set its own keeps them.
fn add_ids(response: &mut Response<Body>) {
    let mut random = [0u8; 48];
    if getrandom::fill(&mut random).is_err() {
        return;
    }
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let id = hex(&random[..16]);
    let request_id = format!(
        "{}-{}-{}-{}-{}",
        &id[..8],
        &id[8..12],
        &id[12..16],
        &id[16..20],
        &id[20..]
    );
    use base64::Engine as _;
    let extended = base64::engine::general_purpose::STANDARD.encode(random);
    for (name, value) in [("x-amzn-requestid", request_id), ("x-amz-id-2", extended)] {
        if let Ok(value) = HeaderValue::from_str(&value) {
            response.headers_mut().entry(name).or_insert(value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_names_are_recognised() {
        for good in [
            "localhost",
            "LOCALHOST:4566",
            "127.0.0.1",
            "127.0.0.1:1",
            "127.9.9.9:80",
            "[::1]",
            "[::1]:4566",
        ] {
            assert!(is_loopback_authority(good), "{good}");
        }
        for bad in [
            "",
            "evil.example",
            "localhost.evil.example:4566",
            "10.0.0.1",
            "[::2]:1",
            "127.0.0.1.evil.example",
            "0.0.0.0",
        ] {
            assert!(!is_loopback_authority(bad), "{bad}");
        }
    }

    #[test]
    fn pages_of_other_origins_are_kept_out_of_rest() {
        let headers = |host: &str, origin: Option<&str>| {
            let mut headers = HeaderMap::new();
            headers.insert(HOST, host.parse().unwrap());
            if let Some(origin) = origin {
                headers.insert(ORIGIN, origin.parse().unwrap());
            }
            headers
        };
        let closed = Guard { any_host: false };
        assert!(closed.check(true, &headers("127.0.0.1:4566", None)).is_ok());
        assert!(
            closed
                .check(true, &headers("localhost:4566", Some("http://localhost:8000")))
                .is_ok()
        );
        assert!(closed.check(true, &headers("evil.example:4566", None)).is_err());
        let told = |headers: &HeaderMap| {
            let problem = serde_json::to_value(closed.check(true, headers).unwrap_err()).unwrap();
            problem["detail"].as_str().unwrap().to_owned()
        };
        assert!(told(&headers("evil.com", None)).starts_with("the request is for the host \"evil.com\", and only"));
        assert!(told(&HeaderMap::new()).starts_with("the request has no readable Host header"));
        assert!(
            closed
                .check(true, &headers("127.0.0.1:4566", Some("http://evil.example")))
                .is_err()
        );
        assert!(closed.check(true, &headers("127.0.0.1:4566", Some("null"))).is_err());
        assert!(closed.check(true, &HeaderMap::new()).is_err());
        assert!(closed.check(false, &headers("store.internal:4566", None)).is_ok());
        assert!(
            Guard { any_host: true }
                .check(true, &headers("store.internal:4566", None))
                .is_ok()
        );
    }
}
