//! The use cases over ports in memory: a real shadow engine behind a layer of faults, and time that
//! passes only when everyone waits.

mod anomalies;
mod audit;
mod authorization;
mod broken;
mod clocks;
mod faults;
mod life;
mod mocked;
mod points;
mod random;
mod repeats;
mod world;
