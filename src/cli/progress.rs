//! Progress on the screen: a bar for each stage on a terminal, a line for each stage anywhere else.

use crate::progress::{Progress, Stage};
use crate::units::Bytes;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// Shows what a build does, on stderr.
pub struct Screen {
    bar: ProgressBar,
    lively: bool,
    verbosity: i8,
    current: Mutex<Option<Current>>,
}

struct Current {
    stage: Stage,
    what: String,
    total: u64,
    start: Instant,
}

impl Screen {
    /// `lively` on a terminal that shows progress; `verbosity` below zero says nothing at all.
    pub fn new(lively: bool, verbosity: i8) -> Self {
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden());
        if lively && verbosity >= 0 {
            bar.set_draw_target(ProgressDrawTarget::stderr());
        }
        Self { bar, lively, verbosity, current: Mutex::new(None) }
    }

    /// Takes the bar away, so that what is said next stands on a line of its own.
    pub fn clear(&self) {
        self.bar.finish_and_clear();
    }

    fn current(&self) -> std::sync::MutexGuard<'_, Option<Current>> {
        // A thread that panicked with the lock held has already said worse things than a wrong bar.
        self.current.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    #[expect(clippy::print_stderr, reason = "the one place where progress is shown")]
    fn line(&self, text: &str) {
        if self.verbosity < 0 {
            return;
        }
        if self.lively { self.bar.println(text) } else { eprintln!("{text}") }
    }
}

const BYTES: &str = "{prefix:>10} {bar:24} {bytes:>10}/{total_bytes:<10} {binary_bytes_per_sec:>12} {eta:>4} left  {wide_msg}";
const THINGS: &str = "{prefix:>10} {bar:24} {pos:>5}/{len:<5} {elapsed:>4}  {wide_msg}";
const UNKNOWN: &str = "{prefix:>10} {spinner} {elapsed}  {wide_msg}";

impl Progress for Screen {
    fn begin(&self, stage: Stage, what: &str, total: u64) {
        let template = match (total, stage.in_bytes()) {
            (0, _) => UNKNOWN,
            (_, true) => BYTES,
            (_, false) => THINGS,
        };
        // Constants, and tested: a template that does not parse falls back to indicatif's own.
        let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
        self.bar.reset();
        self.bar.set_length(total);
        self.bar.set_style(style.progress_chars("━╸─"));
        self.bar.set_prefix(stage.word());
        self.bar.set_message(what.to_owned());
        if self.lively {
            self.bar.enable_steady_tick(Duration::from_millis(200));
        }
        let mut current = self.current();
        let start = match current.as_ref() {
            // The store says how much there is to fetch once it knows: the same stage, not another one.
            Some(before) if before.stage == stage => before.start,
            _ => Instant::now(),
        };
        *current = Some(Current { stage, what: what.to_owned(), total, start });
    }

    fn reach(&self, done: u64) {
        self.bar.set_position(done);
    }

    fn detail(&self, text: &str) {
        self.bar.set_message(text.to_owned());
    }

    fn end(&self) {
        self.bar.disable_steady_tick();
        let Some(Current { stage, what, total, start }) = self.current().take() else { return };
        let seconds = start.elapsed().as_secs_f32();
        let amount = match (total, stage.in_bytes()) {
            (0, _) => String::new(),
            (total, true) => format!("  {}", Bytes(total)),
            (total, false) => format!("  {total} packages"),
        };
        if stage == Stage::Download && total == 0 {
            return;
        }
        self.line(&format!("{:>10}  {what}{amount}  {seconds:.1} s", stage.word()));
    }

    fn note(&self, text: &str) {
        if self.verbosity >= 1 {
            self.line(&format!("{:>10}  {text}", "note"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_template_parses() {
        for template in [BYTES, THINGS, UNKNOWN] {
            assert!(ProgressStyle::with_template(template).is_ok(), "{template}");
        }
    }
}
