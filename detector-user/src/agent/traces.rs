//! Where the spans of sampled events go.

use std::sync::Arc;

use crate::{config::Config, metrics::Metrics, trace::Spans};

/// `None`: nowhere.
#[cfg(feature = "otlp")]
pub(super) fn start(config: &Config, metrics: &Metrics) -> anyhow::Result<Option<Arc<dyn Spans>>> {
    use crate::{cloudevent::Identity, trace::otlp::Otlp};

    let Some(endpoint) = &config.tracing.otlp else { return Ok(None) };
    let identity = Identity { site: config.site.clone(), node: config.node.clone() };
    Ok(Some(Arc::new(Otlp::start(endpoint, &identity, metrics)?)))
}

/// The config has refused an endpoint.
#[cfg(not(feature = "otlp"))]
pub(super) fn start(_: &Config, _: &Metrics) -> anyhow::Result<Option<Arc<dyn Spans>>> {
    Ok(None)
}
