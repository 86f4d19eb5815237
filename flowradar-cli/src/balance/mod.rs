//! What `flowradar balance` does; its arguments are in `commands/balance.rs`.

pub(crate) mod bench;
pub(crate) mod check;
mod http_client;
pub(crate) mod replay;
pub(crate) mod run;
pub(crate) mod top;

use crate::outcome::CommandError;

fn failed(error: impl std::fmt::Display) -> CommandError {
    CommandError::Failed(error.to_string())
}

/// Runs a future on a runtime of one thread.
fn block_on<T>(future: impl Future<Output = Result<T, CommandError>>) -> Result<T, CommandError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime.map_err(failed)?.block_on(future)
}
