//! Progress bars: on a terminal, and only for what takes longer than a second.

use std::borrow::Cow;
use std::io::IsTerminal;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::JoinHandle;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// How long work goes on without a bar.
const DELAY: Duration = Duration::from_secs(1);
/// How often a bar that is shown moves.
const TICK: Duration = Duration::from_millis(100);

/// A progress bar that appears after a second and disappears when it is dropped.
///
/// Where standard error is not a terminal it is never shown and costs next to nothing.
pub(crate) struct Progress {
    bar: ProgressBar,
    /// Waits for the delay to pass or for the work to end, whichever comes first.
    timer: Option<(Sender<()>, JoinHandle<()>)>,
}

impl Progress {
    /// Work of so many bytes; 0 if that is not known.
    pub(crate) fn bytes(title: impl Into<Cow<'static, str>>, total: u64) -> Self {
        Self::new(
            title,
            total,
            "{msg} {wide_bar} {decimal_bytes} of {decimal_total_bytes}, {eta} left",
        )
    }

    /// Work of so many steps.
    pub(crate) fn steps(title: impl Into<Cow<'static, str>>, total: u64) -> Self {
        Self::new(title, total, "{msg} {wide_bar} {pos} of {len}, {eta} left")
    }

    /// Work whose end nobody knows.
    pub(crate) fn spinner(title: impl Into<Cow<'static, str>>) -> Self {
        Self::new(title, 0, "{spinner} {msg} {elapsed}")
    }

    fn new(title: impl Into<Cow<'static, str>>, total: u64, template: &'static str) -> Self {
        let bar = ProgressBar::with_draw_target(
            (total > 0).then_some(total),
            ProgressDrawTarget::hidden(),
        )
        .with_message(title);
        let timer = std::io::stderr().is_terminal().then(|| {
            let template = if total > 0 {
                template
            } else {
                "{spinner} {msg} {elapsed}"
            };
            bar.set_style(
                ProgressStyle::with_template(template).expect("the templates here are well-formed"),
            );
            let (stop, stopped) = mpsc::channel();
            let shown = bar.clone();
            let waiting = std::thread::spawn(move || {
                if stopped.recv_timeout(DELAY) == Err(RecvTimeoutError::Timeout) {
                    shown.set_draw_target(ProgressDrawTarget::stderr());
                    shown.enable_steady_tick(TICK);
                }
            });
            (stop, waiting)
        });
        Self { bar, timer }
    }

    /// Where the work is.
    pub(crate) fn set(&self, position: u64) {
        self.bar.set_position(position);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some((stop, waiting)) = self.timer.take() {
            drop(stop);
            // The thread cannot panic, and if it did there would be no bar to clear.
            let _ = waiting.join();
        }
        self.bar.finish_and_clear();
    }
}
