//! A capture, sent again.

use flowradar_balancer::io::capture::Capture;
use flowradar_balancer::io::replay::replay;

use super::failed;
use crate::commands::balance::ReplayArgs;
use crate::outcome::{CommandError, Completeness};
use crate::text::{counted, note};

pub(crate) fn run(args: &ReplayArgs) -> Result<Completeness, CommandError> {
    let capture = Capture::read(&args.file).map_err(failed)?;
    if capture.exports.is_empty() {
        return Err(CommandError::Failed(format!(
            "{} holds no flow exports",
            args.file.display()
        )));
    }
    let once = || {
        capture
            .exports
            .iter()
            .map(|(source, bytes)| (*source, bytes.as_slice()))
    };
    let all = (0..args.times).flat_map(|_| once());
    let replayed = replay(all, args.to, args.rate).map_err(failed)?;
    note!(
        "sent {} from {} to {}",
        counted(replayed.datagrams, "datagram"),
        counted(replayed.exporters.len() as u64, "exporter"),
        args.to
    );
    let mut exporters: Vec<_> = replayed.exporters.into_iter().collect();
    exporters.sort_unstable_by_key(|(_, own)| *own);
    for (exporter, own) in exporters {
        if exporter != own {
            note!("  {exporter} as {own}");
        }
    }
    if capture.others > 0 {
        note!(
            "  {} that are no exports were left out",
            counted(capture.others, "packet")
        );
    }
    Ok(Completeness::Complete)
}
