//! The decisions: synchronous functions without side effects. What they return is saved as it is.

mod audit;
mod decide;
mod draft;
mod ending;
mod repeat;
mod report;

pub use audit::{Finding, audit};
pub use decide::{Decision, Limits, Permitted, Rejection, WriteKey, decide, permit};
pub use draft::{
    abort, clear_results, commit, is_put_off_too_far, postpone, prepare, rest, revisit,
};
pub use ending::{Ending, end};
pub use repeat::{KeptAnswer, Repeat, RequestName, decide_repeat, keep_without_event};
pub use report::{Ignored, ReportDecision, ReportedResult, decide_report};
