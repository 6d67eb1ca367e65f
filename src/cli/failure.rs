//! Why a command did not do what was asked, and whose turn it is.

use crate::profile::Diagnostics;
use std::error::Error;
use std::io;

/// A command's failure: a message, whose fault it is, and perhaps what to do next.
#[derive(Debug)]
pub struct Failure {
    pub(super) blame: Blame,
    pub(super) message: Message,
    pub(super) hint: Option<String>,
}

/// Whose turn it is: the exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blame {
    /// Exit code 1: something typed or written has to change, or something was found.
    Input,
    /// Exit code 2: the machine or hardtack failed.
    Ours,
}

#[derive(Debug)]
pub(super) enum Message {
    /// An error and its causes.
    Error(Box<dyn Error + Send + Sync>),
    /// Findings in a profile, with their lines.
    Diagnostics(Diagnostics),
    /// Everything has been said already: a check that found something.
    Finding,
    /// Whoever read our answer went away.
    ReaderGone,
}

impl Failure {
    /// The user's input has to change.
    pub fn input(error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self { blame: Blame::Input, message: Message::Error(error.into()), hint: None }
    }

    /// The machine or hardtack failed.
    pub fn ours(error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self { blame: Blame::Ours, message: Message::Error(error.into()), hint: None }
    }

    /// A check found something, and its report has been printed.
    pub fn finding() -> Self {
        Self { blame: Blame::Input, message: Message::Finding, hint: None }
    }

    /// What to do next, in one sentence.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// What became of writing an answer: a reader that went away has what it wanted.
    pub(super) fn output(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            return Self { blame: Blame::Ours, message: Message::ReaderGone, hint: None };
        }
        Self::ours(format!("cannot write the answer: {error}"))
    }
}

impl From<Diagnostics> for Failure {
    fn from(found: Diagnostics) -> Self {
        Self { blame: Blame::Input, message: Message::Diagnostics(found), hint: None }
    }
}
