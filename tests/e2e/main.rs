//! The program from outside: a process, HTTP, and the files that it leaves.

mod audit;
mod aws;
mod bounds;
mod campaign;
mod commands;
mod config;
mod credentials;
mod faults;
mod heads;
mod kill;
mod locks;
mod metrics;
mod mqtt;
mod on_broker;
mod outage;
mod reads;
mod real_clients;
mod reference;
mod refusals;
mod repeats;
mod replicas;
mod restart;
mod thousand;
mod told;
mod world;
mod write_key;
