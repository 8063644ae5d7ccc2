//! Parsing and formatting of values.

use keywright_domain::model::*;
use proptest::prelude::*;

proptest! {
    #[test]
    fn lock_ids_round_trip(id in 1..=MAX_JSON_INTEGER) {
        let id = LockId::new(id).expect("in range");
        prop_assert_eq!(id.to_string().parse(), Ok(id));
    }

    #[test]
    fn write_ids_round_trip(bits: u128) {
        let id = WriteId::from_u128(bits);
        prop_assert_eq!(id.to_string().parse(), Ok(id));
    }

    #[test]
    fn timestamps_round_trip(millis in 0..=Timestamp::MAX.as_millis()) {
        let time = Timestamp::from_millis(millis);
        prop_assert_eq!(time.to_string().parse(), Ok(time));
    }

    #[test]
    fn parsers_never_panic_and_do_not_change_accepted_text(text in "\\PC{0,150}|.{0,40}") {
        let _ = text.parse::<LockId>();
        let _ = text.parse::<Timestamp>();
        if let Ok(id) = text.parse::<WriteId>() {
            prop_assert_eq!(id.to_string(), text.clone());
        }
        if let Ok(key) = KeyUuid::new(&text) {
            prop_assert_eq!(key.as_str(), text.as_str());
            prop_assert!(!text.chars().any(char::is_control) && text.len() <= 128);
        }
        prop_assert!(DeviceCode::lossy(&text).as_str().len() <= DeviceCode::MAX_BYTES);
    }
}

#[test]
fn rejects_invalid_lock_ids() {
    for text in [
        "",
        "0",
        "-1",
        "+1",
        "01",
        "1.0",
        "9007199254740992",
        "99999999999999999999",
        " 1",
        "x",
    ] {
        assert!(text.parse::<LockId>().is_err(), "{text}");
    }
}

#[test]
fn client_tokens_have_at_most_64_bytes() {
    let token = ClientToken::new(WriteId::from_u128(u128::MAX), Epoch(999_999_999), u32::MAX);
    assert!(token.as_str().len() <= 64);
}

#[test]
fn a_cause_knows_its_principal_by_the_names_of_its_parts() {
    let cause = |requested_by: &str| Cause {
        requested_by: requested_by.into(),
        request: None,
    };
    let both = cause("user:eve+org:acme,key:kwk_abcd");
    for name in [
        "user:eve",
        "org:acme",
        "org:acme,key:kwk_abcd",
        "user:eve+org:acme,key:kwk_abcd",
    ] {
        assert!(both.is_requested_by(name), "{name}");
    }
    for name in [
        "",
        "user:ev",
        "user:eve2",
        "org:ac",
        "acme",
        "key:kwk_abcd",
        "USER:EVE",
    ] {
        assert!(!both.is_requested_by(name), "{name}");
    }
    let with_separators = cause("user:a+b,c");
    assert!(with_separators.is_requested_by("user:a+b,c"));
}
