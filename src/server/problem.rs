//! How REST refuses: `application/problem+json` (RFC 9457).
//!
//! ```json
//! {"type": "urn:tidemill:problem:program-refused", "title": "The job's program is refused", "status": 400,
//!  "detail": "column \"pge\" does not exist", "line": 3, "column": 8, "hint": "did you mean page?"}
//! ```

use crate::jobs::error::JobError;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

/// The media type of a problem.
pub(super) const PROBLEM_JSON: &str = "application/problem+json";

/// What kind of problem it is: its type, title and status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// The request cannot be understood or is not valid.
    InvalidRequest,
    /// The job's program is refused.
    ProgramRefused,
    /// The process that was to plan the job died or took too long.
    PlanningFailed,
    /// The request may not be made from there.
    Forbidden,
    /// There is no such path.
    NoSuchPath,
    /// There is no such job.
    JobNotFound,
    /// There is no such method for this path.
    MethodNotAllowed,
    /// The job's name is taken.
    NameTaken,
    /// The job is in a state in which this cannot be done.
    Conflict,
    /// The body is too large.
    TooLarge,
    /// The body is not JSON.
    UnsupportedMediaType,
    /// The server has no room for another job.
    TooManyJobs,
    /// It was tried and failed.
    Failed,
    /// The server is going down.
    ShuttingDown,
}

impl Kind {
    /// Returns status, the last part of the type, and the title.
    fn parts(self) -> (StatusCode, &'static str, &'static str) {
        match self {
            Self::InvalidRequest => (StatusCode::BAD_REQUEST, "invalid-request", "The request is not valid"),
            Self::ProgramRefused => (
                StatusCode::BAD_REQUEST,
                "program-refused",
                "The job's program is refused",
            ),
            Self::PlanningFailed => (
                StatusCode::BAD_REQUEST,
                "planning-failed",
                "The job could not be planned",
            ),
            Self::Forbidden => (
                StatusCode::FORBIDDEN,
                "forbidden",
                "The request may not be made from there",
            ),
            Self::NoSuchPath => (StatusCode::NOT_FOUND, "no-such-path", "There is no such path"),
            Self::JobNotFound => (StatusCode::NOT_FOUND, "job-not-found", "There is no such job"),
            Self::MethodNotAllowed => (
                StatusCode::METHOD_NOT_ALLOWED,
                "method-not-allowed",
                "There is no such method here",
            ),
            Self::NameTaken => (StatusCode::CONFLICT, "name-taken", "The name is taken"),
            Self::Conflict => (StatusCode::CONFLICT, "conflict", "The job's state does not allow it"),
            Self::TooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "too-large", "The request is too large"),
            Self::UnsupportedMediaType => (
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "unsupported-media-type",
                "The request must be JSON",
            ),
            Self::TooManyJobs => (
                StatusCode::TOO_MANY_REQUESTS,
                "too-many-jobs",
                "The server has no room for another job",
            ),
            Self::Failed => (StatusCode::INTERNAL_SERVER_ERROR, "failed", "It was tried and failed"),
            Self::ShuttingDown => (
                StatusCode::SERVICE_UNAVAILABLE,
                "shutting-down",
                "The server is shutting down",
            ),
        }
    }
}

/// A refusal.
#[derive(Clone, Debug, Serialize)]
#[serde(transparent)]
pub(super) struct Problem(Box<Members>);

/// The members of a problem, boxed so that the good case does not carry them around.
#[derive(Clone, Debug, Serialize)]
struct Members {
    r#type: String,
    title: &'static str,
    status: u16,
    detail: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    line: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    column: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    excerpt: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    stderr: Vec<String>,
}

impl Problem {
    /// Makes a refusal; `detail` says what is wrong with this request and what to do.
    pub(super) fn new(kind: Kind, detail: impl Into<String>) -> Self {
        let (status, name, title) = kind.parts();
        Self(Box::new(Members {
            r#type: format!("urn:tidemill:problem:{name}"),
            title,
            status: status.as_u16(),
            detail: detail.into(),
            line: None,
            column: None,
            hint: None,
            excerpt: None,
            stderr: Vec::new(),
        }))
    }
}

impl From<JobError> for Problem {
    fn from(error: JobError) -> Self {
        let detail = error.to_string();
        match error {
            JobError::Invalid(_) => Self::new(Kind::InvalidRequest, detail),
            JobError::Rejected(rejection) => {
                let mut problem = Self::new(Kind::ProgramRefused, detail);
                problem.0.line = rejection.line;
                problem.0.column = rejection.column;
                problem.0.hint = rejection.hint;
                problem.0.excerpt = rejection.excerpt;
                problem
            }
            JobError::PlanningFailed { stderr, .. } => {
                let mut problem = Self::new(Kind::PlanningFailed, detail);
                problem.0.stderr = stderr;
                problem
            }
            JobError::NotFound(_) => Self::new(Kind::JobNotFound, detail),
            JobError::NameTaken(_) => Self::new(Kind::NameTaken, detail),
            JobError::Conflict(_) => Self::new(Kind::Conflict, detail),
            JobError::Failed(_) | JobError::Registry(_) => Self::new(Kind::Failed, detail),
            JobError::ShuttingDown => Self::new(Kind::ShuttingDown, detail),
            JobError::TooMany(_) => Self::new(Kind::TooManyJobs, detail),
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.0.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let body = serde_json::to_vec(&self).unwrap_or_default();
        (status, [(CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON))], body).into_response()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jobs::protocol::message::Rejection;
    use serde_json::{Value, json};

    fn body(error: JobError) -> Value {
        serde_json::to_value(Problem::from(error)).unwrap()
    }

    #[test]
    fn a_refused_program_tells_where_and_what_to_do() {
        let rejection = Rejection {
            message: "no column pge".into(),
            line: Some(3),
            column: Some(8),
            hint: Some("did you mean page?".into()),
            ..Rejection::default()
        };
        assert_eq!(
            body(JobError::Rejected(rejection)),
            json!({
                "type": "urn:tidemill:problem:program-refused", "title": "The job's program is refused", "status": 400,
                "detail": "no column pge", "line": 3, "column": 8, "hint": "did you mean page?"
            })
        );
    }

    #[test]
    fn every_refusal_has_the_status_that_clients_act_on() {
        let cases = [
            (JobError::Invalid("x".into()), 400, "invalid-request"),
            (
                JobError::PlanningFailed {
                    message: "x".into(),
                    stderr: vec!["y".into()],
                },
                400,
                "planning-failed",
            ),
            (JobError::NotFound("x".into()), 404, "job-not-found"),
            (JobError::NameTaken("x".into()), 409, "name-taken"),
            (JobError::Conflict("x".into()), 409, "conflict"),
            (JobError::TooMany(5), 429, "too-many-jobs"),
            (JobError::Failed("x".into()), 500, "failed"),
            (JobError::ShuttingDown, 503, "shutting-down"),
        ];
        for (error, status, name) in cases {
            let body = body(error);
            assert_eq!(body["status"], status);
            assert_eq!(body["type"], format!("urn:tidemill:problem:{name}"));
            assert!(!body["detail"].as_str().unwrap().is_empty());
        }
    }
}
