//! Network connections as NetworkManager keyfiles (nm-settings-keyfile(5)). The hardened overlay switches off the
//! connections NetworkManager would invent, so what is written here is all there is.

use crate::plan::Identity;
use crate::profile::{Addressing, Interface};
use std::fmt::Write as _;
use std::net::IpAddr;

/// One keyfile: its name below `/etc/NetworkManager/system-connections` and its text. NetworkManager reads it only when
/// root alone may (mode 0600).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keyfile {
    /// `wired.nmconnection`.
    pub name: String,
    /// What it says.
    pub text: String,
}

/// The keyfiles for what a profile says about its network. Every interface that it does not name takes DHCP by cable.
pub fn keyfiles(interfaces: &[Interface], identity: &Identity) -> Vec<Keyfile> {
    let mut files: Vec<Keyfile> = interfaces.iter().map(|interface| keyfile(interface, identity)).collect();
    let text = head("wired", "ethernet", identity, "autoconnect-priority=-100\nmulti-connect=3\n")
        + "\n[ethernet]\n\n[ipv4]\nmethod=auto\n\n[ipv6]\n"
        + PRIVATE
        + "method=auto\n";
    files.push(Keyfile { name: "wired.nmconnection".into(), text });
    files
}

/// A keyfile without these means addresses that show the hardware's, whatever NetworkManager.conf says.
const PRIVATE: &str = "addr-gen-mode=stable-privacy\nip6-privacy=2\n";

fn keyfile(interface: &Interface, identity: &Identity) -> Keyfile {
    let name = interface.name.as_str();
    let kind = if interface.wifi.is_some() { "wifi" } else { "ethernet" };
    let waits = interface.wifi.as_ref().is_some_and(|wifi| wifi.psk.is_none());
    let more = if waits { "autoconnect=false\n" } else { "" };
    let mut text = head(name, kind, identity, &format!("interface-name={name}\n{more}"));
    if let Some(wifi) = &interface.wifi {
        put(&mut text, format_args!("\n[wifi]\nmode=infrastructure\nssid={}\n", escape(&wifi.ssid)));
        if let Some(psk) = &wifi.psk {
            put(&mut text, format_args!("\n[wifi-security]\nkey-mgmt=wpa-psk\npsk={}\n", psk.reveal()));
        }
    }
    for (section, version) in [("ipv4", 4), ("ipv6", 6)] {
        let of_version = |address: &IpAddr| if address.is_ipv4() { version == 4 } else { version == 6 };
        put(&mut text, format_args!("\n[{section}]\n"));
        if version == 6 {
            text.push_str(PRIVATE);
        }
        match &interface.addressing {
            Addressing::Dhcp => text.push_str("method=auto\n"),
            Addressing::Static { addresses, gateway } => {
                let own: Vec<_> = addresses.iter().filter(|address| of_version(&address.address)).collect();
                if own.is_empty() {
                    // What the profile fixes is one version; the router still hands out IPv6, and IPv4 is then off.
                    text.push_str(if version == 4 { "method=disabled\n" } else { "method=auto\n" });
                    continue;
                }
                text.push_str("method=manual\n");
                for (index, address) in own.iter().enumerate() {
                    put(&mut text, format_args!("address{}={}\n", index + 1, ***address));
                }
                if let Some(gateway) = gateway.as_ref().filter(|gateway| of_version(gateway)) {
                    put(&mut text, format_args!("gateway={}\n", **gateway));
                }
            }
        }
        let servers: Vec<String> =
            interface.dns.iter().filter(|dns| of_version(dns)).map(|dns| dns.to_string()).collect();
        if !servers.is_empty() {
            put(&mut text, format_args!("dns={};\n", servers.join(";")));
            if matches!(interface.addressing, Addressing::Dhcp) {
                text.push_str("ignore-auto-dns=true\n");
            }
        }
    }
    Keyfile { name: format!("{name}.nmconnection"), text }
}

fn head(name: &str, kind: &str, identity: &Identity, more: &str) -> String {
    let uuid = uuid_text(&identity.uuid(&format!("connection {name}")));
    format!(
        "# Reason: only what is written down connects.\n[connection]\nid={name}\nuuid={uuid}\ntype={kind}\n{more}"
    )
}

/// A UUID as RFC 9562 writes it.
pub fn uuid_text(uuid: &[u8; 16]) -> String {
    let mut text = String::with_capacity(36);
    for (index, byte) in uuid.iter().enumerate() {
        if matches!(index, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        put(&mut text, format_args!("{byte:02x}"));
    }
    text
}

/// An SSID in a keyfile: bytes separated by `;` unless it is plain text that GKeyFile does not touch.
fn escape(ssid: &str) -> String {
    let plain = |c: char| c.is_ascii_graphic() && !";\\".contains(c);
    if ssid.chars().all(plain) {
        return ssid.to_owned();
    }
    ssid.bytes().map(|byte| format!("{byte};")).collect()
}

fn put(text: &mut String, arguments: std::fmt::Arguments<'_>) {
    // Writing to a String cannot fail.
    let _ = text.write_fmt(arguments);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::Sha256;
    use crate::profile::{Address, Sourced};

    fn identity() -> Identity {
        Identity::of(&Sha256::of(b"x"), "x")
    }

    #[test]
    fn without_a_word_every_cable_takes_dhcp() {
        let files = keyfiles(&[], &identity());
        assert_eq!(files.len(), 1);
        assert!(files[0].text.contains("type=ethernet\n") && files[0].text.contains("method=auto\n"));
        assert!(!files[0].text.contains("interface-name"));
    }

    #[test]
    fn a_fixed_address_is_per_version() {
        let text = |text: &str| Sourced::default_value(text.to_owned());
        let address = Address { address: "192.168.1.10".parse().unwrap(), prefix: 24 };
        let eth = Interface {
            name: text("eth0"),
            addressing: Addressing::Static {
                addresses: vec![Sourced::default_value(address)],
                gateway: Some(Sourced::default_value("192.168.1.1".parse().unwrap())),
            },
            dns: vec![Sourced::default_value("9.9.9.9".parse().unwrap())],
            wifi: None,
        };
        let files = keyfiles(&[eth], &identity());
        let text = &files[0].text;
        assert!(
            text.contains(
                "[ipv4]\nmethod=manual\naddress1=192.168.1.10/24\ngateway=192.168.1.1\ndns=9.9.9.9;\n"
            ),
            "{text}"
        );
        assert!(
            text.ends_with("[ipv6]\naddr-gen-mode=stable-privacy\nip6-privacy=2\nmethod=auto\n"),
            "{text}"
        );
    }

    #[test]
    fn names_of_networks_are_never_misread() {
        assert_eq!(escape("Home-5"), "Home-5");
        assert_eq!(escape("a b;"), "97;32;98;59;");
    }
}
