//! Writing families of samples whose labels are known only now.

use holdfast_dataplane::Latency;
use prometheus_client::encoding::{
    DescriptorEncoder, EncodeCounterValue, EncodeGaugeValue, EncodeLabel, EncodeLabelSet,
    EncodeMetric, LabelSetEncoder, NoLabelSet,
};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::{MetricType, TypedMetric};
use prometheus_client::registry::Unit;
use std::fmt;
use std::sync::Arc;

const NANOSECONDS: f64 = 1e9;

/// The labels of one sample.
#[derive(Debug, Clone)]
pub(super) struct Row {
    node: Arc<str>,
    labels: Vec<(&'static str, String)>,
}

impl Row {
    pub(super) fn of_node(node: &Arc<str>) -> Row {
        Row {
            node: Arc::clone(node),
            labels: Vec::new(),
        }
    }

    pub(super) fn with(mut self, label: &'static str, value: &str) -> Row {
        self.labels.push((label, value.to_owned()));
        self
    }
}

impl EncodeLabelSet for Row {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> fmt::Result {
        ("node", &*self.node).encode(encoder.encode_label())?;
        for (label, value) in &self.labels {
            (*label, value.as_str()).encode(encoder.encode_label())?;
        }
        Ok(())
    }
}

/// Writes one family after the other.
pub(super) struct Writer<'a> {
    encoder: DescriptorEncoder<'a>,
}

impl<'a> Writer<'a> {
    pub(super) fn new(encoder: DescriptorEncoder<'a>) -> Writer<'a> {
        Writer { encoder }
    }

    pub(super) fn gauges<N: EncodeGaugeValue>(
        &mut self,
        name: &str,
        help: &str,
        unit: Option<&Unit>,
        rows: impl Iterator<Item = (Row, N)>,
    ) -> fmt::Result {
        let samples = rows.map(|(row, value)| (row, ConstGauge::new(value)));
        self.family(name, help, unit, samples)
    }

    pub(super) fn counters<N: EncodeCounterValue>(
        &mut self,
        name: &str,
        help: &str,
        unit: Option<&Unit>,
        rows: impl Iterator<Item = (Row, N)>,
    ) -> fmt::Result {
        let samples = rows.map(|(row, value)| (row, ConstCounter::new(value)));
        self.family(name, help, unit, samples)
    }

    /// The type is the samples' own, so that it stands there without samples as well.
    fn family<M: EncodeMetric + TypedMetric>(
        &mut self,
        name: &str,
        help: &str,
        unit: Option<&Unit>,
        samples: impl Iterator<Item = (Row, M)>,
    ) -> fmt::Result {
        let mut family = self.encoder.encode_descriptor(name, help, unit, M::TYPE)?;
        for (row, sample) in samples {
            sample.encode(family.encode_family(&row)?)?;
        }
        Ok(())
    }

    pub(super) fn infos(
        &mut self,
        name: &str,
        help: &str,
        rows: impl Iterator<Item = Row>,
    ) -> fmt::Result {
        let mut family = self
            .encoder
            .encode_descriptor(name, help, None, MetricType::Info)?;
        for row in rows {
            family.encode_info(&row)?;
        }
        Ok(())
    }

    pub(super) fn latencies<'b>(
        &mut self,
        name: &str,
        help: &str,
        rows: impl Iterator<Item = (Row, &'b Latency)>,
    ) -> fmt::Result {
        let unit = Some(&Unit::Seconds);
        let mut family = self
            .encoder
            .encode_descriptor(name, help, unit, MetricType::Histogram)?;
        for (row, latency) in rows {
            let mut sample = family.encode_family(&row)?;
            let sum = latency.sum_ns as f64 / NANOSECONDS;
            sample.encode_histogram::<NoLabelSet>(sum, latency.count(), &buckets(latency), None)?;
        }
        Ok(())
    }
}

/// Upper bound in seconds and count of each bucket; the encoder adds them up.
fn buckets(latency: &Latency) -> Vec<(f64, u64)> {
    let counts = latency.buckets.iter().enumerate();
    counts
        .map(|(bucket, count)| {
            let bound = Latency::bound_ns(bucket);
            (
                bound.map_or(f64::INFINITY, |ns| ns as f64 / NANOSECONDS),
                *count,
            )
        })
        .collect()
}
