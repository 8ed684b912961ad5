//! Keys, types and formats of `[update]`.

use std::ops::RangeInclusive;

use crate::document::{At, Shape, Table, Wrong};
use crate::report::Findings;
use crate::site::{Update, UpdatePolicy};
use crate::window::Window;

pub(super) const UPDATE: Shape = Shape {
    title: "[update]",
    required: &["url"],
    optional: &["channel", "centre", "policy", "window", "rate-limit-kbit-s"],
};

/// Below, a release of 30 MB takes a day; above, nobody needs a limit.
const RATE: RangeInclusive<i64> = 64..=1_000_000;
const MAX_URL: usize = 200;

#[derive(Debug)]
pub(crate) struct RawUpdate {
    url: At<String>,
    channel: Option<At<String>>,
    centre: Option<At<String>>,
    policy: Option<At<UpdatePolicy>>,
    window: Option<At<Window>>,
    pub(crate) rate_limit_kbit_s: Option<At<i64>>,
}

pub(super) fn read(table: &Table<'_>, findings: &mut Findings) -> Option<RawUpdate> {
    let url = table.parsed("url", findings, url);
    let channel = table.parsed("channel", findings, channel);
    let centre = table.parsed("centre", findings, centre);
    let policy = table.parsed("policy", findings, policy);
    let window = table.parsed("window", findings, window);
    let rate_limit_kbit_s = table.integer("rate-limit-kbit-s", findings);
    if let Some(rate) = rate_limit_kbit_s.as_ref().filter(|rate| !RATE.contains(&rate.value)) {
        let message = format!("{} kbit/s is no useful limit", rate.value);
        let help = format!("{} to {} kbit/s; leave it out for no limit", RATE.start(), RATE.end());
        findings.add(&rate.span, message, help);
    }
    Some(RawUpdate { url: url?, channel, centre, policy, window, rate_limit_kbit_s })
}

fn url(text: &str) -> Result<String, Wrong> {
    address(text).ok_or_else(|| {
        let help = "where releases are published, for example \"https://updates.example.net/kontor\"";
        Wrong::new(format!("`{text}` is not the address of a repository"), help)
    })
}

fn centre(text: &str) -> Result<String, Wrong> {
    address(text).ok_or_else(|| {
        let help = "where a box tells what it does, for example \"https://centre.example.net/check-in\"";
        Wrong::new(format!("`{text}` is not the address of a centre"), help)
    })
}

/// `http://` or `https://`, a host, perhaps a port, perhaps folders; kept without a slash at its end.
fn address(text: &str) -> Option<String> {
    let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"))?;
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let (host, port) = authority.split_once(':').unwrap_or((authority, "80"));
    let is_host = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'.' | b'-');
    let is_path = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'.' | b'-' | b'_' | b'/' | b'~');
    let plain = !host.is_empty()
        && host.bytes().all(is_host)
        && port.parse::<u16>().is_ok_and(|port| port > 0)
        && path.bytes().all(is_path)
        && !path.split('/').any(|part| part == ".." || part == ".");
    (plain && text.len() <= MAX_URL).then(|| text.trim_end_matches('/').to_owned())
}

fn channel(text: &str) -> Result<String, Wrong> {
    let plain = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-');
    let is_name = (1..=40).contains(&text.len()) && text.bytes().all(plain) && !text.starts_with('-');
    let wrong = || Wrong::new(format!("`{text}` is not a channel's name"), "for example stable or testing");
    if is_name { Ok(text.to_owned()) } else { Err(wrong()) }
}

fn policy(text: &str) -> Result<UpdatePolicy, Wrong> {
    match text {
        "automatic" => Ok(UpdatePolicy::Automatic),
        "download" => Ok(UpdatePolicy::Download),
        "manual" => Ok(UpdatePolicy::Manual),
        _ => Err(Wrong::new(
            format!("unknown policy `{text}`"),
            "automatic (within a major version), download (and wait for an operator), or manual",
        )),
    }
}

fn window(text: &str) -> Result<Window, Wrong> {
    text.parse()
        .map_err(|error| Wrong::new(format!("`{text}` is not a maintenance window"), format!("{error}")))
}

impl RawUpdate {
    pub(super) fn into_update(self) -> Update {
        Update {
            url: self.url.value,
            channel: self.channel.map_or_else(|| "stable".to_owned(), |channel| channel.value),
            centre: self.centre.map(|centre| centre.value),
            policy: self.policy.map(|policy| policy.value).unwrap_or_default(),
            window: self.window.map(|window| window.value).unwrap_or_default(),
            rate_limit_kbit_s: self.rate_limit_kbit_s.and_then(|rate| u32::try_from(rate.value).ok()),
        }
    }
}
