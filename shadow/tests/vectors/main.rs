//! Runs the vectors of `aws-iot-vectors.jsonl` and `keywright-vectors.jsonl` in process, over REST and over MQTT. In process, each confidence
//! group is a test of its own.

mod in_process;
#[cfg(all(feature = "mqtt", feature = "rest"))]
mod rest_and_mqtt;
mod vectors;
