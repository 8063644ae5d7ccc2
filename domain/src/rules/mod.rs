//! The decisions: synchronous functions without side effects. What they return is saved as it is.

mod decide;
mod draft;
mod ending;
mod report;

pub use decide::{Decision, Limits, Permitted, Rejection, WriteKey, decide, permit};
pub use draft::{abort, clear_results, commit, postpone, prepare, rest, revisit};
pub use ending::{Ending, end};
pub use report::{Ignored, ReportDecision, decide_report};
