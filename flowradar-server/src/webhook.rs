//! Posts events to a webhook.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{broadcast, watch};

use crate::collector::Shared;
use crate::config::{Config, WebhookConfig};
use crate::notice::Notice;

/// Attempts to post an event.
const ATTEMPTS: u32 = 4;

/// Posts events and notices from a severity on, one after the other, as JSON. One that cannot be posted
/// is dropped after some attempts, and counted; so are those that come while too many wait.
pub(crate) async fn run(
    config: watch::Receiver<Arc<Config>>,
    mut notices: broadcast::Receiver<Notice>,
    shared: Shared,
) {
    loop {
        let notice = match notices.recv().await {
            Ok(notice) => notice,
            Err(broadcast::error::RecvError::Lagged(missed)) => {
                (0..missed).for_each(|_| shared.metrics.webhook("dropped"));
                continue;
            }
            Err(broadcast::error::RecvError::Closed) => return,
        };
        let Some(webhook) = config.borrow().webhook.clone() else {
            continue;
        };
        // Its own failures are not told to it.
        if notice.severity < webhook.severity || notice.kind == "webhook_failed" {
            continue;
        }
        let mut outcome = Err(String::new());
        for attempt in 0..ATTEMPTS {
            tokio::time::sleep(Duration::from_millis(250) * ((1 << attempt) - 1)).await;
            let (webhook, notice) = (webhook.clone(), notice.clone());
            outcome = tokio::task::spawn_blocking(move || post(&webhook, &notice))
                .await
                .unwrap_or_else(|error| Err(error.to_string()));
            if outcome.is_ok() {
                break;
            }
        }
        match outcome {
            Ok(()) => shared.metrics.webhook("posted"),
            Err(error) => {
                shared.metrics.webhook("failed");
                shared.notices.warn(
                    "webhook_failed",
                    format!("event {} was not posted: {error}", notice.id),
                );
            }
        }
    }
}

fn post(webhook: &WebhookConfig, notice: &Notice) -> Result<(), String> {
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .timeout_global(Some(Duration::from_millis(webhook.timeout_ms)))
        .build()
        .into();
    let body = serde_json::to_string(notice).map_err(|error| error.to_string())?;
    // The URL may hold a secret: errors name it not.
    agent
        .post(webhook.url.reveal())
        .header("content-type", "application/json")
        .send(body)
        .map(|_| ())
        .map_err(|error| match error {
            ureq::Error::StatusCode(code) => format!("the server answered {code}"),
            ureq::Error::Timeout(_) => "no answer in time".to_owned(),
            ureq::Error::HostNotFound => "its host was not found".to_owned(),
            ureq::Error::ConnectionFailed => "no connection".to_owned(),
            ureq::Error::Io(error) => error.kind().to_string(),
            _ => "the request failed".to_owned(),
        })
}
