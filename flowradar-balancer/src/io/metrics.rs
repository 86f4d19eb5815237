//! Prometheus text.

use std::fmt::Write;

use super::status::Status;

/// The content type of the text format.
pub(crate) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Exporters with series of their own; the rest is in the sums.
const EXPORTERS: usize = 1000;

/// Renders the state.
pub(crate) fn render(status: &Status) -> String {
    let mut text = String::with_capacity(16 << 10);
    let counters = &status.counters;
    for (name, help, value) in counters.sums() {
        head(&mut text, name, help.trim(), "counter");
        sample(&mut text, name, &[], value as f64);
    }
    head(
        &mut text,
        "errors_total",
        "Format errors by reason.",
        "counter",
    );
    for (reason, count) in &counters.errors {
        sample(
            &mut text,
            "errors_total",
            &[("reason", &reason.to_string())],
            *count as f64,
        );
    }
    let gauges: [(&str, &str, f64); 6] = [
        (
            "uptime_seconds",
            "Seconds since the start.",
            status.uptime_seconds,
        ),
        (
            "exporters",
            "Exporters known.",
            status.known_exporters as f64,
        ),
        ("streams", "Streams known.", status.known_streams as f64),
        (
            "state_bytes",
            "Memory of templates and options.",
            status.state_bytes as f64,
        ),
        (
            "waiting_bytes",
            "Memory of data that waits for templates.",
            status.waiting_bytes as f64,
        ),
        (
            "replay_bytes",
            "Memory kept for replay.",
            status.replay_bytes as f64,
        ),
    ];
    for (name, help, value) in gauges {
        head(&mut text, name, help, "gauge");
        sample(&mut text, name, &[], value);
    }
    sockets(&mut text, status);
    destinations(&mut text, status);
    exporters(&mut text, status);
    text
}

fn sockets(text: &mut String, status: &Status) {
    type Value = fn(&super::status::SocketStatus) -> f64;
    let series: [(&str, &str, &str, Value); 2] = [
        (
            "kernel_drops_total",
            "Datagrams that the kernel dropped because a receive buffer was full.",
            "counter",
            |of| of.kernel_drops as f64,
        ),
        (
            "receive_buffer_bytes",
            "Receive buffer as the kernel granted it.",
            "gauge",
            |of| of.receive_buffer_bytes as f64,
        ),
    ];
    for (name, help, kind, value) in series {
        head(text, name, help, kind);
        for socket in &status.sockets {
            let labels = [
                ("address", &*socket.address.to_string()),
                ("worker", &*socket.worker.to_string()),
            ];
            sample(text, name, &labels, value(socket));
        }
    }
}

fn destinations(text: &mut String, status: &Status) {
    type Value = fn(&super::status::DestinationStatus) -> f64;
    let series: [(&str, &str, &str, Value); 14] = [
        (
            "destination_up",
            "1 if the destination takes traffic.",
            "gauge",
            |of| f64::from(of.state == "up"),
        ),
        (
            "destination_datagrams_total",
            "Datagrams sent.",
            "counter",
            |of| of.datagrams as f64,
        ),
        ("destination_bytes_total", "Bytes sent.", "counter", |of| {
            of.bytes as f64
        }),
        (
            "destination_records_total",
            "Flow records sent.",
            "counter",
            |of| of.records as f64,
        ),
        (
            "destination_records_per_second",
            "Flow records a second, lately.",
            "gauge",
            |of| of.records_per_second,
        ),
        (
            "destination_utilisation",
            "Load over capacity.",
            "gauge",
            |of| of.utilisation,
        ),
        ("destination_queue_bytes", "Bytes queued.", "gauge", |of| {
            of.queue_bytes as f64
        }),
        (
            "destination_queue_limit_bytes",
            "Size of the queue.",
            "gauge",
            |of| of.queue_limit_bytes as f64,
        ),
        (
            "destination_queue_dropped_datagrams_total",
            "Datagrams that found the queue full.",
            "counter",
            |of| of.queue_dropped_datagrams as f64,
        ),
        (
            "destination_queue_dropped_records_total",
            "Flow records in them.",
            "counter",
            |of| of.queue_dropped_records as f64,
        ),
        (
            "destination_refused_total",
            "Datagrams refused by ICMP.",
            "counter",
            |of| of.refused as f64,
        ),
        (
            "destination_failed_total",
            "Datagrams that could not be sent.",
            "counter",
            |of| of.failed as f64,
        ),
        (
            "destination_streams",
            "Streams with templates that go there.",
            "gauge",
            |of| of.streams as f64,
        ),
        (
            "destination_streams_up_to_date",
            "Of these, those whose templates and options are all there.",
            "gauge",
            |of| of.streams_up_to_date as f64,
        ),
    ];
    for (name, help, kind, value) in series {
        head(text, name, help, kind);
        for destination in &status.destinations {
            let kind = match destination.kind {
                crate::config::DestinationKind::Collector => "collector",
                crate::config::DestinationKind::Copy => "copy",
            };
            let labels = [("name", &*destination.name), ("kind", kind)];
            sample(text, name, &labels, value(destination));
        }
    }
}

fn exporters(text: &mut String, status: &Status) {
    type Value = fn(&super::status::ExporterStatus) -> f64;
    let series: [(&str, &str, Value); 4] = [
        (
            "exporter_messages_total",
            "Messages of an exporter.",
            |of| of.messages as f64,
        ),
        ("exporter_bytes_total", "Bytes of an exporter.", |of| {
            of.bytes as f64
        }),
        (
            "exporter_records_total",
            "Flow records of an exporter.",
            |of| of.records as f64,
        ),
        (
            "exporter_lost_total",
            "Sequence units of an exporter lost before they arrived.",
            |of| of.lost as f64,
        ),
    ];
    for (name, help, value) in series {
        head(text, name, help, "counter");
        for exporter in status.exporters.iter().take(EXPORTERS) {
            let group = exporter.router_group.as_deref().unwrap_or("");
            let labels = [
                ("exporter", &*exporter.address.to_string()),
                ("router_group", group),
            ];
            sample(text, name, &labels, value(exporter));
        }
    }
}

fn head(text: &mut String, name: &str, help: &str, kind: &str) {
    // Writing to a string does not fail.
    let _ = writeln!(
        text,
        "# HELP flowradar_balancer_{name} {help}\n# TYPE flowradar_balancer_{name} {kind}"
    );
}

fn sample(text: &mut String, name: &str, labels: &[(&str, &str)], value: f64) {
    let _ = write!(text, "flowradar_balancer_{name}");
    for (index, (key, value)) in labels.iter().enumerate() {
        let value = value
            .replace('\\', "\\\\")
            .replace('"', "\\\"")
            .replace('\n', "\\n");
        let _ = write!(
            text,
            "{}{key}=\"{value}\"",
            if index == 0 { '{' } else { ',' }
        );
    }
    let _ = writeln!(text, "{} {value}", if labels.is_empty() { "" } else { "}" });
}
