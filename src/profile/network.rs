//! The network: each interface by DHCP or with a fixed address, by cable or by Wi-Fi.

use super::diagnostics::{Diagnostic, Report};
use super::section::Section;
use super::source::Sourced;
use std::fmt;
use std::net::IpAddr;

/// `[network.NAME]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// The kernel's name: `eth0`, `wlan0`.
    pub name: Sourced<String>,
    /// How it gets its addresses.
    pub addressing: Addressing,
    /// Name servers; with DHCP they are used instead of the router's.
    pub dns: Vec<Sourced<IpAddr>>,
    /// The wireless network, if it is one.
    pub wifi: Option<Wifi>,
}

/// How an interface gets its addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Addressing {
    /// DHCP for IPv4, router advertisements for IPv6.
    Dhcp,
    /// Fixed.
    Static {
        /// At least one.
        addresses: Vec<Sourced<Address>>,
        /// The router, of either version. Without one the device reaches its own network only.
        gateway: Option<Sourced<IpAddr>>,
    },
}

/// An address and the length of its network's prefix: `192.168.1.10/24`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address {
    /// The address.
    pub address: IpAddr,
    /// How many bits of it name the network.
    pub prefix: u8,
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

impl Address {
    fn reaches(&self, other: &IpAddr) -> bool {
        let bits = |address: &IpAddr| match address {
            IpAddr::V4(v4) => (u128::from(v4.to_bits()) << 96, 4),
            IpAddr::V6(v6) => (v6.to_bits(), 6),
        };
        let ((own, version), (their, other)) = (bits(&self.address), bits(other));
        let differ = (own ^ their).checked_shr(128 - u32::from(self.prefix)).unwrap_or(0);
        version == other && differ == 0
    }
}

/// A wireless network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wifi {
    /// Its name: 1 to 32 bytes.
    pub ssid: Sourced<String>,
    /// ISO 3166 code of the country whose radio rules apply.
    pub country: Sourced<String>,
    /// The key; without one, the connection is made ready and waits for it.
    pub psk: Option<Sourced<Psk>>,
}

/// The 256-bit key that `wpa_passphrase` makes of a passphrase and an SSID. It opens one network and does not
/// give the passphrase away; an image with one is personal all the same. Neither `Debug` nor `Display` shows it.
#[derive(Clone, PartialEq, Eq)]
pub struct Psk(String);

impl Psk {
    /// The 64 hexadecimal digits, for the one file on the device that holds them.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Psk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(not shown)")
    }
}

/// Reads `[network]`.
pub(super) fn read(document: &mut Section<'_>) -> Vec<Interface> {
    document
        .named("network")
        .into_iter()
        .filter_map(|(name, mut section)| read_one(name, &mut section))
        .collect()
}

fn read_one(name: Sourced<String>, section: &mut Section<'_>) -> Option<Interface> {
    let report = section.report();
    let fine = |c: u8| c.is_ascii_alphanumeric() || b"-_.".contains(&c);
    // IFNAMSIZ of linux/if.h is 16, with the NUL.
    if name.is_empty() || name.len() > 15 || !name.bytes().all(fine) || name.starts_with('.') {
        let one = Diagnostic::new("bad name of a network interface");
        report.add(
            one.mark_origin(name.origin(), "must be a kernel's name, such as `eth0`, at most 15 letters"),
        );
    }
    let method = section.choice("method", &[("dhcp", false), ("static", true)]);
    let fixed = method.as_ref().is_some_and(|method| **method);
    let addresses = section.list("address", read_address);
    let gateway = section.parsed("gateway", read_ip);
    let dns = section.list("dns", read_ip);
    let addressing = if fixed {
        if addresses.is_empty() && !section.was_written("address") {
            section.missing("address", "say which: `address = [\"192.168.1.10/24\"]`");
        }
        check_gateway(&addresses, gateway.as_ref(), report);
        Addressing::Static { addresses, gateway }
    } else {
        let place = addresses.first().map(Sourced::origin).or(gateway.as_ref().map(Sourced::origin));
        if let Some(origin) = place {
            let one = Diagnostic::new(format!("a fixed address on `{}`, which uses DHCP", *name));
            report.add(one.mark_origin(origin, "").hint("add `method = \"static\"`"));
        }
        Addressing::Dhcp
    };
    let wifi = read_wifi(&name, section);
    Some(Interface { name, addressing, dns, wifi: wifi? })
}

/// `None` when it is wrong, `Some(None)` when there is none.
fn read_wifi(name: &Sourced<String>, section: &mut Section<'_>) -> Option<Option<Wifi>> {
    let ssid = section.parsed("ssid", read_ssid);
    let country = section.parsed("country", read_country);
    let psk = section.parsed("psk", read_psk);
    section.refuse(
        &["password", "passphrase"],
        "a profile never holds a passphrase",
        "make a key of it with `wpa_passphrase SSID` and put that in as `psk`, or give it to the device later",
    );
    let wanted = section.was_written("ssid") || section.was_written("country") || section.was_written("psk");
    if !wanted {
        if name.starts_with("wl") {
            section.missing("ssid", "say which network: `ssid = \"…\"`, and `country = \"…\"` with it");
            return None;
        }
        return Some(None);
    }
    if !section.was_written("ssid") {
        section.missing("ssid", "say which network: `ssid = \"…\"`");
    }
    if !section.was_written("country") {
        section.missing("country", "radio rules differ: say where the device is, such as `country = \"FR\"`");
    }
    Some(Some(Wifi { ssid: ssid?, country: country?, psk }))
}

fn check_gateway(addresses: &[Sourced<Address>], gateway: Option<&Sourced<IpAddr>>, report: &Report) {
    let Some(gateway) = gateway else { return };
    // A router with a link-local address is reached on every network.
    let local = matches!(**gateway, IpAddr::V6(v6) if v6.is_unicast_link_local());
    if !local && !addresses.is_empty() && !addresses.iter().any(|address| address.reaches(gateway)) {
        let one = Diagnostic::new(format!("the gateway {} is in no network of this interface", **gateway));
        let one = one.mark_origin(gateway.origin(), "");
        report.add(one.mark_origin(addresses[0].origin(), "the address is here"));
    }
}

fn read_ip(text: &str) -> Result<IpAddr, String> {
    text.parse().map_err(|_| "must be an IPv4 or IPv6 address".into())
}

fn read_address(text: &str) -> Result<Address, String> {
    let Some((address, prefix)) = text.split_once('/') else {
        return Err("must be an address and a prefix, such as `192.168.1.10/24`".into());
    };
    let address: IpAddr = read_ip(address)?;
    let longest = if address.is_ipv4() { 32 } else { 128 };
    match prefix.parse::<u8>() {
        Ok(prefix) if (1..=longest).contains(&prefix) => Ok(Address { address, prefix }),
        _ => Err(format!("must have a prefix from 1 to {longest} after `/`")),
    }
}

/// IEEE 802.11: up to 32 bytes. Control characters would be possible there and never meant.
fn read_ssid(text: &str) -> Result<String, String> {
    match text.is_empty() || text.len() > 32 || text.chars().any(char::is_control) {
        true => Err("must be 1 to 32 bytes without control characters".into()),
        false => Ok(text.to_owned()),
    }
}

fn read_country(text: &str) -> Result<String, String> {
    if text.len() != 2 || !text.bytes().all(|c| c.is_ascii_alphabetic()) {
        return Err("must be two letters, such as `FR` (ISO 3166)".into());
    }
    let upper = text.to_ascii_uppercase();
    match upper.as_str() {
        "UK" => Err("no such country in ISO 3166\ndid you mean `GB`?".into()),
        _ if upper != text => Err(format!("must be in capitals\ndid you mean `{upper}`?")),
        _ => Ok(upper),
    }
}

fn read_psk(text: &str) -> Result<Psk, String> {
    match text.len() == 64 && text.bytes().all(|c| c.is_ascii_hexdigit()) {
        true => Ok(Psk(text.to_ascii_lowercase())),
        false => {
            Err("must be 64 hexadecimal digits, not a passphrase\n`wpa_passphrase SSID` makes them".into())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gateway_is_in_the_network_or_not() {
        for (address, gateway, reached) in [
            ("192.168.1.10/24", "192.168.1.1", true),
            ("192.168.1.10/24", "192.168.2.1", false),
            ("192.168.1.10/23", "192.168.0.1", true),
            ("10.0.0.1/32", "10.0.0.2", false),
            ("fd00::5/64", "fd00::1", true),
            ("fd00::5/64", "fd00:0:0:1::1", false),
            ("fd00::5/128", "fd00::5", true),
            ("192.168.1.10/24", "fd00::1", false),
        ] {
            let address = read_address(address).unwrap();
            assert_eq!(address.reaches(&gateway.parse().unwrap()), reached, "{address} {gateway}");
        }
    }

    #[test]
    fn a_key_is_never_shown() {
        let psk = read_psk(&"ab".repeat(32)).unwrap();
        assert_eq!(format!("{psk:?}"), "(not shown)");
        assert!(read_psk("correct horse battery staple").is_err());
    }
}
