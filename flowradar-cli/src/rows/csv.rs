//! Rows as comma-separated values (RFC 4180, but with line feeds alone).
//!
//! No field ever needs quotes: the only text is the switch's name, which cannot hold commas, quotes
//! or line ends (`SwitchName`).

use std::io::{self, Write};

use super::{COLUMNS, FlowRow};

pub(super) fn write_header(out: &mut impl Write) -> io::Result<()> {
    writeln!(out, "{}", COLUMNS.join(","))
}

pub(super) fn write_row(out: &mut impl Write, row: &FlowRow<'_>) -> io::Result<()> {
    write!(
        out,
        "{},{},{},{},{},{},{},{},",
        row.epoch,
        row.switch,
        row.src,
        row.dst,
        row.src_port,
        row.dst_port,
        row.protocol,
        row.packets.value,
    )?;
    if let Some(bytes) = row.bytes {
        write!(out, "{}", bytes.value)?;
    }
    writeln!(out, ",{}", row.status())
}

#[cfg(test)]
mod tests {
    use std::net::Ipv6Addr;

    use flowradar_core::{Counter, CounterStatus};

    use super::*;

    #[test]
    fn bytes_that_are_not_counted_are_empty() -> io::Result<()> {
        let row = FlowRow {
            epoch: 7,
            switch: "leaf-1",
            src: [10, 0, 0, 1].into(),
            dst: Ipv6Addr::LOCALHOST.into(),
            src_port: 49152,
            dst_port: 443,
            protocol: 6,
            packets: Counter::exact(3),
            bytes: None,
        };
        let counted = FlowRow {
            bytes: Some(Counter {
                value: 120,
                status: CounterStatus::Joint,
            }),
            ..row
        };
        let mut out = vec![];
        write_header(&mut out)?;
        write_row(&mut out, &row)?;
        write_row(&mut out, &counted)?;
        assert_eq!(
            String::from_utf8_lossy(&out),
            "epoch,switch,src,dst,src_port,dst_port,protocol,packets,bytes,status\n\
             7,leaf-1,10.0.0.1,::1,49152,443,6,3,,exact\n\
             7,leaf-1,10.0.0.1,::1,49152,443,6,3,120,joint\n"
        );
        Ok(())
    }
}
