//! The admin server: `/metrics`, `/healthz`, `/readyz` and `/status`, on loopback unless told
//! otherwise, and on a [control socket](socket) for root. It shows and never changes anything; on
//! loopback it has no access control, and whatever should change something belongs to the socket only.

pub mod socket;

use std::{
    collections::BTreeMap,
    fmt, io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use axum::{
    Router,
    extract::State,
    http::{
        HeaderValue, StatusCode,
        header::{AGE, CONTENT_TYPE},
    },
    response::{IntoResponse, Response},
    routing::get,
    serve::Listener,
};
use bytes::Bytes;
use serde::Serialize;
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::{
    cpu_budget::CpuBudget,
    metrics::{self, Metrics},
};

/// What `/status` shows: called at every request, must not block for long.
pub type StatusProvider = Arc<dyn Fn() -> Value + Send + Sync>;

/// A costly answer is put off for so long while there is no processor time for it; then the one before
/// has to do.
const LONGEST: Duration = Duration::from_millis(250);

/// What the server shows.
#[derive(Clone)]
pub struct Admin {
    metrics: Metrics,
    readiness: Readiness,
    status: StatusProvider,
    cpu: CpuBudget,
    last_metrics: Last,
    last_status: Last,
}

/// The last answer, and when it was made.
type Last = Arc<Mutex<Option<(Instant, Bytes)>>>;

impl Admin {
    /// For `/metrics`, `/readyz` and `/status`. The first and the last keep to their part of `cpu`; then
    /// the server must have its thread for itself.
    pub fn new(
        metrics: Metrics,
        readiness: Readiness,
        status: StatusProvider,
        cpu: CpuBudget,
    ) -> Self {
        let (last_metrics, last_status) = (Last::default(), Last::default());
        Self { metrics, readiness, status, cpu, last_metrics, last_status }
    }

    /// A costly answer, or the one before if there is no processor time for a new one.
    async fn answer(
        &self,
        content_type: &'static str,
        last: &Last,
        make: impl FnOnce() -> Result<String, String>,
    ) -> Response {
        let rest = self.cpu.admin_rest();
        if !rest.is_zero() {
            tokio::time::sleep(rest.min(LONGEST)).await;
        }
        let before = || last.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if rest > LONGEST
            && let Some((made, text)) = before()
        {
            // RFC 9111 section 5.1.
            let age = HeaderValue::from(made.elapsed().as_secs());
            return ([(CONTENT_TYPE, HeaderValue::from_static(content_type)), (AGE, age)], text)
                .into_response();
        }
        let made = make().map(Bytes::from);
        self.cpu.admin_rest();
        match made {
            Ok(text) => {
                let now = (Instant::now(), text.clone());
                *last.lock().unwrap_or_else(PoisonError::into_inner) = Some(now);
                ([(CONTENT_TYPE, content_type)], text).into_response()
            }
            Err(error) => failed(&error),
        }
    }

    /// Serves on a bound listener until `stop` is cancelled. The task ends with an error only if
    /// the listener fails.
    pub fn start<L>(self, listener: L, stop: CancellationToken) -> JoinHandle<io::Result<()>>
    where
        L: Listener,
        L::Addr: fmt::Debug,
    {
        let router = Router::new()
            .route("/metrics", get(show_metrics))
            .route("/healthz", get(async || "ok\n"))
            .route("/readyz", get(show_readiness))
            .route("/status", get(show_status))
            .fallback(async || {
                (StatusCode::NOT_FOUND, "try /metrics, /healthz, /readyz or /status\n")
            })
            .with_state(self);
        let server = axum::serve(listener, router).with_graceful_shutdown(stop.cancelled_owned());
        tokio::spawn(server.into_future())
    }
}

async fn show_metrics(State(admin): State<Admin>) -> Response {
    // Collectors read kernel maps: system calls, and many of them with many rules. That is this thread's
    // work, so that its clock tells what it takes.
    let make = || admin.metrics.encode().map_err(|error| error.to_string());
    admin.answer(metrics::CONTENT_TYPE, &admin.last_metrics, make).await
}

fn failed(error: &str) -> Response {
    tracing::error!(error, "cannot collect metrics");
    (StatusCode::INTERNAL_SERVER_ERROR, format!("cannot collect metrics: {error}\n"))
        .into_response()
}

async fn show_readiness(State(admin): State<Admin>) -> Response {
    let report = admin.readiness.report();
    let status = if report.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, [(CONTENT_TYPE, "application/json")], json!(report).to_string()).into_response()
}

async fn show_status(State(admin): State<Admin>) -> Response {
    let make = || Ok((admin.status)().to_string());
    admin.answer("application/json", &admin.last_status, make).await
}

/// Named conditions that must all be met before the agent is ready. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Readiness {
    conditions: Arc<Mutex<BTreeMap<&'static str, Option<String>>>>,
}

/// What `/readyz` answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ReadinessReport {
    /// Whether all conditions are met.
    pub ready: bool,
    /// Each condition by name.
    pub conditions: BTreeMap<&'static str, ConditionReport>,
}

/// One condition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ConditionReport {
    /// Whether it is met.
    pub met: bool,
    /// Why not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl Readiness {
    /// With these conditions, none of them met: all that matter are named before the server
    /// starts, so that it is never ready too early.
    pub fn requiring(names: impl IntoIterator<Item = &'static str>) -> Self {
        let conditions = names.into_iter().map(|name| (name, Some("starting".to_owned())));
        Self { conditions: Arc::new(Mutex::new(conditions.collect())) }
    }

    /// The condition is met.
    pub fn met(&self, name: &'static str) {
        self.lock().insert(name, None);
    }

    /// The condition is not, or no longer, met.
    pub fn unmet(&self, name: &'static str, reason: impl Into<String>) {
        self.lock().insert(name, Some(reason.into()));
    }

    /// How things stand.
    pub fn report(&self) -> ReadinessReport {
        let conditions = self.lock();
        let report = |reason: &Option<String>| ConditionReport {
            met: reason.is_none(),
            reason: reason.clone(),
        };
        ReadinessReport {
            ready: conditions.values().all(Option::is_none),
            conditions: conditions.iter().map(|(name, reason)| (*name, report(reason))).collect(),
        }
    }

    /// No code panics while it holds the lock, and a map is whole at all times.
    fn lock(&self) -> MutexGuard<'_, BTreeMap<&'static str, Option<String>>> {
        self.conditions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use tokio::net::TcpListener;

    use super::*;

    struct Server {
        base: String,
        readiness: Readiness,
        metrics: Metrics,
        stop: CancellationToken,
        task: JoinHandle<io::Result<()>>,
    }

    async fn serve() -> Server {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let readiness = Readiness::requiring(["attached", "rules"]);
        let (metrics, stop) = (Metrics::new(), CancellationToken::new());
        let status: StatusProvider = Arc::new(|| json!({"sessions": 3}));
        let admin = Admin::new(metrics.clone(), readiness.clone(), status, CpuBudget::default());
        let task = admin.start(listener, stop.clone());
        Server { base, readiness, metrics, stop, task }
    }

    impl Server {
        async fn get(&self, path: &str) -> (u16, String, String) {
            let client = reqwest::Client::builder().no_proxy().build().unwrap();
            let answer = client.get(format!("{}{path}", self.base)).send().await.unwrap();
            let content_type = answer.headers()[CONTENT_TYPE].to_str().unwrap().to_owned();
            (answer.status().as_u16(), content_type, answer.text().await.unwrap())
        }

        async fn ready(&self) -> (u16, Value) {
            let (status, content_type, body) = self.get("/readyz").await;
            assert_eq!(content_type, "application/json");
            (status, serde_json::from_str(&body).unwrap())
        }
    }

    #[tokio::test]
    async fn readiness_names_what_is_missing_until_all_conditions_are_met() {
        let server = serve().await;
        let (status, body) = server.ready().await;
        assert_eq!(status, 503);
        assert_eq!(body["conditions"]["rules"], json!({"met": false, "reason": "starting"}));

        server.readiness.met("rules");
        server.readiness.unmet("attached", "device n6 is not there");
        let (status, body) = server.ready().await;
        assert_eq!(status, 503);
        assert_eq!(body["ready"], false);
        assert_eq!(body["conditions"]["rules"], json!({"met": true}));
        assert_eq!(body["conditions"]["attached"]["reason"], "device n6 is not there");

        server.readiness.met("attached");
        assert_eq!(server.ready().await.0, 200);
        server.readiness.unmet("attached", "device n6 has vanished");
        assert_eq!(server.ready().await.0, 503);
    }

    #[tokio::test]
    async fn a_process_that_is_not_ready_is_alive() {
        let server = serve().await;
        assert_eq!(server.ready().await.0, 503);
        assert_eq!(server.get("/healthz").await.0, 200);
    }

    #[tokio::test]
    async fn status_is_what_the_provider_says() {
        let (status, _, body) = serve().await.get("/status").await;
        assert_eq!((status, body.as_str()), (200, r#"{"sessions":3}"#));
    }

    /// Whoever asks without end gets answers, most of them of before, and uses no more than a part.
    #[tokio::test]
    async fn without_processor_time_the_answer_before_has_to_do() {
        let made = Arc::new(Mutex::new(0));
        let counted = made.clone();
        let status: StatusProvider = Arc::new(move || {
            let begun = Instant::now();
            while begun.elapsed() < Duration::from_millis(20) {}
            let mut made = counted.lock().unwrap();
            *made += 1;
            json!(*made)
        });
        let cpu = CpuBudget::cores(0.05);
        let admin = Admin::new(Metrics::new(), Readiness::default(), status, cpu);
        for _ in 0..8 {
            assert_eq!(show_status(State(admin.clone())).await.status(), StatusCode::OK);
        }
        let last = show_status(State(admin)).await;
        assert!(*made.lock().unwrap() < 6, "{made:?}");
        assert!(last.headers().contains_key(AGE), "{last:?}");
    }

    #[tokio::test]
    async fn metrics_are_served_as_open_metrics() {
        let server = serve().await;
        server.metrics.register(|registry| {
            registry.register("late", "Registered after the start", {
                prometheus_client::metrics::gauge::Gauge::<i64>::default()
            });
        });
        let (status, content_type, body) = server.get("/metrics").await;
        assert_eq!((status, content_type.as_str()), (200, metrics::CONTENT_TYPE));
        assert!(body.contains("\ndetector_late 0\n") && body.ends_with("# EOF\n"), "{body}");
    }

    #[tokio::test]
    async fn an_unknown_path_names_the_known_ones() {
        let (status, _, body) = serve().await.get("/").await;
        assert_eq!(status, 404);
        assert!(body.contains("/readyz"), "{body}");
    }

    #[tokio::test]
    async fn the_server_ends_when_it_is_told_to() {
        let server = serve().await;
        assert_eq!(server.get("/healthz").await.0, 200);
        server.stop.cancel();
        server.task.await.unwrap().unwrap();
    }
}
