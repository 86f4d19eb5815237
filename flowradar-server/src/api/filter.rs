//! Which rows a request wants.

use std::net::IpAddr;
use std::time::SystemTime;

use serde::Deserialize;
use utoipa::IntoParams;

use super::ApiError;
use super::rows::Row;
use crate::ingest::unix_now_ns;
use crate::store::TimeRange;

/// Which flow records.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, IntoParams)]
#[serde(default)]
pub(super) struct FilterQuery {
    /// Earliest time.
    pub(super) from: Option<String>,
    /// Time that is beyond.
    pub(super) to: Option<String>,
    /// Number of an epoch.
    pub(super) epoch: Option<u64>,
    /// `flowradar`, `netflow5`, `netflow7`, `netflow9`, `ipfix` or `sflow`.
    pub(super) source: Option<String>,
    /// Switch or exporter.
    pub(super) switch: Option<String>,
    /// Source address or prefix.
    pub(super) src: Option<String>,
    /// Destination address or prefix.
    pub(super) dst: Option<String>,
    /// Address or prefix of either side.
    pub(super) host: Option<String>,
    /// Source port.
    pub(super) src_port: Option<u16>,
    /// Destination port.
    pub(super) dst_port: Option<u16>,
    /// Port of either side.
    pub(super) port: Option<u16>,
    /// IP protocol number.
    pub(super) protocol: Option<u8>,
    /// `exact`, `joint`, `unresolved`, `reported` or `sampled`.
    pub(super) status: Option<String>,
}

/// The same, checked.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Filter {
    pub(super) range: TimeRange,
    epoch: Option<u64>,
    source: Option<String>,
    switch: Option<String>,
    src: Option<Prefix>,
    dst: Option<Prefix>,
    host: Option<Prefix>,
    src_port: Option<u16>,
    dst_port: Option<u16>,
    port: Option<u16>,
    protocol: Option<u8>,
    status: Option<String>,
}

/// An address prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Prefix {
    address: IpAddr,
    bits: u8,
}

impl FilterQuery {
    pub(super) fn check(self) -> Result<Filter, ApiError> {
        let prefix = |name: &str, text: Option<String>| {
            text.map(|text| {
                Prefix::parse(&text).ok_or_else(|| {
                    ApiError::bad_request(format!(
                        "{name}: {text:?} is no address or prefix such as 10.0.0.0/8"
                    ))
                })
            })
            .transpose()
        };
        Ok(Filter {
            range: range(self.from.as_deref(), self.to.as_deref())?,
            epoch: self.epoch,
            source: self.source,
            switch: self.switch,
            src: prefix("src", self.src)?,
            dst: prefix("dst", self.dst)?,
            host: prefix("host", self.host)?,
            src_port: self.src_port,
            dst_port: self.dst_port,
            port: self.port,
            protocol: self.protocol,
            status: self.status,
        })
    }
}

impl Filter {
    /// Whether a row is wanted.
    pub(super) fn matches(&self, row: &Row<'_>) -> bool {
        let is = |wanted: &Option<String>, found: &str| {
            wanted.as_deref().is_none_or(|wanted| wanted == found)
        };
        row.time_ns >= self.range.from_ns
            && row.time_ns < self.range.to_ns
            && self.epoch.is_none_or(|epoch| row.epoch == Some(epoch))
            && self.src_port.is_none_or(|port| row.src_port == port)
            && self.dst_port.is_none_or(|port| row.dst_port == port)
            && self
                .port
                .is_none_or(|port| row.src_port == port || row.dst_port == port)
            && self.protocol.is_none_or(|number| row.protocol == number)
            && is(&self.source, row.source)
            && is(&self.switch, row.switch)
            && is(&self.status, row.status)
            && self.src.is_none_or(|prefix| prefix.holds(row.src))
            && self.dst.is_none_or(|prefix| prefix.holds(row.dst))
            && self
                .host
                .is_none_or(|prefix| prefix.holds(row.src) || prefix.holds(row.dst))
    }
}

impl Prefix {
    fn parse(text: &str) -> Option<Self> {
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits.parse().ok()?)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().ok()?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let bits = bits.unwrap_or(most);
        (bits <= most).then_some(Self { address, bits })
    }

    fn holds(&self, address: &str) -> bool {
        let Ok(address) = address.parse::<IpAddr>() else {
            return false;
        };
        match (self.address, address) {
            (IpAddr::V4(prefix), IpAddr::V4(address)) => {
                let shift = 32 - u32::from(self.bits);
                let high = |address: u32| address.checked_shr(shift).unwrap_or(0);
                high(prefix.to_bits()) == high(address.to_bits())
            }
            (IpAddr::V6(prefix), IpAddr::V6(address)) => {
                let shift = 128 - u32::from(self.bits);
                let high = |address: u128| address.checked_shr(shift).unwrap_or(0);
                high(prefix.to_bits()) == high(address.to_bits())
            }
            _ => false,
        }
    }
}

/// A time range from two texts.
pub(super) fn range(from: Option<&str>, to: Option<&str>) -> Result<TimeRange, ApiError> {
    let now_ns = i64::try_from(unix_now_ns()).unwrap_or(i64::MAX);
    let time = |name: &str, text: Option<&str>, default: i64| {
        text.map_or(Ok(default), |text| {
            parse_time(text, now_ns).ok_or_else(|| {
                ApiError::bad_request(format!(
                    "{name}: {text:?} is no time: use nanoseconds since 1970, RFC 3339 such as \
                     2026-11-22T18:00:00Z, or -15m for 15 minutes ago"
                ))
            })
        })
    };
    Ok(TimeRange {
        from_ns: time("from", from, i64::MIN)?,
        to_ns: time("to", to, i64::MAX)?,
    })
}

fn parse_time(text: &str, now_ns: i64) -> Option<i64> {
    if let Some(ago) = text.strip_prefix('-') {
        let ago = humantime::parse_duration(ago).ok()?;
        return Some(now_ns.saturating_sub(i64::try_from(ago.as_nanos()).ok()?));
    }
    if let Ok(ns) = text.parse() {
        return Some(ns);
    }
    let time = humantime::parse_rfc3339_weak(text).ok()?;
    let since = time.duration_since(SystemTime::UNIX_EPOCH).ok()?;
    i64::try_from(since.as_nanos()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_absolute_or_relative() {
        let now = 1_700_000_000_000_000_000;
        assert_eq!(parse_time("-15m", now), Some(now - 900_000_000_000));
        assert_eq!(parse_time("2023-11-14T22:13:20Z", 0), Some(now));
        assert_eq!(parse_time("1700000000000000000", 0), Some(now));
        for bad in ["", "yesterday", "-", "15m", "--1s"] {
            assert_eq!(parse_time(bad, now), None, "{bad}");
        }
    }

    #[test]
    fn prefixes_hold_addresses() {
        let holds =
            |prefix: &str, address: &str| Prefix::parse(prefix).expect("a prefix").holds(address);
        assert!(holds("10.0.0.0/8", "10.255.0.1") && !holds("10.0.0.0/8", "11.0.0.1"));
        assert!(holds("0.0.0.0/0", "1.2.3.4") && !holds("0.0.0.0/0", "::1"));
        assert!(holds("2001:db8::/32", "2001:db8::7") && !holds("2001:db8::/32", "2001:db9::7"));
        assert!(holds("::/0", "2001:db8::7") && holds("1.2.3.4", "1.2.3.4"));
        for bad in ["10.0.0.0/33", "10.0.0/8", "::/129", "x", "/8", "1.2.3.4/-1"] {
            assert_eq!(Prefix::parse(bad), None, "{bad}");
        }
    }
}
