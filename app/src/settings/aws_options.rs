//! Options of shadows in AWS IoT.

use clap::Args;

/// How AWS is reached. What is `None` comes from the standard chain of the AWS SDK.
#[derive(Args, Clone, Debug)]
pub(crate) struct Aws {
    /// The data endpoint of AWS IoT (of your account: https://…-ats.iot.REGION.amazonaws.com), or of a compatible service
    /// [default: as the AWS SDK finds it].
    #[arg(long = "aws-endpoint", value_name = "URL", value_parser = http_url)]
    pub(crate) endpoint: Option<String>,
    /// The AWS region [default: as the AWS SDK finds it].
    #[arg(long = "aws-region", value_name = "NAME")]
    pub(crate) region: Option<String>,
}

fn http_url(text: &str) -> Result<String, &'static str> {
    let host = text
        .strip_prefix("https://")
        .or_else(|| text.strip_prefix("http://"));
    match host {
        Some(host) if !host.is_empty() => Ok(text.to_owned()),
        _ => Err("write it as https://HOST"),
    }
}
