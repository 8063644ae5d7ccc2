use serde_json::Value;

use super::Object;

/// The members of `desired` that `reported` does not have or has with another value. Objects are compared member by member; any
/// other value is in the delta as a whole.
pub fn delta(desired: &Object, reported: &Object) -> Object {
    let mut delta_members = Object::new();
    for (key, wanted) in desired {
        match (wanted, reported.get(key)) {
            (Value::Object(wanted), Some(Value::Object(found))) => {
                let nested = delta(wanted, found);
                if !nested.is_empty() {
                    delta_members.insert(key.clone(), nested.into());
                }
            }
            (wanted, Some(found)) if is_equal(wanted, found) => {}
            (wanted, _) => {
                delta_members.insert(key.clone(), wanted.clone());
            }
        }
    }
    delta_members
}

/// Whether [`delta`] would not be empty.
pub fn has_delta(desired: &Object, reported: &Object) -> bool {
    desired
        .iter()
        .any(|(key, wanted)| match (wanted, reported.get(key)) {
            (Value::Object(wanted), Some(Value::Object(found))) => has_delta(wanted, found),
            (wanted, Some(found)) => !is_equal(wanted, found),
            (_, None) => true,
        })
}

/// Whether type and value are equal. Numbers are compared by value, so 1 equals 1.0.
fn is_equal(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => {
            a == b || (a.is_f64() || b.is_f64()) && a.as_f64() == b.as_f64()
        }
        (Value::Array(a), Value::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| is_equal(a, b))
        }
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len()
                && a.iter()
                    .all(|(k, a)| b.get(k).is_some_and(|b| is_equal(a, b)))
        }
        _ => a == b,
    }
}
