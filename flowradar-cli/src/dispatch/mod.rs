//! The dispatcher on the command line: the paper's experiment, and the dispatcher itself.

pub(crate) mod back_end;
pub(crate) mod experiment;
pub(crate) mod report;
pub(crate) mod run_report;
pub(crate) mod runner;
pub(crate) mod scenario;
pub(crate) mod source;
pub(crate) mod workload;
