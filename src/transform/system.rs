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
    // `nofail`: a damaged boot partition must not stop a running device in the emergency shell.
    let text = format!(
        "# Reason: partitions by the identity of this image; /boot/firmware is nobody's business but root's.\n\
         PARTUUID={root_partuuid} / ext4 defaults,noatime,errors=remount-ro 0 1\n\
         PARTUUID={boot_partuuid} /boot/firmware vfat defaults,noatime,nofail,umask=0077,nodev,nosuid,noexec,flush 0 2\n\
         tmpfs /dev/shm tmpfs nosuid,nodev,noexec 0 0\n"
    );
    TextFile::new("etc/fstab", text)
}

/// Host name, time zone, locale and keyboard. `/etc/localtime` is a link and returned apart.
pub fn names(system: &System) -> (Vec<TextFile>, String) {
    // Until the first boot draws the digits of `%m`, the name does without them.
    let name = system.hostname.of_device("");
    let name = match name.trim_matches('-') {
        "" => "hardtack",
        name => name,
    };
    let locale = system.locale.as_str();
    let keyboard = &*system.keyboard;
    let mut files = vec![
        TextFile::new("etc/hostname", format!("{name}\n")),
        TextFile::new(
            "etc/hosts",
            format!(
                "127.0.0.1\tlocalhost\n127.0.1.1\t{name}\n\n::1\tlocalhost ip6-localhost ip6-loopback\n\
                 ff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n"
            ),
        ),
        TextFile::new("etc/default/locale", format!("LANG={locale}\n")),
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
    let mut text = String::from(
        "# Reason: what each device makes of itself at its first boot, read by /usr/lib/hardtack/firstboot.\n",
    );
    text.push_str(&format!("HOSTNAME={}\n", system.hostname.pattern()));
    if *updates.reboot {
        text.push_str(&format!("REBOOT_WINDOW={}\n", *updates.window));
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
