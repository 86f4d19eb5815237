//! Precision, recall and delay.

use std::fmt::Write;

/// What was found, against what there was.
#[derive(Clone, Debug, Default)]
pub(crate) struct Score {
    pub(crate) there: u64,
    pub(crate) found: u64,
    pub(crate) said: u64,
    pub(crate) right: u64,
    /// Epochs from the onset to the epoch whose records showed it.
    pub(crate) delays: Vec<u64>,
}

impl Score {
    pub(crate) fn add(&mut self, other: &Self) {
        self.there += other.there;
        self.found += other.found;
        self.said += other.said;
        self.right += other.right;
        self.delays.extend(&other.delays);
    }

    pub(crate) fn precision(&self) -> f64 {
        if self.said == 0 {
            1.0
        } else {
            self.right as f64 / self.said as f64
        }
    }

    pub(crate) fn recall(&self) -> f64 {
        if self.there == 0 {
            1.0
        } else {
            self.found as f64 / self.there as f64
        }
    }
}

/// A table of scores, aligned.
#[derive(Debug, Default)]
pub(crate) struct Table {
    rows: Vec<(String, Score)>,
}

impl Table {
    pub(crate) fn push(&mut self, name: impl Into<String>, score: Score) {
        self.rows.push((name.into(), score));
    }

    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        let width = self
            .rows
            .iter()
            .map(|(name, _)| name.len())
            .max()
            .unwrap_or(0);
        let _ = writeln!(
            text,
            "{:width$} | there | found | said | right | precision | recall | delay in epochs (median, most)",
            ""
        );
        for (name, score) in &self.rows {
            let mut delays = score.delays.clone();
            delays.sort_unstable();
            let delay = match (delays.get(delays.len() / 2), delays.last()) {
                (Some(median), Some(most)) => format!("{median}, {most}"),
                _ => "-".into(),
            };
            let _ = writeln!(
                text,
                "{name:width$} | {:5} | {:5} | {:4} | {:5} | {:9.4} | {:6.4} | {delay}",
                score.there,
                score.found,
                score.said,
                score.right,
                score.precision(),
                score.recall(),
            );
        }
        text
    }
}
