//! What a server says when it refuses.
//!
//! Registries say it as in the distribution specification, section "Error Codes".

use std::time::Duration;

use reqwest::header::CONTENT_TYPE;

/// What is longer is no message.
const LONGEST: usize = 1 << 16;
/// A refusal is not worth waiting for its words.
const PATIENCE: Duration = Duration::from_secs(5);

/// The messages of the distribution specification's error document, or the text's first line.
pub(crate) async fn words(mut response: reqwest::Response) -> String {
    let is_html = response
        .headers()
        .get(CONTENT_TYPE)
        .is_some_and(|value| value.as_bytes().starts_with(b"text/html"));
    let mut body = Vec::new();
    let read = async {
        while let Ok(Some(chunk)) = response.chunk().await {
            body.extend_from_slice(&chunk);
            if body.len() > LONGEST {
                break;
            }
        }
    };
    // What came until then will do.
    let _ = tokio::time::timeout(PATIENCE, read).await;
    let text = match serde_json::from_slice::<serde_json::Value>(&body) {
        Ok(document) => said_in(&document),
        Err(_) if is_html => String::new(),
        Err(_) => String::from_utf8_lossy(&body)
            .lines()
            .next()
            .unwrap_or_default()
            .to_owned(),
    };
    short(&text)
}

fn said_in(document: &serde_json::Value) -> String {
    let text = |value: &serde_json::Value, key: &str| {
        value
            .get(key)
            .and_then(serde_json::Value::as_str)
            .filter(|text| !text.is_empty())
            .map(str::to_owned)
    };
    let one = |error: &serde_json::Value| text(error, "message").or_else(|| text(error, "code"));
    match document.get("errors").and_then(serde_json::Value::as_array) {
        Some(errors) => errors.iter().filter_map(one).collect::<Vec<_>>().join("; "),
        None => one(document)
            .or_else(|| text(document, "details"))
            .unwrap_or_default(),
    }
}

/// What a stranger said, as far as a message quotes it.
pub(crate) fn short(text: &str) -> String {
    let text: String = text.trim().chars().take(300).collect();
    text.trim_end().to_owned()
}
