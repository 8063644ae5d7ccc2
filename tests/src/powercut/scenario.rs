//! The server that is recorded.

use std::ops::RangeInclusive;

/// The locks to which keys are written.
pub(super) const LOCKS: RangeInclusive<u64> = 1001..=1040;

/// The arguments of the server, while it is recorded and when it is started on an image.
pub(super) const ARGUMENTS: [&str; 14] = [
    "--locks",
    "40",
    "--behaviour",
    "all:latency=0s",
    "--log-level",
    "warn",
    "--request",
    "1500ms",
    "--shadow-call",
    "500ms",
    "--turn",
    "1s",
    "--lease",
    "4s",
];
