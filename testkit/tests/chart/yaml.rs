//! YAML as JSON, which has the better accessors.

use std::collections::BTreeMap;

use serde_json::{Map, Value};
use yaml_rust2::{Yaml, YamlLoader};

/// All documents of a text that hold something.
pub(crate) fn documents(text: &str) -> Vec<Value> {
    let documents = YamlLoader::load_from_str(text).unwrap_or_else(|error| panic!("{error} in:\n{text}"));
    documents.into_iter().map(json).filter(|document| !document.is_null()).collect()
}

/// The only document of a text.
pub(crate) fn document(text: &str) -> Value {
    documents(text).into_iter().next().unwrap_or_else(|| Value::Object(Map::new()))
}

fn json(yaml: Yaml) -> Value {
    match yaml {
        Yaml::Real(text) => text.parse::<f64>().map_or(Value::Null, Value::from),
        Yaml::Integer(number) => number.into(),
        Yaml::String(text) => text.into(),
        Yaml::Boolean(truth) => truth.into(),
        Yaml::Array(list) => list.into_iter().map(json).collect(),
        Yaml::Hash(hash) => {
            let entry = |(key, value)| match key {
                Yaml::String(key) => (key, json(value)),
                other => panic!("a key that is no text: {other:?}"),
            };
            // In order, whether or not the map of JSON keeps one.
            Value::Object(hash.into_iter().map(entry).collect::<BTreeMap<_, _>>().into_iter().collect())
        }
        Yaml::Null | Yaml::BadValue | Yaml::Alias(_) => Value::Null,
    }
}
