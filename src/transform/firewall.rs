//! The firewall's port sets: the one place where a declared port becomes an open one.

use crate::profile::{Port, Protocol, Scope};

/// Where they go; `/etc/nftables.conf` of the hardened overlay has the sets and includes this directory.
pub const PATH: &str = "etc/nftables.d/10-profile.nft";

/// The text of that file: the elements of the sets `tcp_any`, `tcp_lan`, `udp_any` and `udp_lan`.
pub fn port_sets(ports: &[Port]) -> String {
    let mut text = String::from("# Reason: the ports the profile declares. Nothing else opens one.\n");
    for protocol in [Protocol::Tcp, Protocol::Udp] {
        for scope in [Scope::Any, Scope::Lan] {
            let mut chosen: Vec<&Port> =
                ports.iter().filter(|port| port.protocol == protocol && port.scope == scope).collect();
            chosen.sort_by_key(|port| port.first);
            if chosen.is_empty() {
                continue;
            }
            for port in &chosen {
                text.push_str(&format!("# {}: {}\n", port.range(), port.name.as_str()));
            }
            let ranges: Vec<String> = chosen.iter().map(|port| port.range()).collect();
            let set = format!("{}_{}", protocol.word(), scope.word());
            text.push_str(&format!("add element inet hardtack {set} {{ {} }}\n", ranges.join(", ")));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::Sourced;

    #[test]
    fn each_port_is_in_the_set_of_its_protocol_and_scope() {
        let port = |name: &str, first, last, protocol, scope| Port {
            name: Sourced::default_value(name.to_owned()),
            first,
            last,
            protocol,
            scope,
            description: String::new(),
        };
        let text = port_sets(&[
            port("smb", 445, 445, Protocol::Tcp, Scope::Lan),
            port("rpc", 49152, 65535, Protocol::Tcp, Scope::Lan),
            port("vpn", 51820, 51820, Protocol::Udp, Scope::Any),
        ]);
        assert!(text.contains("add element inet hardtack tcp_lan { 445, 49152-65535 }\n"), "{text}");
        assert!(text.contains("add element inet hardtack udp_any { 51820 }\n"), "{text}");
        assert!(!text.contains("udp_lan") && !text.contains("tcp_any"), "{text}");
        assert!(!port_sets(&[]).contains("add"));
    }
}
