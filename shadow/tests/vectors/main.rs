//! Runs the cases of `shadow-vectors.jsonl` and `our-vectors.jsonl` in process, over REST and over MQTT. In process, each confidence
//! group is a test of its own.

mod cases;
mod in_process;
#[cfg(all(feature = "mqtt", feature = "rest"))]
mod rest_and_mqtt;
