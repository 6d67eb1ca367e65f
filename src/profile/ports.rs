//! Open ports. What is declared here feeds the firewall, the manifest, the audit and the boot test, and nothing else
//! opens a port.

use super::diagnostics::{Diagnostic, Report};
use super::node::{Node, Value};
use super::section::{Section, choose};
use super::source::Sourced;
use std::fmt;

/// One protocol of one entry of `[ports]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// The entry's name.
    pub name: Sourced<String>,
    /// First port of the range, from 1.
    pub first: u16,
    /// Last port of the range; the same as the first for a single port.
    pub last: u16,
    /// TCP or UDP.
    pub protocol: Protocol,
    /// Who may use it.
    pub scope: Scope,
    /// What it is for, in one line; may be empty.
    pub description: String,
}

/// A transport protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl Protocol {
    const WORDS: [(&'static str, Self); 2] = [("tcp", Self::Tcp), ("udp", Self::Udp)];

    /// The word in profiles, and in nftables.
    pub fn word(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }
}

/// Who may use a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    /// The local network: private, link-local and unique local addresses.
    Lan,
    /// Everybody who can reach the device.
    Any,
}

impl Scope {
    const WORDS: [(&'static str, Self); 2] = [("lan", Self::Lan), ("any", Self::Any)];

    /// Reads the word in profiles.
    pub(super) fn read(text: &str) -> Result<Self, String> {
        // The nearest word to `wan` would be `lan`, which is the opposite.
        match text {
            "wan" | "all" | "world" | "public" | "internet" => {
                Err("must be `lan` or `any`\ndid you mean `any`?".into())
            }
            text => choose(text, &Self::WORDS),
        }
    }

    /// The word in profiles.
    pub fn word(self) -> &'static str {
        match self {
            Self::Lan => "lan",
            Self::Any => "any",
        }
    }
}

impl Port {
    /// `445` or `49152-65535`.
    pub fn range(&self) -> String {
        if self.first == self.last { self.first.to_string() } else { format!("{}-{}", self.first, self.last) }
    }

    fn overlaps(&self, other: &Self) -> bool {
        self.protocol == other.protocol && self.first <= other.last && other.first <= self.last
    }
}

/// `445/tcp from the local network`.
impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scope = match self.scope {
            Scope::Lan => "from the local network",
            Scope::Any => "from everywhere",
        };
        write!(f, "{}/{} {scope}", self.range(), self.protocol.word())
    }
}

/// Reads `[ports]`.
pub(super) fn read(document: &mut Section<'_>) -> Vec<Port> {
    let mut ports = Vec::new();
    for (name, mut section) in document.named("ports") {
        ports.extend(read_port(name, &mut section));
    }
    ports
}

fn read_port(name: Sourced<String>, section: &mut Section<'_>) -> Vec<Port> {
    if let Err(problem) = super::base::check_file_name(&name) {
        let one = Diagnostic::new("bad name of a port").mark_origin(name.origin(), problem);
        section.report().add(one);
    }
    let range = read_range(section);
    let protocols = read_protocols(section);
    let scope = section.parsed("scope", Scope::read);
    let description = section.line("description").map(Sourced::into_value).unwrap_or_default();
    for (key, hint) in [
        ("port", "say which: `port = 443`, or a range: `port = \"6000-6010\"`"),
        ("protocol", "say `protocol = \"tcp\"`, `\"udp\"` or `[\"tcp\", \"udp\"]`"),
        ("scope", "say who may use it: `scope = \"lan\"` or `scope = \"any\"`"),
    ] {
        if !section.was_written(key) {
            section.missing(key, hint);
        }
    }
    let (Some((first, last)), Some(scope)) = (range, scope) else { return Vec::new() };
    protocols
        .into_iter()
        .map(|protocol| Port {
            name: name.clone(),
            first,
            last,
            protocol,
            scope: *scope,
            description: description.clone(),
        })
        .collect()
}

/// A number, or a range in text.
fn read_range(section: &mut Section<'_>) -> Option<(u16, u16)> {
    let field = section.take("port")?;
    let bad = |label: &str| {
        let one = Diagnostic::new(format!("bad value for `{}`", section.name("port")));
        section.report().add(one.mark(&field.node.place, label));
        None
    };
    match &field.node.value {
        Value::Integer(number) => match u16::try_from(*number) {
            Ok(port) if port > 0 => Some((port, port)),
            _ => bad("must be from 1 to 65535"),
        },
        Value::Text(text) => {
            let (first, last) = text.split_once('-').unwrap_or((text, text));
            match (read_number(first), read_number(last)) {
                (Some(first), Some(last)) if first > last => bad("must begin with the smaller port"),
                (Some(first), Some(last)) => Some((first, last)),
                _ => bad("must be two ports from 1 to 65535, such as `\"6000-6010\"`"),
            }
        }
        _ => bad("must be a number, or a range in text"),
    }
}

fn read_number(text: &str) -> Option<u16> {
    let digits = !text.is_empty() && text.bytes().all(|c| c.is_ascii_digit());
    text.parse().ok().filter(|port| digits && *port > 0)
}

/// One word, or a list of them.
fn read_protocols(section: &mut Section<'_>) -> Vec<Protocol> {
    let Some(field) = section.take("protocol") else { return Vec::new() };
    let items = match field.node.value {
        Value::List(items) if !items.is_empty() => items,
        value => vec![Node { place: field.node.place, value }],
    };
    let mut protocols = Vec::new();
    for item in items {
        let read = match &item.value {
            Value::Text(text) => choose(text, &Protocol::WORDS),
            other => Err(format!("must be `tcp` or `udp`, this is {}", other.word())),
        };
        match read {
            Ok(protocol) => protocols.push(protocol),
            Err(problem) => {
                let title = format!("bad value for `{}`", section.name("protocol"));
                section.report().add(Diagnostic::of_value(title, &item.place.into(), &problem));
            }
        }
    }
    protocols
}

/// No port may be opened twice: the two would have to agree on the scope for ever.
pub(super) fn check(ports: &[Port], report: &Report) {
    for (index, port) in ports.iter().enumerate() {
        if let Some(other) = ports[..index].iter().find(|other| other.overlaps(port)) {
            let title = format!("port {}/{} is opened twice", port.range(), port.protocol.word());
            let one = Diagnostic::new(title);
            let one = one.mark_origin(port.name.origin(), format!("as `{}` here", *port.name));
            let one = one
                .mark_origin(other.name.origin(), format!("as `{}` ({}) here", *other.name, other.range()));
            report.add(one.hint(format!(
                "to change a port that a parent opens, use its name: `[ports] {} = {{ scope = \"…\" }}`",
                *other.name
            )));
        }
    }
}
