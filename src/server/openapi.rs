//! The description of the REST API, written by hand; tests in [`super::rest`] hold it against the routes.

/// The document, as `GET /v1/openapi.json` answers it.
pub(super) const DOCUMENT: &str = include_str!("openapi.json");
