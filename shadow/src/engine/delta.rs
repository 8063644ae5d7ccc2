use serde_json::Value;

use super::Object;

/// Every difference: what `desired` has and `reported` has not, or has otherwise. Objects are compared
/// member by member, everything else is taken whole.
pub fn delta(desired: &Object, reported: &Object) -> Object {
    let mut out = Object::new();
    for (key, wanted) in desired {
        match (wanted, reported.get(key)) {
            (Value::Object(wanted), Some(Value::Object(found))) => {
                let inner = delta(wanted, found);
                if !inner.is_empty() {
                    out.insert(key.clone(), inner.into());
                }
            }
            (wanted, Some(found)) if equal(wanted, found) => {}
            (wanted, _) => {
                out.insert(key.clone(), wanted.clone());
            }
        }
    }
    out
}

/// Whether [`delta`] would find anything.
pub fn differs(desired: &Object, reported: &Object) -> bool {
    desired
        .iter()
        .any(|(key, wanted)| match (wanted, reported.get(key)) {
            (Value::Object(wanted), Some(Value::Object(found))) => differs(wanted, found),
            (wanted, Some(found)) => !equal(wanted, found),
            (_, None) => true,
        })
}

/// The same type and value; numbers by value, so that 1 equals 1.0.
fn equal(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => {
            a == b || (a.is_f64() || b.is_f64()) && a.as_f64() == b.as_f64()
        }
        (Value::Array(a), Value::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| equal(a, b))
        }
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(k, a)| b.get(k).is_some_and(|b| equal(a, b)))
        }
        _ => a == b,
    }
}
