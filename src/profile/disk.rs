//! The image's shape, and the boot settings that the firmware and the kernel read.

use super::diagnostics::Diagnostic;
use super::section::{Section, choose};
use super::source::Sourced;
use crate::units::Bytes;

/// `[disk]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disk {
    /// Which partition table.
    pub table: Sourced<Table>,
    /// How large the image is.
    pub size: Sourced<ImageSize>,
    /// How large the boot partition is.
    pub boot: Sourced<Bytes>,
    /// Where partitions may begin: multiples of this.
    pub align: Sourced<Bytes>,
    /// Label of the root filesystem, at most 16 bytes.
    pub label: Sourced<String>,
}

/// A partition table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Table {
    /// MBR, which every Pi boots from.
    Mbr,
    /// GPT, with a protective MBR.
    Gpt,
}

impl Table {
    /// The word in profiles.
    pub fn word(self) -> &'static str {
        match self {
            Self::Mbr => "mbr",
            Self::Gpt => "gpt",
        }
    }
}

/// How large an image is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ImageSize {
    /// What it holds, and this much free space.
    Auto {
        /// Free space in the root filesystem.
        margin: Bytes,
    },
    /// This large, whatever it holds.
    Fixed(Bytes),
}

/// The margin without `disk.margin`: room for the first boot before the root filesystem grows.
const MARGIN: Bytes = Bytes::mib(128);

impl Disk {
    pub(super) fn read(section: &mut Section<'_>) -> Self {
        let report = section.report();
        let table = section.choice("table", &[("mbr", Table::Mbr), ("gpt", Table::Gpt)]);
        // Two kernels, their initramfs and device trees take about 180 MB; FAT32 begins at 33 MB.
        let boot = section.parsed("boot", |text| read_size(text, Bytes::mib(64), Bytes::gib(4)));
        let boot = boot.unwrap_or(Sourced::default_value(Bytes::mib(512)));
        let align =
            section.parsed("align", |text| choose(text, &[("4M", Bytes::mib(4)), ("8M", Bytes::mib(8))]));
        let label = section.parsed("label", read_label);
        let size = section.parsed("size", |text| match text {
            "auto" => Ok(None),
            text => read_size(text, Bytes::mib(256), Bytes(16 << 40)).map(Some),
        });
        let margin = section.parsed("margin", |text| read_size(text, Bytes::mib(16), Bytes(1 << 40)));
        let size = match (size, margin) {
            (Some(size), margin) => match (*size, margin) {
                (None, margin) => size.with(ImageSize::Auto { margin: margin.map_or(MARGIN, |m| *m) }),
                (Some(bytes), None) => size.with(ImageSize::Fixed(bytes)),
                (Some(bytes), Some(margin)) => {
                    let one = Diagnostic::new("an image of a fixed size has no margin");
                    let one = one.mark_origin(margin.origin(), "").mark_origin(size.origin(), "fixed here");
                    report.add(one.hint("take `margin` out, or write `size = \"auto\"`"));
                    size.with(ImageSize::Fixed(bytes))
                }
            },
            (None, Some(margin)) => margin.with(ImageSize::Auto { margin: *margin }),
            (None, None) => Sourced::default_value(ImageSize::Auto { margin: MARGIN }),
        };
        if let ImageSize::Fixed(bytes) = *size
            && bytes.0 < boot.0.saturating_add(Bytes::mib(256).0)
        {
            let one =
                Diagnostic::new(format!("an image of {bytes} cannot hold a boot partition of {}", *boot));
            let one = one.mark_origin(size.origin(), "the whole image");
            let one = one.mark_origin(boot.origin(), "the boot partition alone");
            report.add(one.hint("the root filesystem needs at least 256 MiB beside it"));
        }
        Self {
            table: table.unwrap_or(Sourced::default_value(Table::Mbr)),
            size,
            boot,
            align: align.unwrap_or(Sourced::default_value(Bytes::mib(4))),
            label: label.unwrap_or(Sourced::default_value("rootfs".into())),
        }
    }
}

fn read_size(text: &str, least: Bytes, most: Bytes) -> Result<Bytes, String> {
    match Bytes::parse(text) {
        None => Err("must be a size, such as `512M` or `4G`".into()),
        Some(size) if size < least || size > most => Err(format!("must be from {least} to {most}")),
        Some(size) => Ok(size),
    }
}

fn read_label(text: &str) -> Result<String, String> {
    let fine = |c: u8| c.is_ascii_alphanumeric() || b"-_.".contains(&c);
    match !text.is_empty() && text.len() <= 16 && text.bytes().all(fine) {
        true => Ok(text.to_owned()),
        false => Err("must be 1 to 16 letters, digits, `-`, `_` and `.`".into()),
    }
}

/// `[boot]`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Boot {
    /// Words to add to the kernel's command line.
    pub cmdline: Vec<Sourced<String>>,
    /// Words to take from what Debian's `raspi-firmware` would write there.
    pub cmdline_remove: Vec<Sourced<String>>,
    /// Lines for `config.txt`, by section, in the order of the profile: the section's name without brackets.
    pub config: Vec<(String, Vec<Sourced<String>>)>,
}

/// The filters of config.txt that name a board, and those that name no board.
const SECTIONS: [&str; 8] = ["all", "none", "pi3", "pi3+", "pi4", "pi5", "pi02", "cm4"];

impl Boot {
    pub(super) fn read(section: &mut Section<'_>) -> Self {
        let cmdline = section.list("cmdline", read_word);
        let cmdline_remove = section.list("cmdline_remove", read_word);
        for word in &cmdline {
            if let Some(gone) = cmdline_remove.iter().find(|gone| *gone == word) {
                let one = Diagnostic::new(format!("`{}` is both added and removed", **word));
                let one =
                    one.mark_origin(gone.origin(), "removed here").mark_origin(word.origin(), "added here");
                section.report().add(one);
            }
        }
        let (_, mut config) = section.table("config");
        let config = SECTIONS.iter().map(|name| ((*name).to_owned(), config.list(name, read_config)));
        let config = config.filter(|(_, lines)| !lines.is_empty()).collect();
        Self { cmdline, cmdline_remove, config }
    }
}

/// One word of a command line. `root=` and `rootwait` are hardtack's, and what would open the device is refused.
fn read_word(text: &str) -> Result<String, String> {
    if text.is_empty()
        || text.len() > 200
        || !text.bytes().all(|c| c.is_ascii_graphic())
        || text.contains('"')
    {
        return Err("must be one word without spaces or quotes".into());
    }
    let key = text.split('=').next().unwrap_or_default();
    match key {
        "root" | "rootfstype" | "rootwait" => {
            Err("hardtack writes this one itself, for the filesystem it makes".into())
        }
        "init" | "rdinit" | "single" | "systemd.debug-shell" | "systemd.debug_shell" | "rd.break" => {
            Err("this opens a shell to whoever holds the device".into())
        }
        _ if text == "apparmor=0"
            || text == "selinux=0"
            || text == "mitigations=off"
            || text == "nokaslr" =>
        {
            Err("this takes a protection away that every hardtack image has".into())
        }
        _ => Ok(text.to_owned()),
    }
}

/// One line of config.txt, which reads at most 98 characters of it.
fn read_config(text: &str) -> Result<String, String> {
    if text.starts_with('[') {
        return Err(
            "sections are tables here: put the line under its section's name in `[boot.config]`".into()
        );
    }
    if text.starts_with("include") {
        return Err("one file says it all: write the lines themselves".into());
    }
    match text.is_empty() || text.len() > 98 || text.chars().any(|c| c.is_control() || !c.is_ascii()) {
        true => Err("must be one line of at most 98 ASCII characters".into()),
        false => Ok(text.to_owned()),
    }
}
