//! The OpenAPI document: what the handlers say about themselves, and what is the same for all of them.

use serde_json::{Map, Value, json};
use utoipa::PartialSchema;
use utoipa::openapi::OpenApi;

use super::problem::{MEDIA_TYPE, ProblemBody};

/// Answers of every operation under `/api`, beside its own.
const COMMON: [(&str, &str); 7] = [
    ("400", "Something in the request is not as it must be"),
    ("401", "Nothing proves who is there, or what is presented does not"),
    ("413", "The body is larger than this broker accepts"),
    ("415", "The body is of another media type"),
    ("429", "Too many requests; wait as long as `Retry-After` says"),
    ("500", "The broker's own fault"),
    ("503", "A store that the broker needs does not answer; try again soon"),
];

/// Operations that say by themselves that nothing stands behind them.
const FREE: [&str; 2] = ["/health", "/.well-known/jwks.json"];

/// The whole document, in one written form.
pub(super) fn complete(parts: OpenApi) -> String {
    let mut document = serde_json::to_value(parts).unwrap_or_default();
    document["openapi"] = "3.1.0".into();
    document["info"] = json!({
        "title": "Culvert broker",
        "version": env!("CARGO_PKG_VERSION"),
        "description": "Who is online, who may fetch what. Besides this API, clients hold a WebSocket at `/ws`. \
            Errors are problem details (RFC 9457) with a stable `code`.",
        "license": { "name": "MIT", "identifier": "MIT" },
    });
    document["servers"] = json!([{ "url": "/" }]);
    document["security"] = json!([{ "session": [] }, { "api_key": [] }]);
    let components = &mut document["components"];
    components["schemas"]["Problem"] = serde_json::to_value(ProblemBody::schema()).unwrap_or_default();
    components["schemas"]["ErrorCode"] =
        serde_json::to_value(culvert_broker_wire::ErrorCode::schema()).unwrap_or_default();
    components["securitySchemes"] = json!({
        "session": {
            "type": "http", "scheme": "bearer", "bearerFormat": "cst_…",
            "description": "A session token, from one of the logins under `/api/auth`.",
        },
        "api_key": {
            "type": "apiKey", "in": "header", "name": "X-Api-Key",
            "description": "API credentials: with `X-Api-Email`, `X-Api-Timestamp` (seconds since 1970) and \
                `X-Api-Signature`, the hexadecimal HMAC-SHA256 of `timestamp.email.api_key.body`.",
        },
    });
    if let Some(paths) = document["paths"].as_object_mut() {
        for (path, item) in paths {
            for operation in item.as_object_mut().into_iter().flat_map(Map::values_mut) {
                if !FREE.contains(&path.as_str()) {
                    describe_refusals(operation, path);
                }
            }
        }
    }
    let mut text = serde_json::to_string_pretty(&document).unwrap_or_default();
    text.push('\n');
    text
}

/// Adds the refusals that every operation has, and the shape of all of them.
fn describe_refusals(operation: &mut Value, path: &str) {
    let public = operation["security"] == json!([{}]);
    let has_body = operation.get("requestBody").is_some();
    let Some(responses) = operation["responses"].as_object_mut() else { return };
    for (status, description) in COMMON {
        let applies = match status {
            "401" => !public,
            "413" | "415" => has_body,
            "400" | "429" => path != "/api/info",
            _ => true,
        };
        if applies && !responses.contains_key(status) {
            responses.insert(status.to_owned(), json!({ "description": description }));
        }
    }
    for (status, response) in responses.iter_mut() {
        if status.starts_with(['4', '5']) && response.get("content").is_none() {
            response["content"] =
                json!({ MEDIA_TYPE: { "schema": { "$ref": "#/components/schemas/Problem" } } });
        }
        if status == "429" || status == "503" {
            response["headers"] = json!({
                "Retry-After": { "description": "Seconds to wait", "schema": { "type": "integer" } },
            });
        }
    }
}
