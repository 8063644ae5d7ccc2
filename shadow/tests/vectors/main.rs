//! Every case of `shadow-vectors.jsonl` and of `our-vectors.jsonl`, in process and through each front, the three
//! confidence groups apart.

mod cases;
#[cfg(all(feature = "mqtt", feature = "rest"))]
mod fronts;
mod in_process;
