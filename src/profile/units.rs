//! Which systemd units start, which do not, and which cannot.

use super::diagnostics::{Diagnostic, Report};
use super::section::Section;
use super::source::Sourced;

/// The three lists of `[units]`; no unit is in two of them.
#[derive(Clone, Debug, Default)]
pub struct Units {
    /// Started at boot, also after the first-boot preset.
    pub enable: Vec<Sourced<String>>,
    /// Not started at boot, whatever a package or an overlay says.
    pub disable: Vec<Sourced<String>>,
    /// Cannot be started: linked to `/dev/null`.
    pub mask: Vec<Sourced<String>>,
}

impl Units {
    /// Reads `[units]`.
    pub(super) fn read(section: &mut Section<'_>) -> Self {
        let read = |text: &str| check_unit(text).map(|()| text.to_owned());
        let units = Self {
            enable: section.list("enable", read),
            disable: section.list("disable", read),
            mask: section.list("mask", read),
        };
        units.check(section.report());
        units
    }

    fn lists(&self) -> [(&'static str, &Vec<Sourced<String>>); 3] {
        [("enable", &self.enable), ("disable", &self.disable), ("mask", &self.mask)]
    }

    fn check(&self, report: &Report) {
        let lists = self.lists();
        for (index, (first, units)) in lists.iter().enumerate() {
            for (second, others) in &lists[index + 1..] {
                for unit in *units {
                    if let Some(again) = others.iter().find(|other| *other == unit) {
                        let one = Diagnostic::new(format!("`{}` is in two lists of `[units]`", **unit));
                        let one = one.mark_origin(again.origin(), format!("in `{second}` here"));
                        let one = one.mark_origin(unit.origin(), format!("in `{first}` here"));
                        report.add(one.hint(format!(
                            "keep one; what a parent lists is taken away with `\"-{}\"`",
                            **unit
                        )));
                    }
                }
            }
        }
    }

    /// Adds what `under` says about units that nothing here speaks of. So a later overlay wins over an earlier one,
    /// and the profile over all of them.
    pub(super) fn over(&mut self, under: &Units) {
        let known: Vec<String> =
            self.lists().iter().flat_map(|(_, list)| list.iter()).map(|u| u.to_string()).collect();
        let add = |list: &mut Vec<Sourced<String>>, more: &[Sourced<String>]| {
            list.extend(more.iter().filter(|unit| !known.contains(unit)).cloned());
        };
        add(&mut self.enable, &under.enable);
        add(&mut self.disable, &under.disable);
        add(&mut self.mask, &under.mask);
    }
}

/// The suffixes of systemd.unit(5) that can be started or stopped by name.
const TYPES: [&str; 9] =
    ["service", "socket", "timer", "target", "path", "mount", "automount", "swap", "slice"];

/// A whole unit name, as systemd.unit(5) has it: at most 255 characters, and a type.
pub(super) fn check_unit(text: &str) -> Result<(), String> {
    let fine = |c: u8| c.is_ascii_alphanumeric() || b":-_.\\@".contains(&c);
    if text.is_empty() || text.len() > 255 || !text.bytes().all(fine) {
        return Err("must be the name of a systemd unit".into());
    }
    match text.rsplit_once('.') {
        Some((stem, kind)) if TYPES.contains(&kind) && !stem.is_empty() => Ok(()),
        _ => Err(format!("must be a unit's whole name\ndid you mean `{text}.service`?")),
    }
}
