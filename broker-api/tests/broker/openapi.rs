//! `broker-api/openapi.json` is what the handlers say, and `docs/broker-api.md` knows every error code.
//!
//! `UPDATE_DOCS=1 cargo test -p culvert-broker-api --test broker openapi` writes the document anew.

use std::collections::BTreeSet;
use std::path::Path;

use culvert_broker_api::rest;
use culvert_broker_wire::ErrorCode;
use serde_json::Value;

/// Set to write the file instead of comparing it.
const UPDATE: &str = "UPDATE_DOCS";

fn document() -> Value {
    serde_json::from_str(&rest::openapi_json()).unwrap()
}

/// Every operation, with its path and method.
fn operations(document: &Value) -> Vec<(String, Value)> {
    let paths = document["paths"].as_object().unwrap();
    let operations = paths.iter().flat_map(|(path, item)| {
        let methods = item.as_object().unwrap().iter();
        methods.map(move |(method, operation)| (format!("{method} {path}"), operation.clone()))
    });
    operations.collect()
}

#[test]
fn the_committed_document_is_what_the_handlers_say() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("openapi.json");
    let expected = rest::openapi_json();
    if std::env::var_os(UPDATE).is_some() {
        std::fs::write(&path, expected).unwrap();
        return;
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        found == expected,
        "openapi.json is stale; run: {UPDATE}=1 cargo test -p culvert-broker-api --test broker openapi"
    );
}

#[test]
fn every_operation_says_what_it_does_and_has_a_name_of_its_own() {
    let document = document();
    let operations = operations(&document);
    assert!(operations.len() > 30, "{}", operations.len());
    let mut names = BTreeSet::new();
    for (place, operation) in &operations {
        for field in ["summary", "operationId"] {
            assert!(operation[field].as_str().is_some_and(|text| !text.is_empty()), "{place}: {field}");
        }
        assert!(!operation["tags"].as_array().unwrap().is_empty(), "{place}");
        let name = operation["operationId"].as_str().unwrap();
        assert!(names.insert(name.to_owned()), "{place}: {name} is taken");
    }
}

#[test]
fn every_refusal_in_the_document_is_a_problem() {
    for (place, operation) in operations(&document()) {
        for (status, response) in operation["responses"].as_object().unwrap() {
            if status.starts_with(['4', '5']) {
                let shape = &response["content"]["application/problem+json"]["schema"]["$ref"];
                assert_eq!(shape, "#/components/schemas/Problem", "{place} {status}");
            }
        }
    }
}

#[test]
fn every_reference_in_the_document_leads_somewhere() {
    fn walk(document: &Value, at: &Value) {
        if let Some(reference) = at["$ref"].as_str() {
            let pointer = reference.strip_prefix('#').unwrap();
            assert!(document.pointer(pointer).is_some(), "{reference}");
        }
        match at {
            Value::Object(fields) => fields.values().for_each(|value| walk(document, value)),
            Value::Array(values) => values.iter().for_each(|value| walk(document, value)),
            _ => {}
        }
    }
    let document = document();
    walk(&document, &document);
}

#[test]
fn the_guide_lists_every_error_code_and_no_other() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/broker-api.md");
    let guide = std::fs::read_to_string(path).unwrap();
    let table = guide.split_once("## Error codes").expect("a chapter on error codes").1;
    let table = table.split("\n## ").next().unwrap();
    let rows = table.lines().filter_map(|line| line.strip_prefix("| `")?.split_once('`'));
    let listed: BTreeSet<_> = rows.map(|(code, _)| code).collect();
    let known: BTreeSet<_> = ErrorCode::ALL.iter().map(|code| code.name()).collect();
    assert_eq!(listed, known);
}
