//! [`Metrics`]: counters and histograms in the text format of Prometheus.

use std::time::Duration;

use anyhow::Result;
use prometheus::{
    Encoder, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder,
};

/// Upper limits of the buckets of times, in seconds.
const SECONDS: [f64; 14] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// Numbers about what the server does.
pub(crate) struct Metrics {
    registry: Registry,
    requests: IntCounterVec,
    request_seconds: HistogramVec,
    search_seconds: HistogramVec,
    in_flight: IntGauge,
    documents: IntGaugeVec,
    snapshots: IntCounterVec,
    encoded_documents: IntCounter,
    written: IntCounterVec,
}

impl Metrics {
    /// All metrics at zero.
    ///
    /// # Errors
    /// None: the names are valid and differ.
    pub(crate) fn new() -> Result<Self> {
        let registry = Registry::new();
        let counter = |name: &str, help: &str, labels: &[&str]| -> prometheus::Result<IntCounterVec> {
            let counter = IntCounterVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(counter.clone()))?;
            Ok(counter)
        };
        let times = |name: &str, help: &str, labels: &[&str]| -> prometheus::Result<HistogramVec> {
            let options = HistogramOpts::new(name, help).buckets(SECONDS.to_vec());
            let times = HistogramVec::new(options, labels)?;
            registry.register(Box::new(times.clone()))?;
            Ok(times)
        };
        let in_flight = IntGauge::new("splade_requests_in_flight", "Requests that are answered or wait")?;
        registry.register(Box::new(in_flight.clone()))?;
        let documents = Opts::new("splade_documents", "Documents of an index");
        let documents = IntGaugeVec::new(documents, &["index"])?;
        registry.register(Box::new(documents.clone()))?;
        let encoded = IntCounter::new("splade_encoded_documents_total", "Documents that the network encoded")?;
        registry.register(Box::new(encoded.clone()))?;
        Ok(Self {
            requests: counter("splade_requests_total", "Requests by route and status", &["method", "route", "status"])?,
            request_seconds: times(
                "splade_request_seconds",
                "Time from the head of a request to its answer",
                &["route"],
            )?,
            search_seconds: times("splade_search_seconds", "Time of a search, without waiting", &["index", "mode"])?,
            in_flight,
            documents,
            snapshots: counter("splade_snapshots_total", "Snapshots of an index that were opened", &["index"])?,
            encoded_documents: encoded,
            written: counter("splade_written_total", "Documents added and ids deleted", &["index", "kind"])?,
            registry,
        })
    }

    /// Counts a request that was answered.
    pub(crate) fn answered(&self, method: &str, route: &str, status: u16, time: Duration) {
        self.requests.with_label_values(&[method, route, &status.to_string()]).inc();
        self.request_seconds.with_label_values(&[route]).observe(time.as_secs_f64());
    }

    /// Counts a search.
    pub(crate) fn searched(&self, index: &str, mode: &str, time: Duration) {
        self.search_seconds.with_label_values(&[index, mode]).observe(time.as_secs_f64());
    }

    /// Notes a snapshot of an index.
    pub(crate) fn opened(&self, index: &str, documents: usize) {
        self.documents.with_label_values(&[index]).set(i64::try_from(documents).unwrap_or(i64::MAX));
        self.snapshots.with_label_values(&[index]).inc();
    }

    /// Counts documents that the network encoded.
    pub(crate) fn encoded(&self, documents: usize) {
        self.encoded_documents.inc_by(documents as u64);
    }

    /// Counts documents that were added, and ids that were deleted.
    pub(crate) fn written(&self, index: &str, added: u64, deleted: u64) {
        self.written.with_label_values(&[index, "added"]).inc_by(added);
        self.written.with_label_values(&[index, "deleted"]).inc_by(deleted);
    }

    /// All metrics as text, with the number of requests that are answered now.
    ///
    /// # Errors
    /// None: names and values can be written.
    pub(crate) fn text(&self, in_flight: usize) -> Result<String> {
        self.in_flight.set(i64::try_from(in_flight).unwrap_or(i64::MAX));
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        Ok(String::from_utf8(text)?)
    }
}
