//! How many packets and bytes a flow has.

use thiserror::Error;

use crate::random::Stream;

/// IPv4 and TCP headers without options: what a packet has besides its payload.
pub const HEADER_BYTES: u32 = 40;
/// Most packets that a flow may send in one epoch.
pub const FLOW_PACKETS_MAX: u32 = 1 << 24;
/// Most points of a flow-size distribution.
pub const CDF_POINTS_MAX: usize = 65_536;

/// What a flow sends in one epoch.
#[derive(Clone, Debug, PartialEq)]
pub enum FlowSizes {
    /// Bounded Pareto in packets: few large flows send most packets.
    Pareto {
        /// The tail's exponent; the smaller, the heavier the tail.
        alpha: f64,
        /// Least packets of a flow.
        packets_min: u32,
        /// Most packets of a flow.
        packets_max: u32,
    },
    /// All flows alike.
    Fixed {
        /// Packets of every flow.
        packets: u32,
    },
    /// A distribution of payload bytes, cut into packets by the MTU.
    Bytes(FlowSizeCdf),
}

impl FlowSizes {
    /// α = 1.1 from 1 to 50,000 packets: most flows have one packet, the mean is about 7, and
    /// 50,000 packets of 1,500 bytes are what 60 Gb/s carry in 10 ms.
    pub const DEFAULT: Self = Self::Pareto {
        alpha: 1.1,
        packets_min: 1,
        packets_max: 50_000,
    };

    pub(crate) fn check(&self) -> Result<(), &'static str> {
        match *self {
            Self::Pareto {
                alpha,
                packets_min,
                packets_max,
            } => {
                if !(alpha.is_finite() && alpha > 0.0) {
                    Err("alpha must be above 0")
                } else if packets_min == 0 || packets_min > packets_max {
                    Err("packets_min must be from 1 to packets_max")
                } else if packets_max > FLOW_PACKETS_MAX {
                    Err("packets_max must be at most 16,777,216")
                } else {
                    Ok(())
                }
            }
            Self::Fixed { packets } if packets == 0 || packets > FLOW_PACKETS_MAX => {
                Err("packets must be from 1 to 16,777,216")
            }
            Self::Fixed { .. } | Self::Bytes(_) => Ok(()),
        }
    }

    /// Draws the packets of one flow in one epoch.
    pub(crate) fn draw(&self, mtu_bytes: u32, stream: &mut Stream) -> PacketTrain {
        let packets = match self {
            &Self::Pareto {
                alpha,
                packets_min,
                packets_max,
            } => bounded_pareto(alpha, packets_min, packets_max, stream.unit()),
            &Self::Fixed { packets } => packets,
            Self::Bytes(cdf) => return cut_into_packets(cdf.quantile(stream.unit()), mtu_bytes),
        };
        PacketTrain {
            large: u64::from(packets) - 1,
            small: 1,
            large_bytes: mtu_bytes,
            small_bytes: HEADER_BYTES
                + stream.below(u64::from(mtu_bytes - HEADER_BYTES) + 1) as u32,
        }
    }
}

impl Default for FlowSizes {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// A published distribution of flow sizes, linear between its points.
///
/// ```
/// use flowradar_sim::FlowSizeCdf;
/// // Half of the flows have up to 1,000 bytes, the others up to 100,000.
/// let sizes = FlowSizeCdf::parse("0 0\n1000 50 # bytes, per cent\n100000 100\n")?;
/// assert_eq!(sizes.quantile(0.25), 500);
/// assert_eq!(sizes.quantile(0.75), 50_500);
/// # Ok::<(), flowradar_sim::CdfError>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct FlowSizeCdf {
    /// Bytes and cumulated fraction; both ascend; the last fraction is 1.
    points: Vec<(u64, f64)>,
}

/// Why a distribution was refused.
#[derive(Clone, Debug, Error, PartialEq)]
pub enum CdfError {
    /// A line is not a point.
    #[error("line {line}: expected `bytes percent`, found {found:?}")]
    Syntax {
        /// From 1.
        line: usize,
        /// The start of the line.
        found: String,
    },
    /// A per cent value is not between 0 and 100.
    #[error("line {line}: {percent} is not between 0 and 100 per cent")]
    Percent {
        /// From 1.
        line: usize,
        /// The value.
        percent: f64,
    },
    /// The size is more than a flow may have.
    #[error("line {line}: {bytes} bytes are more than {limit}, the largest supported flow")]
    TooLarge {
        /// From 1.
        line: usize,
        /// The size.
        bytes: u64,
        /// The largest size.
        limit: u64,
    },
    /// Bytes or per cent are lower than on the line before.
    #[error("line {line}: bytes and per cent must not be lower than at the point before")]
    NotAscending {
        /// From 1.
        line: usize,
    },
    /// The text ends before 100 per cent.
    #[error("the last point must be at 100 per cent, it is at {percent}")]
    Incomplete {
        /// The last value, 0 if there is no point.
        percent: f64,
    },
    /// More points than a distribution has.
    #[error("line {line}: more than {CDF_POINTS_MAX} points")]
    TooManyPoints {
        /// From 1.
        line: usize,
    },
}

impl FlowSizeCdf {
    /// Most bytes of a flow: what [`FLOW_PACKETS_MAX`] packets of the least MTU carry.
    pub const BYTES_MAX: u64 = (MTU_BYTES_MIN - HEADER_BYTES) as u64 * FLOW_PACKETS_MAX as u64;

    /// Reads lines of `bytes percent`, as published with many flow-size distributions: the given
    /// per cent of flows have at most so many bytes. Empty lines and what follows `#` are skipped.
    ///
    /// # Errors
    /// [`CdfError`], with the line.
    pub fn parse(text: &str) -> Result<Self, CdfError> {
        let mut points: Vec<(u64, f64)> = Vec::new();
        for (line, content) in text.lines().enumerate().map(|(i, line)| (i + 1, line)) {
            let content = content.split('#').next().unwrap_or_default().trim();
            if content.is_empty() {
                continue;
            }
            let (bytes, percent) = point(content).ok_or_else(|| CdfError::Syntax {
                line,
                found: content.chars().take(40).collect(),
            })?;
            if !(0.0..=100.0).contains(&percent) {
                return Err(CdfError::Percent { line, percent });
            }
            if bytes > Self::BYTES_MAX {
                return Err(CdfError::TooLarge {
                    line,
                    bytes,
                    limit: Self::BYTES_MAX,
                });
            }
            let fraction = percent / 100.0;
            if let Some(&(bytes_before, fraction_before)) = points.last()
                && (bytes < bytes_before || fraction < fraction_before)
            {
                return Err(CdfError::NotAscending { line });
            }
            if points.len() == CDF_POINTS_MAX {
                return Err(CdfError::TooManyPoints { line });
            }
            points.push((bytes, fraction));
        }
        match points.last() {
            Some(&(_, 1.0)) => Ok(Self { points }),
            last => Err(CdfError::Incomplete {
                percent: last.map_or(0.0, |&(_, fraction)| fraction * 100.0),
            }),
        }
    }

    /// The size in bytes that the given fraction of flows does not exceed; `fraction` is held to
    /// 0 to 1.
    pub fn quantile(&self, fraction: f64) -> u64 {
        let fraction = fraction.clamp(0.0, 1.0);
        let above = self.points.partition_point(|&(_, f)| f < fraction);
        let (bytes, at) = self.points[above.min(self.points.len() - 1)];
        let Some(&(bytes_before, before)) = above.checked_sub(1).and_then(|i| self.points.get(i))
        else {
            return bytes;
        };
        let share = (fraction - before) / (at - before);
        bytes_before + libm::round((bytes - bytes_before) as f64 * share) as u64
    }
}

/// Least MTU, in bytes: every IPv4 network carries this much (RFC 791, section 3.2).
pub const MTU_BYTES_MIN: u32 = 68;

/// Packets of one flow in one epoch, of at most two sizes: the large ones are sent first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PacketTrain {
    pub(crate) large: u64,
    pub(crate) small: u64,
    pub(crate) large_bytes: u32,
    pub(crate) small_bytes: u32,
}

impl PacketTrain {
    pub(crate) fn packets(self) -> u64 {
        self.large + self.small
    }

    /// A train of so many packets and bytes, whose sizes differ by one byte at most.
    pub(crate) fn even(packets: u32, bytes: u64) -> Self {
        let packets = u64::from(packets.max(1));
        let small_bytes = u32::try_from(bytes / packets).unwrap_or(u32::MAX);
        let large = bytes % packets;
        Self {
            large,
            small: packets - large,
            large_bytes: small_bytes.saturating_add(1),
            small_bytes,
        }
    }
}

fn point(line: &str) -> Option<(u64, f64)> {
    let mut fields = line.split_whitespace();
    let (bytes, percent) = (fields.next()?, fields.next()?);
    let point = (bytes.parse().ok()?, percent.parse().ok()?);
    fields.next().is_none().then_some(point)
}

/// The inverse of the distribution function, rounded down to whole packets.
fn bounded_pareto(alpha: f64, packets_min: u32, packets_max: u32, unit: f64) -> u32 {
    // Whole packets n stand for sizes from n to n + 1.
    let (low, high) = (f64::from(packets_min), f64::from(packets_max) + 1.0);
    let beyond_high = libm::pow(low / high, alpha);
    let size = low * libm::pow(1.0 - unit * (1.0 - beyond_high), -1.0 / alpha);
    (size as u32).clamp(packets_min, packets_max)
}

fn cut_into_packets(bytes: u64, mtu_bytes: u32) -> PacketTrain {
    let payload_max = u64::from(mtu_bytes - HEADER_BYTES);
    // A flow without payload still has a packet.
    let packets = bytes.div_ceil(payload_max).max(1);
    let last = bytes - (packets - 1) * payload_max;
    PacketTrain {
        large: packets - 1,
        small: 1,
        large_bytes: mtu_bytes,
        small_bytes: HEADER_BYTES + last as u32,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::{Purpose, Seed};

    #[test]
    fn bytes_become_packets_by_the_mtu() {
        let cut = |bytes| {
            let train = cut_into_packets(bytes, 1_500);
            let sent = train.large * u64::from(train.large_bytes)
                + train.small * u64::from(train.small_bytes);
            assert_eq!(sent, bytes + train.packets() * u64::from(HEADER_BYTES));
            train.packets()
        };
        // 1,460 bytes of payload fit.
        assert_eq!([0, 1, 1_460, 1_461, 2_920].map(cut), [1, 1, 1, 2, 2]);
        assert_eq!(cut(30_000_000), 20_548);
    }

    #[test]
    fn even_trains_have_the_sums_asked_for() {
        let train = PacketTrain::even(7, 1_000);
        assert_eq!(train.packets(), 7);
        let bytes =
            train.large * u64::from(train.large_bytes) + train.small * u64::from(train.small_bytes);
        assert_eq!(bytes, 1_000);
    }

    /// Against the distribution function, in six places: P(packets ≤ n) with low = 1.
    #[test]
    fn pareto_draws_follow_its_distribution_function() {
        const DRAWS: usize = 100_000;
        let mut stream = Seed(4).stream(Purpose::FlowSize, 0, 0);
        let sizes = FlowSizes::DEFAULT;
        let mut draws: Vec<u64> = (0..DRAWS)
            .map(|_| sizes.draw(1_500, &mut stream).packets())
            .collect();
        draws.sort_unstable();
        for n in [1, 2, 5, 20, 100, 1_000] {
            let found = draws.partition_point(|&packets| packets <= n) as f64 / DRAWS as f64;
            let expected = (1.0 - (n as f64 + 1.0).powf(-1.1)) / (1.0 - 50_001_f64.powf(-1.1));
            let deviation = (expected * (1.0 - expected) / DRAWS as f64).sqrt();
            assert!(
                (found - expected).abs() < 5.0 * deviation,
                "{n}: {found} {expected}"
            );
        }
        assert!(draws[0] == 1 && draws[DRAWS - 1] <= 50_000);
    }

    #[test]
    fn quantiles_interpolate() {
        let cdf = FlowSizeCdf::parse("\n# sizes\n100 20\n200 20\n200 60\n1200 100\n").expect("ok");
        let quantiles = [0.0, 0.1, 0.2, 0.5, 0.6, 0.8, 1.0].map(|q| cdf.quantile(q));
        assert_eq!(quantiles, [100, 100, 100, 200, 200, 700, 1_200]);
    }

    #[test]
    fn refusals_name_the_line() {
        let refusal = |text: &str| FlowSizeCdf::parse(text).expect_err("must be refused");
        assert_eq!(
            refusal("0 0\nten 20"),
            CdfError::Syntax {
                line: 2,
                found: "ten 20".into()
            }
        );
        assert!(matches!(refusal("1 2 3"), CdfError::Syntax { line: 1, .. }));
        assert_eq!(
            refusal("0 101"),
            CdfError::Percent {
                line: 1,
                percent: 101.0
            }
        );
        assert!(matches!(
            refusal("0 NaN"),
            CdfError::Percent { line: 1, .. }
        ));
        assert_eq!(
            refusal("0 0\n9 50\n8 100"),
            CdfError::NotAscending { line: 3 }
        );
        assert_eq!(refusal(""), CdfError::Incomplete { percent: 0.0 });
        assert_eq!(refusal("0 0\n5 50"), CdfError::Incomplete { percent: 50.0 });
        assert!(matches!(
            refusal("18446744073709551615 100"),
            CdfError::TooLarge { line: 1, .. }
        ));
    }
}
