//! All printing. Data goes to stdout, talk to stderr, and neither is written anywhere else.

#![expect(clippy::print_stderr, reason = "this is the one place that prints")]

use super::failure::{Blame, Failure, Message};
use super::{Global, When};
use std::error::Error;
use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write as _};
use std::process::ExitCode;

/// Where a command's answers and remarks go.
pub struct Render {
    out: io::BufWriter<io::Stdout>,
    style_out: bool,
    style_talk: bool,
    verbosity: i8,
}

/// What a piece of text is, for its colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// A heading.
    Heading,
    /// What matters less than its neighbours.
    Dim,
    /// A name.
    Name,
    /// An error's first word.
    Error,
    /// A hint's first word.
    Hint,
}

impl Style {
    fn code(self) -> &'static str {
        match self {
            Self::Heading => "1",
            Self::Dim => "2",
            Self::Name => "36",
            Self::Error => "1;91",
            Self::Hint => "1;96",
        }
    }
}

impl Render {
    pub(super) fn new(global: &Global, no_color: bool) -> Self {
        let style = |terminal: bool| match global.color {
            When::Always => true,
            When::Never => false,
            When::Auto => terminal && !no_color,
        };
        let verbosity = if global.quiet { -1 } else { i8::try_from(global.verbose).unwrap_or(i8::MAX) };
        Self {
            out: io::BufWriter::new(io::stdout()),
            style_out: style(io::stdout().is_terminal()),
            style_talk: style(io::stderr().is_terminal()),
            verbosity,
        }
    }

    /// Writes a line of the answer.
    pub fn line(&mut self, text: impl AsRef<str>) -> Result<(), Failure> {
        writeln!(self.out, "{}", text.as_ref()).map_err(Failure::output)
    }

    /// Writes a part of the answer as it is, which may be any bytes.
    pub fn bytes(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.out.write_all(bytes).map_err(Failure::output)
    }

    /// Writes the answer as JSON.
    pub fn json(&mut self, value: &impl serde::Serialize) -> Result<(), Failure> {
        let text = serde_json::to_string_pretty(value).map_err(Failure::ours)?;
        self.line(text)
    }

    /// Writes rows with their columns aligned. A cell's last word on style is its column's.
    pub fn table(
        &mut self,
        indent: usize,
        styles: &[Option<Style>],
        rows: &[Vec<String>],
    ) -> Result<(), Failure> {
        let width = |text: &str| text.chars().count();
        let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
        let widths: Vec<usize> = (0..columns)
            .map(|at| rows.iter().filter_map(|row| row.get(at)).map(|cell| width(cell)).max().unwrap_or(0))
            // One long sentence must not push every other row's end off the screen.
            .map(|width| width.min(76))
            .collect();
        for row in rows {
            let mut line = " ".repeat(indent);
            let mut owed = 0;
            for (at, cell) in row.iter().enumerate() {
                // Nothing is padded at the end of a line, and an empty cell has no colour.
                if !cell.is_empty() {
                    line.push_str(&" ".repeat(owed));
                    owed = 0;
                    let style = styles.get(at).copied().flatten();
                    line.push_str(&paint(style.filter(|_| self.style_out), cell));
                }
                owed += widths[at].saturating_sub(width(cell)) + 2;
            }
            self.line(line)?;
        }
        Ok(())
    }

    /// Writes a heading of the answer.
    pub fn heading(&mut self, text: &str) -> Result<(), Failure> {
        let text = paint(Some(Style::Heading).filter(|_| self.style_out), text);
        self.line(text)
    }

    /// Says something on stderr, unless quiet was asked for.
    pub fn say(&self, text: impl AsRef<str>) {
        if self.verbosity >= 0 {
            eprintln!("{}", text.as_ref());
        }
    }

    /// Says something on stderr when asked to say more: `level` 1 for `-v`, 2 for `-vv`.
    pub fn detail(&self, level: i8, text: impl AsRef<str>) {
        if self.verbosity >= level {
            eprintln!("{}", text.as_ref());
        }
    }

    /// How much to say: below zero nothing, one and two for `-v` and `-vv`.
    pub fn verbosity(&self) -> i8 {
        self.verbosity
    }

    /// Whether stderr is a terminal that shows colours and progress, and talk is wanted.
    pub fn is_lively(&self) -> bool {
        self.verbosity >= 0 && io::stderr().is_terminal()
    }

    pub(super) fn finish(&mut self) -> Result<(), Failure> {
        self.out.flush().map_err(Failure::output)
    }

    /// Shows a failure, once, and gives the exit code.
    pub(super) fn failure(&mut self, failure: &Failure) -> ExitCode {
        // What was answered before the failure belongs before it; if that cannot be written either, the failure
        // that is being shown says enough.
        let _ = self.out.flush();
        let style = |style: Style| Some(style).filter(|_| self.style_talk);
        let mut text = String::new();
        match &failure.message {
            Message::ReaderGone => return ExitCode::SUCCESS,
            Message::Finding => {}
            Message::Diagnostics(found) => text = found.render(self.style_talk),
            Message::Error(error) => {
                let _ = write!(text, "{} {}", paint(style(Style::Error), "error:"), chain(error.as_ref()));
            }
        }
        if let Some(hint) = &failure.hint {
            let _ = write!(text, "\n\n{} {hint}", paint(style(Style::Hint), "hint:"));
        }
        if !text.is_empty() {
            eprintln!("{text}");
        }
        match failure.blame {
            Blame::Input => ExitCode::from(1),
            Blame::Ours => ExitCode::from(2),
        }
    }

    /// Shows what is wrong with the command line, or the help that it asked for. clap writes in colour where that is
    /// wanted, and to stdout what was asked for.
    pub(super) fn usage(error: &clap::Error) -> ExitCode {
        let printed = error.print();
        match error.exit_code() {
            0 if printed.is_ok() || printed.is_err_and(|e| e.kind() == io::ErrorKind::BrokenPipe) => {
                ExitCode::SUCCESS
            }
            0 => ExitCode::from(2),
            // clap says 2; here that would mean that hardtack failed.
            _ => ExitCode::from(1),
        }
    }
}

/// An error and its causes, on one line. A cause that an error repeats in its own words is left out.
fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let words = cause.to_string();
        if !text.ends_with(&words) {
            text.push_str(": ");
            text.push_str(&words);
        }
        next = cause.source();
    }
    text
}

fn paint(style: Option<Style>, text: &str) -> String {
    match style {
        Some(style) => format!("\x1b[{}m{text}\x1b[0m", style.code()),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{0}")]
    struct Link(&'static str, #[source] Option<Box<Link>>);

    #[test]
    fn a_chain_says_everything_once() {
        let cause = Link("no space left", None);
        let middle = Link("cannot write a.img", Some(Box::new(cause)));
        assert_eq!(
            chain(&Link("building minimal", Some(Box::new(middle)))),
            "building minimal: cannot write a.img: no space left"
        );
        let repeated = Link("cannot open: gone", Some(Box::new(Link("gone", None))));
        assert_eq!(chain(&repeated), "cannot open: gone");
    }
}
