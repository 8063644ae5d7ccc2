//! The use cases over in-memory ports: a real shadow engine behind injected faults, and simulated time, which passes only while all
//! tasks wait.

mod anomalies;
mod audit;
mod authorization;
mod broken_ports;
mod clock_steps;
mod crash_points;
mod feed;
mod harness;
mod idempotency;
mod interleavings;
mod lifecycle;
mod maintenance;
mod random;
mod shadow_faults;
mod withdrawal;
