//! The two spellings of apt's sources: deb822 stanzas and one-line entries (sources.list(5)).

use std::path::{Path, PathBuf};

/// One address with one suite, binary packages only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    /// The address as written.
    pub(super) uri: String,
    /// Suite or codename, or a path that ends in `/`.
    pub(super) suite: String,
    /// The keyrings, fingerprints or key this entry is bound to.
    pub(super) signed_by: Option<String>,
    /// The file it is written in.
    pub(super) file: PathBuf,
}

/// Reads a `.sources` file: stanzas of fields, each address with each suite.
pub(super) fn deb822(file: &Path, text: &str) -> Vec<Entry> {
    let mut entries = Vec::new();
    let mut stanza: Vec<(String, String)> = Vec::new();
    // One blank line more ends the last stanza.
    for line in text.lines().chain([""]) {
        if line.starts_with('#') {
            continue;
        }
        if line.trim().is_empty() {
            entries.extend(from_stanza(file, &std::mem::take(&mut stanza)));
        } else if line.starts_with([' ', '\t']) {
            if let Some((_, value)) = stanza.last_mut() {
                value.push('\n');
                value.push_str(line.trim());
            }
        } else if let Some((name, value)) = line.split_once(':') {
            stanza.push((name.trim().to_ascii_lowercase(), value.trim().to_owned()));
        }
    }
    entries
}

/// Reads a `.list` file: `deb [option=value …] uri suite component …`.
pub(super) fn one_line(file: &Path, text: &str) -> Vec<Entry> {
    text.lines().filter_map(|line| from_line(file, line)).collect()
}

fn from_stanza(file: &Path, stanza: &[(String, String)]) -> Vec<Entry> {
    let field = |name: &str| stanza.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
    let words = |name: &str| field(name).unwrap_or_default().split_whitespace();
    let off = ["no", "false", "without", "off", "disable", "0"];
    let enabled = !field("enabled").is_some_and(|value| off.iter().any(|no| value.eq_ignore_ascii_case(no)));
    if !enabled || !words("types").any(|kind| kind == "deb") {
        return Vec::new();
    }
    let entry = |uri: &str, suite: &str| Entry {
        uri: uri.to_owned(),
        suite: suite.to_owned(),
        signed_by: field("signed-by").filter(|value| !value.is_empty()).map(str::to_owned),
        file: file.to_owned(),
    };
    words("uris").flat_map(|uri| words("suites").map(move |suite| entry(uri, suite))).collect()
}

fn from_line(file: &Path, line: &str) -> Option<Entry> {
    let line = line.split('#').next()?.trim();
    let mut rest = line.strip_prefix("deb")?.strip_prefix([' ', '\t'])?.trim_start();
    let mut signed_by = None;
    // Options come before the address; a `[` inside one (`cdrom:[Debian …]/`) is part of it.
    if let Some(after) = rest.strip_prefix('[') {
        let (options, after) = after.split_once(']')?;
        let option = options.split_whitespace().find_map(|option| option.strip_prefix("signed-by="));
        signed_by = option.map(str::to_owned);
        rest = after.trim_start();
    }
    let (uri, rest) = match rest.strip_prefix("cdrom:[") {
        Some(disc) => {
            let (name, after) = disc.split_once(']')?;
            let (path, rest) = after.split_once([' ', '\t'])?;
            (format!("cdrom:[{name}]{path}"), rest)
        }
        None => {
            let (uri, rest) = rest.split_once([' ', '\t'])?;
            (uri.to_owned(), rest)
        }
    };
    let suite = rest.split_whitespace().next()?.to_owned();
    Some(Entry { uri, suite, signed_by, file: file.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(entries: Vec<Entry>) -> Vec<(String, String, Option<String>)> {
        entries.into_iter().map(|entry| (entry.uri, entry.suite, entry.signed_by)).collect()
    }

    #[test]
    fn a_stanza_is_every_address_with_every_suite() {
        let text = "Types: deb deb-src\n# a comment\nURIs: http://a.example/debian\n https://b.example/debian\n\
            suites: trixie trixie-updates\nComponents: main\nSigned-By: /usr/share/keyrings/x.gpg\n\n\n\
            Types: deb-src\nURIs: http://c.example\nSuites: trixie\n\n\
            Types: deb\nEnabled: No\nURIs: http://d.example\nSuites: trixie";
        let entries = seen(deb822(Path::new("x"), text));
        assert_eq!(entries.len(), 4);
        assert_eq!(entries[3].0, "https://b.example/debian");
        assert_eq!(entries[3].1, "trixie-updates");
        assert_eq!(entries[3].2.as_deref(), Some("/usr/share/keyrings/x.gpg"));
    }

    #[test]
    fn one_line_entries_with_options_comments_and_discs() {
        let text = "# deb http://no.example/debian trixie main\n\
            deb-src http://no.example/debian trixie main\n\
            deb [ arch=arm64,amd64 signed-by=/k.gpg ] http://a.example/debian trixie main # why\n\
            \tdeb\thttp://b.example/debian\tbookworm\tmain\n\
            deb cdrom:[Debian GNU/Linux 13 _Trixie_]/ trixie main\n\
            deb [broken http://c.example x\ndebug http://d.example x\ndeb http://e.example\n";
        let entries = seen(one_line(Path::new("x"), text));
        assert_eq!(entries.len(), 3, "{entries:?}");
        assert_eq!(entries[0], ("http://a.example/debian".into(), "trixie".into(), Some("/k.gpg".into())));
        assert_eq!(entries[1].1, "bookworm");
        assert_eq!(entries[2].0, "cdrom:[Debian GNU/Linux 13 _Trixie_]/");
    }
}
