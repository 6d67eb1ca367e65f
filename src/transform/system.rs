//! What a device calls itself and mounts: `/etc/fstab`, host name, time zone, locale, keyboard, and the settings that
//! the first boot reads.

use crate::profile::{System, Updates};

/// A file to be written: path without a leading slash, permissions, text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TextFile {
    /// Where.
    pub path: String,
    /// Permissions; owned by root.
    pub mode: u16,
    /// What it says.
    pub text: String,
}

impl TextFile {
    /// A file that everybody may read.
    pub fn new(path: impl Into<String>, text: impl Into<String>) -> Self {
        Self { path: path.into(), mode: 0o644, text: text.into() }
    }
}

/// `/etc/fstab` (fstab(5)), with both partitions by the ids of this image's table. The boot partition is closed to
/// everybody but root: who can write it decides what boots.
pub fn fstab(boot_partuuid: &str, root_partuuid: &str) -> TextFile {
    let text = format!(
        "# Reason: found by the partition table's id, whatever the disk is called.\n\
         PARTUUID={root_partuuid} / ext4 defaults,noatime 0 1\n\
         PARTUUID={boot_partuuid} /boot/firmware vfat defaults,nodev,nosuid,noexec,umask=0077 0 2\n"
    );
    TextFile::new("etc/fstab", text)
}

/// Host name, time zone, locale and keyboard. `/etc/localtime` is a link and returned apart.
pub fn names(system: &System) -> (Vec<TextFile>, String) {
    let name = system.hostname.fixed().unwrap_or("hardtack").to_owned();
    let locale = system.locale.as_str();
    let keyboard = &*system.keyboard;
    let mut files = vec![
        TextFile::new("etc/hostname", format!("{name}\n")),
        TextFile::new(
            "etc/hosts",
            format!("127.0.0.1\tlocalhost\n127.0.1.1\t{name}\n::1\tlocalhost ip6-localhost ip6-loopback\n"),
        ),
        TextFile::new("etc/timezone", format!("{}\n", system.timezone.as_str())),
        TextFile::new("etc/locale.conf", format!("LANG={locale}\n")),
        TextFile::new(
            "etc/default/keyboard",
            format!(
                "# Reason: the profile's keyboard (keyboard(5)).\nXKBMODEL=\"pc105\"\nXKBLAYOUT=\"{}\"\n\
                 XKBVARIANT=\"{}\"\nXKBOPTIONS=\"\"\nBACKSPACE=\"guess\"\n",
                keyboard.layout, keyboard.variant
            ),
        ),
    ];
    if locale != "C.UTF-8" {
        files.push(TextFile::new("etc/locale.gen", format!("{locale} UTF-8\n")));
    }
    (files, format!("/usr/share/zoneinfo/{}", system.timezone.as_str()))
}

/// `/etc/hardtack/device.conf`: what the first boot chooses from. Lines `KEY=value`, nothing to run.
pub fn device_settings(system: &System, updates: &Updates) -> TextFile {
    let mut text = String::from("# Reason: what the first boot draws on each device, and from what.\n");
    text.push_str(&format!("HOSTNAME_PATTERN={}\n", system.hostname.pattern()));
    if *updates.reboot {
        let window = &*updates.window;
        let time = |minute: u16| format!("{:02}:{:02}", minute / 60, minute % 60);
        // The window's last minute is the one before its end.
        let last = (window.to + 1439) % 1440;
        text.push_str(&format!("REBOOT_FROM={}\nREBOOT_UNTIL={}\n", time(window.from), time(last)));
    }
    TextFile::new("etc/hardtack/device.conf", text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_root_line_is_what_the_boot_hooks_read() {
        let text = fstab("0a0b0c0d-01", "0a0b0c0d-02").text;
        let root = text.lines().find(|line| line.split_whitespace().nth(1) == Some("/")).unwrap();
        assert!(root.starts_with("PARTUUID=0a0b0c0d-02 "));
    }
}
