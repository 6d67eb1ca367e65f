//! Profiles: what somebody wants an appliance to be.
//!
//! ```text
//! file ─► node (values with places) ─► compose (extends) ─► section (every key by name and type) ─► Profile
//! ```
//!
//! A [`Profile`] is complete and consistent: every default is filled in, what follows from a setting (packages for
//! Wi-Fi, the account and the port of `[ssh]`) has been drawn, every file it names has been read, and every value
//! knows the line it comes from. What was wrong on the way is in [`Diagnostics`], all of it at once.
//! `docs/profile.md` is the description for people; a test holds it against what is read here.

mod accounts;
mod base;
mod check;
mod compose;
mod derive;
mod diagnostics;
mod disk;
mod extras;
mod network;
mod node;
mod overlay;
mod ownership;
mod packages;
mod ports;
mod section;
pub mod shipped;
mod source;
mod ssh;
mod system;
#[cfg(test)]
mod tests;
mod units;

pub use accounts::{Account, Group};
pub use base::{AptSource, Base, Priority};
pub use compose::Layer;
pub use diagnostics::{Diagnostic, Diagnostics, did_you_mean};
pub use disk::{Boot, Disk, ImageSize, Table};
pub use extras::{ExtraFile, Script};
pub use network::{Address, Addressing, Interface, Psk, Wifi};
pub use overlay::{Overlay, OverlayEntry, OverlayKind};
pub use ownership::{Ownership, Principal};
pub use packages::{Choice, Package};
pub use ports::{Port, Protocol, Scope};
pub use source::{Home, Origin, Place, Source, Sourced};
pub use ssh::Ssh;
pub use system::{Hostname, Keyboard, System, Updates, Window};
pub use units::Units;

use compose::Composed;
use diagnostics::Report;
use section::Section;
use std::path::Path;
use std::sync::Arc;

/// A board that an image is made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Board {
    /// Raspberry Pi 3, all models, and the Compute Module 3.
    Pi3,
    /// Raspberry Pi 4, 400, and the Compute Module 4.
    Pi4,
    /// Raspberry Pi 5, 500, and the Compute Module 5. Needs a kernel from backports.
    Pi5,
    /// Raspberry Pi Zero 2 W.
    Zero2w,
}

impl Board {
    /// Every board and its word in profiles and on the command line.
    pub const WORDS: [(&'static str, Self); 4] =
        [("pi3", Self::Pi3), ("pi4", Self::Pi4), ("pi5", Self::Pi5), ("zero2w", Self::Zero2w)];

    /// The word in profiles.
    pub fn word(self) -> &'static str {
        match self {
            Self::Pi3 => "pi3",
            Self::Pi4 => "pi4",
            Self::Pi5 => "pi5",
            Self::Zero2w => "zero2w",
        }
    }
}

/// What an appliance is to be, complete and consistent.
#[derive(Clone, Debug)]
pub struct Profile {
    /// Its name, which is also the image's.
    pub name: String,
    /// One line about it; may be empty.
    pub description: String,
    /// The chain of `extends`, from the outermost parent to this profile.
    pub layers: Vec<Layer>,
    /// The Debian archive.
    pub base: Base,
    /// Other apt sources.
    pub sources: Vec<AptSource>,
    /// What it runs on, at least one.
    pub boards: Vec<Sourced<Board>>,
    /// What is installed, in the order of the chain; names are unique.
    pub packages: Vec<Sourced<Package>>,
    /// Overlays in the order in which they are merged.
    pub overlays: Vec<Sourced<Overlay>>,
    /// Units, those of the overlays included.
    pub units: Units,
    /// Everything that is open. No two overlap.
    pub ports: Vec<Port>,
    /// Groups to make.
    pub groups: Vec<Group>,
    /// Accounts to make.
    pub accounts: Vec<Account>,
    /// Host name, time zone, locale, keyboard.
    pub system: System,
    /// Network interfaces; any other takes DHCP by cable.
    pub network: Vec<Interface>,
    /// When the device may restart for an update.
    pub updates: Updates,
    /// The image's shape.
    pub disk: Disk,
    /// Kernel and firmware settings.
    pub boot: Boot,
    /// Who may log in over the network, if anybody.
    pub ssh: Option<Sourced<Ssh>>,
    /// Scripts, in the order in which they run.
    pub scripts: Vec<Script>,
    /// Files besides the overlays'.
    pub files: Vec<ExtraFile>,
    replaced: Vec<Sourced<String>>,
}

/// The packages that one profile of the chain asks for, to be configured in one go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PackageLayer {
    /// The profile.
    pub profile: String,
    /// What it asks for, as apt takes it (`name`, `name/suite`, `name=version`), sorted.
    pub wants: Vec<String>,
    /// Why the profile does not stand on its parent's layer: it takes something of the parent's away.
    pub apart: Option<String>,
}

impl Profile {
    /// Reads a profile: the name of a shipped one, or a path (it has a `/` or ends in `.toml`).
    pub fn load(reference: &str) -> Result<Self, Diagnostics> {
        Self::load_for(reference, &[])
    }

    /// Like [`Profile::load`], for these boards instead of the profile's own; none means its own.
    pub fn load_for(reference: &str, boards: &[Board]) -> Result<Self, Diagnostics> {
        let report = Report::default();
        let profile = match compose::compose(reference, &report) {
            Ok(composed) => Self::read(composed, boards, &report),
            Err(found) => {
                report.add_all(found, &Origin::Default);
                None
            }
        };
        report.judge(profile)
    }

    fn read(composed: Composed, only: &[Board], report: &Report) -> Option<Self> {
        let Composed { layers, fields, removals, place } = composed;
        // Without a whole document most of what follows would be about things that are missing only because of that.
        if !report.is_clean() && fields.is_empty() {
            return None;
        }
        let own = layers.last()?;
        let (name, description) = (own.name.to_string(), own.description.clone());
        let mut document = Section::document(fields, place, report);
        let mut boards = document.list("boards", |text| section::choose(text, &Board::WORDS));
        if !only.is_empty() {
            boards = only.iter().map(|board| Sourced::default_value(*board)).collect();
        }
        let emptied = document.was_written("boards") && report.is_clean();
        if boards.is_empty() && (emptied || !document.was_written("boards")) {
            document.missing("boards", "say what it runs on: `boards = [\"pi4\"]`, or extend `minimal`");
        }
        let packages = packages::read(&mut document);
        let overlays = read_overlays(&mut document, report);
        let mut profile = Self {
            base: Base::read(&mut document.table("base").1),
            sources: base::read_sources(&mut document),
            units: Units::read(&mut document.table("units").1),
            ports: ports::read(&mut document),
            groups: accounts::read_groups(&mut document),
            accounts: accounts::read(&mut document),
            system: System::read(&mut document.table("system").1, &name),
            network: network::read(&mut document),
            updates: Updates::read(&mut document.table("updates").1),
            disk: Disk::read(&mut document.table("disk").1),
            boot: Boot::read(&mut document.table("boot").1),
            ssh: Ssh::read(&mut document),
            scripts: extras::read_scripts(&mut document),
            files: extras::read_files(&mut document),
            replaced: removals
                .into_iter()
                .filter(|removal| removal.path == "packages")
                .map(|removal| Sourced::new(removal.word, removal.place))
                .collect(),
            name,
            description,
            layers,
            boards,
            packages,
            overlays,
        };
        drop(document);
        derive::derive(&mut profile);
        check::check(&profile, report);
        Some(profile)
    }

    /// Which profile of the chain says so: an index into [`Profile::layers`]. What is nobody's, and what an overlay
    /// says, belongs to the profile itself.
    pub fn layer_of(&self, origin: &Origin) -> usize {
        let mine =
            |layer: &Layer| origin.place().is_some_and(|place| Arc::ptr_eq(place.source(), &layer.source));
        self.layers.iter().position(mine).unwrap_or(self.layers.len().saturating_sub(1))
    }

    /// The packages layer by layer, as they are solved and configured.
    ///
    /// A profile that takes a package of its parents away, or another version of it, cannot stand on what they
    /// configured: then everything up to it is one layer.
    pub fn package_layers(&self) -> Vec<PackageLayer> {
        let mut layers: Vec<PackageLayer> = self
            .layers
            .iter()
            .map(|layer| PackageLayer { profile: layer.name.to_string(), wants: Vec::new(), apart: None })
            .collect();
        for package in &self.packages {
            layers[self.layer_of(package.origin())].wants.push(package.to_string());
        }
        let apart = self.replaced.iter().map(|gone| self.layer_of(gone.origin())).max();
        if let Some(at) = apart
            && at > 0
        {
            let under: Vec<PackageLayer> = layers.drain(..at).collect();
            let words: Vec<&str> = self
                .replaced
                .iter()
                .filter(|one| self.layer_of(one.origin()) > 0)
                .map(|one| one.as_str())
                .collect();
            layers[0].wants.extend(under.into_iter().flat_map(|layer| layer.wants));
            layers[0].apart =
                Some(format!("takes `{}` of its parents away or replaces it", words.join("`, `")));
        }
        for layer in &mut layers {
            layer.wants.sort();
        }
        layers
    }

    /// Whether an image of it holds something that is nobody else's business, such as the key of a wireless network:
    /// then it must not be published.
    pub fn is_personal(&self) -> bool {
        self.network.iter().any(|interface| interface.wifi.as_ref().is_some_and(|wifi| wifi.psk.is_some()))
    }
}

/// Reads `overlays` and every overlay in it.
fn read_overlays(document: &mut Section<'_>, report: &Report) -> Vec<Sourced<Overlay>> {
    let named = document.list("overlays", |text| {
        let path = text.starts_with("./") || text.starts_with("../");
        match path || !text.contains('/') {
            true => Ok(text.to_owned()),
            false => Err(format!("must be a shipped overlay's name, or a path that starts with `./` or `../`\ndid you mean `./{text}`?")),
        }
    });
    named
        .into_iter()
        .filter_map(|name| {
            let read = if name.contains('/') {
                match base::beside(&name) {
                    Ok(path) => Overlay::from_directory(Path::new(&path)),
                    Err(problem) => Err(Diagnostic::new(problem).mark_origin(name.origin(), "").into()),
                }
            } else if shipped::overlay(&name).is_some() {
                Overlay::shipped(&name)
            } else {
                let names: Vec<&str> = shipped::OVERLAYS.iter().map(|overlay| overlay.name).collect();
                let hint = did_you_mean(&name, names.iter().copied());
                let hint = hint.unwrap_or_else(|| {
                    format!(
                        "shipped are {}; one of your own is named by its path: `./{}`",
                        names.join(", "),
                        *name
                    )
                });
                let one = Diagnostic::new(format!("no overlay is called `{}`", name.escape_debug()));
                Err(one.mark_origin(name.origin(), "").hint(hint).into())
            };
            match read {
                Ok(overlay) => Some(name.with(overlay)),
                Err(found) => {
                    report.add_all(found, name.origin());
                    None
                }
            }
        })
        .collect()
}
