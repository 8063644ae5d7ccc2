/// Which locks should read their shadows.
pub(crate) enum Signal {
    /// The lock of this thing: its shadow has a delta.
    One(String),
    /// All locks: deltas were missed.
    All,
}
