use std::fmt;

/// Which of a thing's shadows.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ShadowName {
    /// The one without a name.
    Classic,
    /// A named one.
    Named(String),
}

/// A name that AWS IoT does not allow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidName(&'static str);

impl ShadowName {
    /// # Errors
    /// Not 1 to 64 of `a-z A-Z 0-9 : _ -`. Names that start with `$` are AWS's own.
    pub fn named(name: &str) -> Result<Self, InvalidName> {
        check_shadow_name(name)?;
        Ok(Self::Named(name.to_owned()))
    }
}

/// # Errors
/// See [`ShadowName::named`].
pub(crate) fn check_shadow_name(name: &str) -> Result<(), InvalidName> {
    if is_name(name, 64) {
        Ok(())
    } else {
        Err(InvalidName(
            "a shadow name must be 1 to 64 characters of a-z, A-Z, 0-9, :, _ or -",
        ))
    }
}

/// # Errors
/// Not 1 to 128 of `a-z A-Z 0-9 : _ -`.
pub fn check_thing_name(thing: &str) -> Result<(), InvalidName> {
    if is_name(thing, 128) {
        Ok(())
    } else {
        Err(InvalidName(
            "a thing name must be 1 to 128 characters of a-z, A-Z, 0-9, :, _ or -",
        ))
    }
}

fn is_name(text: &str, longest: usize) -> bool {
    (1..=longest).contains(&text.len())
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b':' | b'_' | b'-'))
}

/// A shadow as error texts name it: `thing`, or `thing~name`.
pub(crate) struct FullName<'a>(pub(crate) &'a str, pub(crate) &'a ShadowName);

impl fmt::Display for FullName<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.1 {
            ShadowName::Classic => f.write_str(self.0),
            ShadowName::Named(name) => write!(f, "{}~{name}", self.0),
        }
    }
}
