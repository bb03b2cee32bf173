//! JSON values held against each other, by what they mean.

use serde_json::Value;

/// Equal as JSON, with numbers compared by value.
pub fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(x), Value::Number(y)) => x == y || x.as_f64() == y.as_f64(),
        (Value::Array(x), Value::Array(y)) => x.len() == y.len() && x.iter().zip(y).all(|(x, y)| same(x, y)),
        (Value::Object(x), Value::Object(y)) => {
            x.len() == y.len() && x.iter().all(|(key, x)| y.get(key).is_some_and(|y| same(x, y)))
        }
        _ => a == b,
    }
}

/// Scores are f32 on the way out.
pub fn close(a: f64, b: f64) -> bool {
    (a - b).abs() <= 1e-4 * (1.0 + a.abs().max(b.abs()))
}

/// The `id` of every element of an array, as text.
pub fn ids_at(json: &Value, pointer: &str) -> Vec<String> {
    let items = json.pointer(pointer).and_then(Value::as_array);
    items
        .into_iter()
        .flatten()
        .map(|item| plain(&item["id"]))
        .collect()
}

/// A string without its quotes, anything else as JSON.
pub fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}
