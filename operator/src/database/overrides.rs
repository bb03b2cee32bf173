//! A user's pod template over the generated one.

use serde_json::Value;

/// Objects merge by key, null removes, lists whose items all have a `name` (containers,
/// env, volumes) or a `mountPath` merge by it, other lists are replaced.
pub fn merge(into: &mut Value, over: &Value) {
    match (into, over) {
        (Value::Object(into), Value::Object(over)) => {
            for (key, value) in over {
                if value.is_null() {
                    into.remove(key);
                } else {
                    merge(into.entry(key.clone()).or_insert(Value::Null), value);
                }
            }
        }
        (Value::Array(into), Value::Array(over)) => match key_of(into, over) {
            Some(key) => merge_lists(into, over, key),
            None => *into = over.clone(),
        },
        (into, over) => *into = over.clone(),
    }
}

fn key_of(into: &[Value], over: &[Value]) -> Option<&'static str> {
    let keyed = |key: &str| into.iter().chain(over).all(|item| item[key].is_string());
    ["mountPath", "name"].into_iter().find(|key| keyed(key))
}

fn merge_lists(into: &mut Vec<Value>, over: &[Value], key: &str) {
    for item in over {
        match into.iter_mut().find(|old| old[key] == item[key]) {
            Some(old) => merge(old, item),
            None => into.push(item.clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn merged(mut base: Value, over: Value) -> Value {
        merge(&mut base, &over);
        base
    }

    #[test]
    fn containers_and_env_merge_by_name() {
        let base = json!({"spec": {"containers": [{"name": "rhumb", "image": "a", "env": [{"name": "X", "value": "1"}]}]}});
        let over = json!({"spec": {"containers": [
            {"name": "rhumb", "env": [{"name": "X", "value": "2"}, {"name": "Y", "value": "3"}]},
            {"name": "sidecar", "image": "b"}
        ]}});
        assert_eq!(
            merged(base, over),
            json!({"spec": {"containers": [
                {"name": "rhumb", "image": "a", "env": [{"name": "X", "value": "2"}, {"name": "Y", "value": "3"}]},
                {"name": "sidecar", "image": "b"}
            ]}})
        );
    }

    #[test]
    fn mounts_of_one_volume_at_two_paths_are_two() {
        let base = json!([{"name": "cache", "mountPath": "/cache"}]);
        let over = json!([{"name": "cache", "mountPath": "/more"}]);
        assert_eq!(merged(base, over).as_array().map(Vec::len), Some(2));
    }

    #[test]
    fn null_removes_and_plain_lists_are_replaced() {
        let base = json!({"a": 1, "args": ["x", "y"], "tolerations": [{"key": "a"}]});
        let over = json!({"a": null, "args": ["z"], "tolerations": [{"key": "b"}]});
        assert_eq!(
            merged(base, over),
            json!({"args": ["z"], "tolerations": [{"key": "b"}]})
        );
    }
}
