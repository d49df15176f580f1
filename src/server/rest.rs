//! The REST API under `/v1`. `GET /v1/openapi.json` describes it; a test walks [`ROUTES`] against that description.
//!
//! File map: [`submit`] makes a submission of a request's body; everything else is here.

pub(super) mod submit;

use super::metrics::Metrics;
use super::openapi;
use super::problem::{Kind, Problem};
use crate::jobs::decide::Stopped;
use crate::jobs::error::JobError;
use crate::jobs::protocol::message::{StopRequest, WorkerCall};
use crate::jobs::supervisor::{StoppedJob, Submitted, Supervisor};
use crate::jobs::view::JobView;
use axum::body::{Body, to_bytes};
use axum::extract::{Path, RawQuery, Request, State};
use axum::http::header::{ALLOW, CONTENT_TYPE, LOCATION};
use axum::http::{HeaderValue, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, any, delete, get, post};
use axum::{Json, Router};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tidemill_checkpoints::{JobUid, SavepointName, SnapshotStore};

/// The greatest body of a request, in bytes; SQL texts have a lower limit of their own.
const BODY_BYTES_MAX: usize = 4 * 1024 * 1024;
/// How long a body may take to arrive.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a stop is waited for before the answer is that it goes on.
const STOP_TIMEOUT: Duration = Duration::from_secs(120);

/// What the routes use.
#[derive(Clone)]
pub(super) struct RestState {
    /// The jobs.
    pub(super) supervisor: Supervisor,
    /// Where checkpoints are kept.
    pub(super) snapshots: SnapshotStore,
    /// The directory of Rust jobs' binaries; `None`: none may be run.
    pub(super) job_binaries: Option<PathBuf>,
    /// Counters.
    pub(super) metrics: Arc<Metrics>,
}

type Answer = Result<Response, Problem>;

/// A path with its methods.
struct Route {
    path: &'static str,
    methods: &'static [&'static str],
    handlers: fn() -> MethodRouter<RestState>,
}

/// All routes of the REST API.
const ROUTES: &[Route] = &[
    Route {
        path: "/v1/openapi.json",
        methods: &["get"],
        handlers: || get(describe),
    },
    Route {
        path: "/v1/jobs",
        methods: &["get", "post"],
        handlers: || get(list_jobs).post(submit_job),
    },
    Route {
        path: "/v1/jobs/{id}",
        methods: &["get", "delete"],
        handlers: || get(show_job).merge(delete(delete_job)),
    },
    Route {
        path: "/v1/jobs/{id}/stop",
        methods: &["post"],
        handlers: || post(stop_job),
    },
    Route {
        path: "/v1/jobs/{id}/start",
        methods: &["post"],
        handlers: || post(start_job),
    },
    Route {
        path: "/v1/jobs/{id}/checkpoints",
        methods: &["post"],
        handlers: || post(take_checkpoint),
    },
    Route {
        path: "/v1/jobs/{id}/savepoints",
        methods: &["get", "post"],
        handlers: || get(list_savepoints).post(take_savepoint),
    },
];

/// Makes the router.
pub(super) fn routes(state: RestState) -> Router {
    let mut router = Router::new();
    for route in ROUTES {
        let allow = HeaderValue::from_str(&route.methods.join(", ").to_uppercase()).ok();
        let path = route.path;
        let refused = any(move |method: Method| {
            let allow = allow.clone();
            async move {
                let detail = format!("{path} has no method {method}; GET /v1/openapi.json lists what there is");
                let mut response = Problem::new(Kind::MethodNotAllowed, detail).into_response();
                if let Some(allow) = allow {
                    response.headers_mut().insert(ALLOW, allow);
                }
                response
            }
        });
        router = router.route(path, (route.handlers)().fallback_service(refused));
    }
    router
        .fallback(|request: Request| async move {
            let detail = format!(
                "there is nothing at {}; GET /v1/openapi.json lists what there is",
                request.uri().path()
            );
            Problem::new(Kind::NoSuchPath, detail)
        })
        .with_state(state)
}

async fn describe() -> Response {
    (
        [(CONTENT_TYPE, HeaderValue::from_static("application/json"))],
        openapi::DOCUMENT,
    )
        .into_response()
}

async fn list_jobs(State(state): State<RestState>) -> Json<serde_json::Value> {
    Json(json!({ "jobs": state.supervisor.list() }))
}

async fn show_job(State(state): State<RestState>, Path(id): Path<String>) -> Result<Json<JobView>, Problem> {
    Ok(Json(state.supervisor.get(&id)?))
}

async fn submit_job(State(state): State<RestState>, request: Request) -> Answer {
    let body: submit::SubmitBody = read_json(request).await?;
    let submission = body.into_submission(state.job_binaries.as_deref())?;
    let submitted = state.supervisor.submit(submission).await;
    state.metrics.count_submission(submitted.is_ok());
    let (status, view) = match submitted? {
        Submitted::New(view) => (StatusCode::CREATED, view),
        Submitted::Repeated(view) => (StatusCode::OK, view),
    };
    let location = HeaderValue::from_str(&format!("/v1/jobs/{}", view.id));
    let mut response = (status, Json(view)).into_response();
    if let Ok(location) = location {
        response.headers_mut().insert(LOCATION, location);
    }
    Ok(response)
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct StopBody {
    #[serde(default)]
    mode: StopMode,
    savepoint: Option<String>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum StopMode {
    #[default]
    Checkpoint,
    Savepoint,
    Now,
}

/// The job, and what the stop left of it.
#[derive(Debug, Serialize)]
struct StopAnswer {
    #[serde(flatten)]
    job: JobView,
    stop: StopView,
}

#[derive(Debug, Serialize)]
struct StopView {
    /// What was taken for the stop: a `checkpoint`, a `savepoint` or `nothing`.
    took: &'static str,
    /// The newest checkpoint, at which a start continues; null when there is none, or it could not be looked up.
    checkpoint: Option<u64>,
    /// The same in words, and why nothing was taken.
    message: String,
}

impl StopAnswer {
    fn new(stopped: StoppedJob) -> Self {
        let stop = StopView {
            took: match &stopped.left {
                Stopped::Checkpoint => "checkpoint",
                Stopped::Savepoint(_) => "savepoint",
                Stopped::AtOnce | Stopped::Without(_) | Stopped::Already => "nothing",
            },
            message: stopped.text(),
            checkpoint: stopped.checkpoint.unwrap_or_default(),
        };
        Self { job: stopped.job, stop }
    }
}

async fn stop_job(State(state): State<RestState>, Path(id): Path<String>, request: Request) -> Answer {
    let body: StopBody = read_json_or_default(request).await?;
    let how = match (body.mode, body.savepoint) {
        (StopMode::Checkpoint, None) => StopRequest::Checkpoint,
        (StopMode::Now, None) => StopRequest::Now,
        (StopMode::Savepoint, Some(name)) => {
            check_savepoint_is_new(&state, &id, &name).await?;
            StopRequest::Savepoint(name)
        }
        (StopMode::Savepoint, None) => {
            return Err(invalid(
                "mode \"savepoint\" needs the savepoint's name in \"savepoint\"",
            ));
        }
        (_, Some(_)) => {
            return Err(invalid(
                "a savepoint is taken with \"mode\": \"savepoint\" only; add it, or leave the name out",
            ));
        }
    };
    match tokio::time::timeout(STOP_TIMEOUT, state.supervisor.stop(&id, how)).await {
        Ok(stopped) => Ok(Json(StopAnswer::new(stopped?)).into_response()),
        // The stop goes on; the state tells when it is done.
        Err(_) => Ok((StatusCode::ACCEPTED, Json(state.supervisor.get(&id)?)).into_response()),
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct StartBody {
    restore: Option<String>,
    #[serde(default)]
    allow_non_restored_state: bool,
}

async fn start_job(State(state): State<RestState>, Path(id): Path<String>, request: Request) -> Answer {
    let body: StartBody = read_json_or_default(request).await?;
    if body.restore.is_none() && body.allow_non_restored_state {
        return Err(invalid(
            "\"allow_non_restored_state\" is for a start from another point; add \"restore\"",
        ));
    }
    let view = state
        .supervisor
        .start_again(&id, body.restore.as_deref(), body.allow_non_restored_state)
        .await?;
    Ok(Json(view).into_response())
}

async fn take_checkpoint(State(state): State<RestState>, Path(id): Path<String>, request: Request) -> Answer {
    let Empty {} = read_json_or_default(request).await?;
    let uid = state.supervisor.uid(&id)?;
    let checkpoint = state.supervisor.call(&id, WorkerCall::Checkpoint).await?;
    let restore = format!("{uid}/checkpoint/{checkpoint}");
    Ok((
        StatusCode::CREATED,
        Json(json!({ "checkpoint": checkpoint, "restore": restore })),
    )
        .into_response())
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Empty {}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct SavepointBody {
    name: String,
}

async fn take_savepoint(State(state): State<RestState>, Path(id): Path<String>, request: Request) -> Answer {
    let body: SavepointBody = read_json(request).await?;
    check_savepoint_is_new(&state, &id, &body.name).await?;
    let uid = state.supervisor.uid(&id)?;
    let checkpoint = state
        .supervisor
        .call(&id, WorkerCall::Savepoint(body.name.clone()))
        .await?;
    let savepoint = SavepointView {
        restore: format!("{uid}/savepoint/{}", body.name),
        name: body.name,
        checkpoint,
        created_ms: None,
    };
    Ok((StatusCode::CREATED, Json(savepoint)).into_response())
}

#[derive(Debug, Serialize)]
struct SavepointView {
    name: String,
    checkpoint: u64,
    /// What to submit a job with as `"restore"`.
    restore: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    created_ms: Option<i64>,
}

async fn list_savepoints(State(state): State<RestState>, Path(id): Path<String>) -> Answer {
    let uid = job_uid(&state, &id)?;
    let listed = state.snapshots.list_savepoints(&uid).await;
    let listed = listed.map_err(|error| Problem::new(Kind::Failed, format!("cannot list the savepoints: {error}")))?;
    let savepoints: Vec<SavepointView> = listed
        .into_iter()
        .filter_map(|found| match found.manifest.snapshot.kind {
            tidemill_checkpoints::SnapshotKind::Savepoint(name) => Some(SavepointView {
                restore: format!("{uid}/savepoint/{name}"),
                name: name.to_string(),
                checkpoint: found.manifest.checkpoint.0,
                created_ms: Some(found.manifest.snapshot.created_ms),
            }),
            _ => None,
        })
        .collect();
    Ok(Json(json!({ "savepoints": savepoints })).into_response())
}

async fn delete_job(State(state): State<RestState>, Path(id): Path<String>, RawQuery(query): RawQuery) -> Answer {
    let force = match query.as_deref() {
        None | Some("" | "force=false") => false,
        Some("force=true") => true,
        Some(other) => {
            return Err(invalid(format!(
                "cannot understand the query {other:?}; there is only force=true"
            )));
        }
    };
    state.supervisor.delete(&id, force).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

fn job_uid(state: &RestState, id: &str) -> Result<JobUid, Problem> {
    let uid = state.supervisor.uid(id)?;
    JobUid::new(uid).map_err(|error| Problem::new(Kind::Failed, error.to_string()))
}

/// Refuses a savepoint's name that cannot be, or that is taken, before the job is asked to stop for it.
async fn check_savepoint_is_new(state: &RestState, id: &str, name: &str) -> Result<(), Problem> {
    let uid = job_uid(state, id)?;
    let name = SavepointName::new(name).map_err(|error| invalid(error.to_string()))?;
    let listed = state.snapshots.list_savepoints(&uid).await;
    let listed = listed.map_err(|error| Problem::new(Kind::Failed, format!("cannot list the savepoints: {error}")))?;
    if listed.iter().any(|found| found.manifest.savepoints.contains_key(&name)) {
        let text = format!("job {id} has a savepoint {name} already; choose another name");
        return Err(Problem::from(JobError::Conflict(text)));
    }
    Ok(())
}

fn invalid(detail: impl Into<String>) -> Problem {
    Problem::new(Kind::InvalidRequest, detail)
}

/// Reads a body that must be there.
async fn read_json<T: DeserializeOwned>(request: Request) -> Result<T, Problem> {
    let is_json = is_json(&request);
    let bytes = read_body(request.into_body()).await?;
    if !is_json {
        return Err(Problem::new(
            Kind::UnsupportedMediaType,
            "send the body as JSON, with Content-Type: application/json",
        ));
    }
    parse_json(&bytes)
}

/// Reads a body that may be left out.
async fn read_json_or_default<T: DeserializeOwned + Default>(request: Request) -> Result<T, Problem> {
    let is_json = is_json(&request);
    let bytes = read_body(request.into_body()).await?;
    match (bytes.is_empty(), is_json) {
        (true, _) => Ok(T::default()),
        (false, true) => parse_json(&bytes),
        (false, false) => Err(Problem::new(
            Kind::UnsupportedMediaType,
            "send the body as JSON, with Content-Type: application/json",
        )),
    }
}

fn is_json(request: &Request) -> bool {
    let content_type = request
        .headers()
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    content_type
        .split(';')
        .next()
        .is_some_and(|essence| essence.trim().eq_ignore_ascii_case("application/json"))
}

async fn read_body(body: Body) -> Result<bytes::Bytes, Problem> {
    match tokio::time::timeout(BODY_TIMEOUT, to_bytes(body, BODY_BYTES_MAX)).await {
        Ok(Ok(bytes)) => Ok(bytes),
        Ok(Err(_)) => Err(Problem::new(
            Kind::TooLarge,
            format!("the body could not be read; it may have at most {BODY_BYTES_MAX} bytes"),
        )),
        Err(_) => Err(invalid("the body did not arrive in time; send it at once")),
    }
}

fn parse_json<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    serde_json::from_slice(bytes).map_err(|error| {
        invalid(format!(
            "the body is not as expected: {error}; GET /v1/openapi.json describes it"
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;
    use std::collections::BTreeSet;

    #[test]
    fn the_description_lists_every_route_and_no_other() {
        let document: Value = serde_json::from_str(openapi::DOCUMENT).unwrap();
        let described: BTreeSet<(String, String)> = document["paths"]
            .as_object()
            .unwrap()
            .iter()
            .flat_map(|(path, methods)| {
                let methods = methods.as_object().unwrap().keys().filter(|key| *key != "parameters");
                methods.map(|method| (path.clone(), method.clone())).collect::<Vec<_>>()
            })
            .collect();
        let served: BTreeSet<(String, String)> = ROUTES
            .iter()
            .flat_map(|r| r.methods.iter().map(|m| (r.path.to_owned(), (*m).to_owned())))
            .collect();
        assert_eq!(described, served);
    }

    #[test]
    fn every_reference_of_the_description_leads_somewhere() {
        let document: Value = serde_json::from_str(openapi::DOCUMENT).unwrap();
        let mut references = Vec::new();
        collect(&document, &mut references);
        assert!(!references.is_empty());
        for reference in references {
            let pointer = reference.strip_prefix('#').unwrap();
            assert!(document.pointer(pointer).is_some(), "{reference}");
        }
    }

    #[test]
    fn a_stop_that_took_nothing_says_so_and_where_a_start_continues() {
        let definition = crate::jobs::registry::tests::definition("a-1");
        let stopped = |left, checkpoint| {
            let job = crate::jobs::actor::first_view(&definition);
            serde_json::to_value(StopAnswer::new(StoppedJob { job, left, checkpoint })).unwrap()
        };
        let answer = stopped(Stopped::Without("no such disk".into()), Ok(Some(7)));
        assert_eq!(
            (&answer["name"], &answer["stop"]["took"]),
            (&json!("a"), &json!("nothing"))
        );
        assert_eq!(answer["stop"]["checkpoint"], 7);
        let message = answer["stop"]["message"].as_str().unwrap();
        assert!(
            message.contains("WITHOUT")
                && message.contains("no such disk")
                && message.contains("newest checkpoint is 7")
        );
        let answer = stopped(Stopped::Checkpoint, Ok(Some(8)));
        assert_eq!(
            (&answer["stop"]["took"], &answer["stop"]["checkpoint"]),
            (&json!("checkpoint"), &json!(8))
        );
        let answer = stopped(Stopped::AtOnce, Ok(None));
        assert_eq!(
            (&answer["stop"]["took"], &answer["stop"]["checkpoint"]),
            (&json!("nothing"), &Value::Null)
        );
    }

    #[test]
    fn the_described_limit_of_parallelism_is_the_one_that_holds() {
        let document: Value = serde_json::from_str(openapi::DOCUMENT).unwrap();
        let described = document.pointer("/components/schemas/Submission/properties/parallelism/maximum");
        assert_eq!(described, Some(&json!(crate::settings::PARALLELISM_MAX)));
    }

    #[test]
    fn every_field_of_a_job_is_described() {
        let document: Value = serde_json::from_str(openapi::DOCUMENT).unwrap();
        let described: BTreeSet<&String> = document
            .pointer("/components/schemas/Job/properties")
            .unwrap()
            .as_object()
            .unwrap()
            .keys()
            .collect();
        let definition = crate::jobs::registry::tests::definition("a-1");
        let shown = serde_json::to_value(crate::jobs::actor::first_view(&definition)).unwrap();
        for field in shown.as_object().unwrap().keys() {
            assert!(described.contains(field), "{field} is not described");
        }
    }

    fn collect(value: &Value, references: &mut Vec<String>) {
        match value {
            Value::Object(fields) => {
                for (key, value) in fields {
                    match (key.as_str(), value) {
                        ("$ref", Value::String(reference)) => references.push(reference.clone()),
                        _ => collect(value, references),
                    }
                }
            }
            Value::Array(values) => values.iter().for_each(|value| collect(value, references)),
            _ => {}
        }
    }
}
