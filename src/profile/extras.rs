//! What a profile adds by itself: single files, and scripts that run in the sandbox.

use super::base::{beside, check_file_name, text_beside};
use super::compose::reason;
use super::diagnostics::Diagnostic;
use super::ownership::{Ownership, read_image_path};
use super::section::Section;
use super::source::Sourced;
use crate::content::Content;
use crate::tree::TreePath;
use std::fmt;

/// `[files."/path"]`: one file, put into the image after every overlay.
#[derive(Clone)]
pub struct ExtraFile {
    /// Where.
    pub path: Sourced<TreePath>,
    /// What it holds.
    pub content: Content,
    /// Permissions and owner.
    pub ownership: Ownership,
}

impl fmt::Debug for ExtraFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} ({} bytes, {})", self.path, self.content.len(), self.ownership)
    }
}

/// `[scripts.NAME]`: run in the sandbox after the packages of its profile are configured, without network, in the
/// order in which the profiles, parents first, name them.
#[derive(Clone, Debug)]
pub struct Script {
    /// Its name, for messages and logs.
    pub name: Sourced<String>,
    /// The whole text; the first line says who runs it.
    pub text: String,
}

/// Reads `[files]`.
pub(super) fn read_files(document: &mut Section<'_>) -> Vec<ExtraFile> {
    document
        .named("files")
        .into_iter()
        .filter_map(|(name, mut section)| read_file(&name, &mut section))
        .collect()
}

fn read_file(name: &Sourced<String>, section: &mut Section<'_>) -> Option<ExtraFile> {
    let report = section.report();
    let path = match read_image_path(name) {
        Ok(path) => Some(name.with(path)),
        Err(problem) => {
            let title = format!("bad path `{}`", name.escape_debug());
            report.add(Diagnostic::of_value(title, name.origin(), &problem));
            None
        }
    };
    let written = section.text("content");
    let source = section.line("source");
    let mut ownership = Ownership::read(section, Ownership::root(0o644));
    let found = match one_of(section, written, source)? {
        Written::Here(text) => (Content::inline(text.into_value()), false),
        Written::Beside(source) => {
            let opened = beside(&source).and_then(|path| {
                super::overlay::open(&path).map_err(|error| format!("cannot read it: {}", reason(&error)))
            });
            match opened {
                Ok(found) => found,
                Err(problem) => {
                    report.add(cannot(&source, &problem));
                    return None;
                }
            }
        }
    };
    let (content, executable) = found;
    if executable && !section.was_written("mode") {
        ownership.mode = 0o755;
    }
    Some(ExtraFile { path: path?, content, ownership })
}

/// Reads `[scripts]`.
pub(super) fn read_scripts(document: &mut Section<'_>) -> Vec<Script> {
    document
        .named("scripts")
        .into_iter()
        .filter_map(|(name, mut section)| read_script(name, &mut section))
        .collect()
}

fn read_script(name: Sourced<String>, section: &mut Section<'_>) -> Option<Script> {
    let report = section.report();
    if let Err(problem) = check_file_name(&name) {
        report.add(Diagnostic::new("bad name of a script").mark_origin(name.origin(), problem));
    }
    let written = section.text("content");
    let source = section.line("source");
    let text = match one_of(section, written, source)? {
        Written::Here(text) => text,
        Written::Beside(source) => match text_beside(&source) {
            Ok(text) => source.with(text),
            Err(problem) => {
                report.add(cannot(&source, &problem));
                return None;
            }
        },
    };
    if !text.starts_with("#!/") {
        let one = Diagnostic::new(format!("script `{}` does not say who runs it", *name));
        let one = one.mark_origin(text.origin(), "must begin with `#!` and an absolute path");
        report.add(one.hint("the first line of a shell script is `#!/bin/sh -e`"));
        return None;
    }
    Some(Script { name, text: text.into_value() })
}

enum Written {
    Here(Sourced<String>),
    Beside(Sourced<String>),
}

/// Exactly one of `content` and `source`.
fn one_of(
    section: &Section<'_>,
    content: Option<Sourced<String>>,
    source: Option<Sourced<String>>,
) -> Option<Written> {
    match (content, source) {
        (Some(content), None) => Some(Written::Here(content)),
        (None, Some(source)) => Some(Written::Beside(source)),
        (Some(content), Some(source)) => {
            let one = Diagnostic::new("both `content` and `source`: only one can be what the file holds");
            section.report().add(one.mark_origin(source.origin(), "").mark_origin(content.origin(), ""));
            None
        }
        (None, None) => {
            if !section.was_written("content") && !section.was_written("source") {
                section.missing(
                    "content",
                    "write the text with `content`, or name a file beside the profile with `source`",
                );
            }
            None
        }
    }
}

fn cannot(source: &Sourced<String>, problem: &str) -> Diagnostic {
    let one = Diagnostic::new(format!("cannot use `{}`", source.escape_debug()))
        .mark_origin(source.origin(), problem);
    one.hint("the path is relative to the file that names it")
}
