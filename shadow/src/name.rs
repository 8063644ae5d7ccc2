use std::fmt;

/// Which of a thing's shadows.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ShadowName {
    /// The thing's unnamed shadow.
    Classic,
    /// A named shadow.
    Named(String),
}

/// A thing and one of its shadows. Its text is that of AWS IoT's error messages: `thing`, or `thing~name`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShadowKey {
    /// The thing's name.
    pub thing: String,
    /// The shadow.
    pub shadow: ShadowName,
}

/// A name that AWS IoT does not allow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidName(&'static str);

const MAX_SHADOW_NAME: usize = 64;
const MAX_THING_NAME: usize = 128;

impl ShadowName {
    /// A named shadow.
    ///
    /// # Errors
    /// The name is not 1 to 64 of the characters `a-z A-Z 0-9 : _ -`. Names that start with `$` are reserved by AWS.
    pub fn named(name: &str) -> Result<Self, InvalidName> {
        check_shadow_name(name)?;
        Ok(Self::Named(name.to_owned()))
    }
}

impl ShadowKey {
    pub(crate) fn new(thing: &str, shadow: &ShadowName) -> Self {
        Self {
            thing: thing.to_owned(),
            shadow: shadow.clone(),
        }
    }

    /// # Errors
    /// The thing's or the shadow's name is not allowed.
    pub(crate) fn checked(thing: &str, shadow: &ShadowName) -> Result<Self, InvalidName> {
        check_thing_name(thing)?;
        if let ShadowName::Named(name) = shadow {
            check_shadow_name(name)?;
        }
        Ok(Self::new(thing, shadow))
    }
}

impl fmt::Display for ShadowKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.shadow {
            ShadowName::Classic => f.write_str(&self.thing),
            ShadowName::Named(name) => write!(f, "{}~{name}", self.thing),
        }
    }
}

fn check_shadow_name(name: &str) -> Result<(), InvalidName> {
    let rule = "a shadow name must be 1 to 64 characters of a-z, A-Z, 0-9, :, _ or -";
    check(name, MAX_SHADOW_NAME, rule)
}

/// Checks the name of a thing.
///
/// # Errors
/// The name is not 1 to 128 of the characters `a-z A-Z 0-9 : _ -`.
pub fn check_thing_name(thing: &str) -> Result<(), InvalidName> {
    let rule = "a thing name must be 1 to 128 characters of a-z, A-Z, 0-9, :, _ or -";
    check(thing, MAX_THING_NAME, rule)
}

fn check(name: &str, max: usize, rule: &'static str) -> Result<(), InvalidName> {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b':' | b'_' | b'-');
    match (1..=max).contains(&name.len()) && name.bytes().all(allowed) {
        true => Ok(()),
        false => Err(InvalidName(rule)),
    }
}
