//! Metrics in the Prometheus text format, at `GET /metrics`.
//!
//! What jobs tell is read from their status when somebody asks; only requests are counted here. Counters of a job's
//! operators begin anew when its process does, as Prometheus expects of a restart; restarts and failed checkpoints are counted
//! since the server's start.

use super::store_metrics::StoreMetrics;
use crate::jobs::decide::JobState;
use crate::jobs::supervisor::Supervisor;
use crate::jobs::view::JobView;
use axum::Router;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric as _, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;
use std::fmt;
use std::sync::Arc;
use tidemill_engine::metrics::OperatorCounts;
use tidemill_engine::status::OperatorStatus;
use tidemill_shards::ShardStore;
use tidemill_shards::kinesis::KinesisApi;

const TEXT_FORMAT: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    api: &'static str,
    method: String,
    status: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct SubmissionLabels {
    outcome: &'static str,
}

/// The server's metrics.
#[derive(Debug)]
pub(super) struct Metrics {
    registry: Registry,
    requests: Family<RequestLabels, Counter>,
    submissions: Family<SubmissionLabels, Counter>,
}

impl Metrics {
    /// Makes the metrics of a server with these jobs, this store and its API.
    pub(super) fn new(supervisor: Supervisor, store: ShardStore, kinesis: KinesisApi) -> Self {
        let mut registry = Registry::with_prefix("tidemill");
        let requests = Family::<RequestLabels, Counter>::default();
        registry.register(
            "http_requests",
            "Requests answered, by API, method and status",
            requests.clone(),
        );
        let submissions = Family::<SubmissionLabels, Counter>::default();
        registry.register("job_submissions", "Jobs submitted, by outcome", submissions.clone());
        registry.register_collector(Box::new(Jobs(supervisor)));
        registry.register_collector(Box::new(Subscriptions(kinesis)));
        registry.register_collector(Box::new(StoreMetrics(store)));
        Self {
            registry,
            requests,
            submissions,
        }
    }

    /// Counts an answered request.
    pub(super) fn count_request(&self, method: &str, is_rest: bool, status: u16) {
        // Methods are the caller's text: only those that exist become labels.
        let known = ["GET", "POST", "DELETE", "PUT", "PATCH", "HEAD", "OPTIONS"];
        let method = if known.contains(&method) { method } else { "other" };
        let api = if is_rest { "rest" } else { "aws" };
        self.requests
            .get_or_create(&RequestLabels {
                api,
                method: method.to_owned(),
                status,
            })
            .inc();
    }

    /// Counts a submitted job.
    pub(super) fn count_submission(&self, accepted: bool) {
        let outcome = if accepted { "accepted" } else { "refused" };
        self.submissions.get_or_create(&SubmissionLabels { outcome }).inc();
    }

    fn encode(&self) -> Result<String, fmt::Error> {
        let mut out = String::new();
        text::encode(&mut out, &self.registry)?;
        Ok(out)
    }
}

/// Makes the routes of `/metrics` and `/healthz`.
pub(super) fn routes(metrics: Arc<Metrics>) -> Router {
    let answer = move || {
        let metrics = Arc::clone(&metrics);
        async move {
            match metrics.encode() {
                Ok(text) => ([(CONTENT_TYPE, HeaderValue::from_static(TEXT_FORMAT))], text).into_response(),
                Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
            }
        }
    };
    Router::new()
        .route("/metrics", get(answer))
        .route("/healthz", get(healthz))
}

async fn healthz() -> Response {
    "ok\n".into_response()
}

/// What the jobs tell, at the moment somebody asks.
struct Jobs(Supervisor);

impl fmt::Debug for Jobs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Jobs")
    }
}

/// Who is subscribed to shards, at the moment somebody asks.
#[derive(Debug)]
struct Subscriptions(KinesisApi);

impl Collector for Subscriptions {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let help = "Open subscriptions to shards (SubscribeToShard)";
        let gauge = encoder.encode_descriptor("kinesis_subscriptions", help, None, MetricType::Gauge)?;
        let count = i64::try_from(self.0.subscriptions()).unwrap_or(i64::MAX);
        ConstGauge::new(count).encode(gauge)
    }
}

type OperatorCount = (&'static str, &'static str, fn(&OperatorCounts) -> u64);

const OPERATOR_COUNTS: &[OperatorCount] = &[
    ("job_operator_rows_in", "Rows that arrived at an operator", |counts| {
        counts.rows_in
    }),
    ("job_operator_rows_out", "Rows that an operator emitted", |counts| {
        counts.rows_out
    }),
    ("job_operator_bytes_in", "Bytes of input that a source read", |counts| {
        counts.bytes_in
    }),
    (
        "job_operator_rows_late",
        "Rows dropped because they were late",
        |counts| counts.rows_late,
    ),
    (
        "job_operator_rows_dropped",
        "Rows dropped by an error policy",
        |counts| counts.rows_dropped,
    ),
    (
        "job_operator_requests",
        "Requests of a lookup join to its table",
        |counts| counts.requests,
    ),
    (
        "job_operator_requests_failed",
        "Requests of a lookup join that failed, those that were repeated included",
        |counts| counts.requests_failed,
    ),
];

type JobGauge = (&'static str, &'static str, fn(&JobView) -> Option<i64>);

const JOB_GAUGES: &[JobGauge] = &[
    ("job_up", "1 while the job processes ticks", |job| {
        Some(i64::from(job.state == JobState::Running))
    }),
    ("job_failed", "1 when the job was given up", |job| {
        Some(i64::from(job.state == JobState::Failed))
    }),
    (
        "job_watermark_lag_ms",
        "How far the least watermark of the job's sinks is behind the wall clock",
        |job| job.watermark_lag_ms,
    ),
    ("job_checkpoint_last_id", "The number of the newest checkpoint", |job| {
        newest(job, |c| c.id)
    }),
    (
        "job_checkpoint_last_completed_ms",
        "When the newest checkpoint came to exist, since 1970",
        |job| job.checkpoints.last().map(|checkpoint| checkpoint.completed_ms),
    ),
    (
        "job_checkpoint_last_duration_ms",
        "How long the newest checkpoint took",
        |job| newest(job, |c| c.duration_ms),
    ),
    (
        "job_checkpoint_last_pause_us",
        "How long the stream stood still for the newest checkpoint",
        |job| newest(job, |c| c.pause_us),
    ),
    (
        "job_checkpoint_last_state_bytes",
        "Bytes of state that the newest checkpoint wrote",
        |job| newest(job, |c| c.state_bytes),
    ),
];

fn newest(job: &JobView, pick: fn(&tidemill_engine::status::CheckpointStatus) -> u64) -> Option<i64> {
    job.checkpoints
        .last()
        .map(|checkpoint| i64::try_from(pick(checkpoint)).unwrap_or(i64::MAX))
}

fn operators(jobs: &[JobView]) -> impl Iterator<Item = (&JobView, &OperatorStatus)> {
    jobs.iter()
        .flat_map(|job| job.operators.iter().map(move |operator| (job, operator)))
}

fn operator_labels<'a>(job: &'a JobView, operator: &'a OperatorStatus) -> [(&'static str, &'a str); 3] {
    [
        ("job", job.name.as_str()),
        ("operator", operator.name.as_str()),
        ("uid", operator.uid.as_str()),
    ]
}

impl Collector for Jobs {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let jobs = self.0.list();
        for (name, help, pick) in JOB_GAUGES {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            for job in &jobs {
                if let Some(value) = pick(job) {
                    let labels = [("job", job.name.as_str())];
                    ConstGauge::new(value).encode(family.encode_family(&labels)?)?;
                }
            }
        }
        let mut restarts =
            encoder.encode_descriptor("job_restarts", "Starts after a failure", None, MetricType::Counter)?;
        for job in &jobs {
            let labels = [("job", job.name.as_str())];
            ConstCounter::new(job.restarts).encode(restarts.encode_family(&labels)?)?;
        }
        let mut failed = encoder.encode_descriptor(
            "job_checkpoints_failed",
            "Checkpoint attempts that failed",
            None,
            MetricType::Counter,
        )?;
        for job in &jobs {
            let labels = [("job", job.name.as_str())];
            ConstCounter::new(job.checkpoints_failed).encode(failed.encode_family(&labels)?)?;
        }
        for (name, help, pick) in OPERATOR_COUNTS {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            for (job, operator) in operators(&jobs) {
                let labels = operator_labels(job, operator);
                ConstCounter::new(pick(&operator.counts)).encode(family.encode_family(&labels)?)?;
            }
        }
        let (name, help) = (
            "job_operator_state_bytes",
            "About how many bytes an operator's state took when it was captured last",
        );
        let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for (job, operator) in operators(&jobs) {
            let bytes = i64::try_from(operator.counts.state_bytes).unwrap_or(i64::MAX);
            ConstGauge::new(bytes).encode(family.encode_family(&operator_labels(job, operator))?)?;
        }
        Ok(())
    }
}
