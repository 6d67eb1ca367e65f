//! Which packages cannot be unpacked before their `preinst` has run.

mod script;

use super::Opened;
use crate::debian::deb::Control;
use crate::debian::dpkg::Database;
use crate::debian::relation;
use std::collections::BTreeSet;

/// A package that was not unpacked, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// Its place in the list of packages.
    pub index: usize,
    /// Its name.
    pub name: String,
    /// Why, in a sentence for people.
    pub reason: String,
}

pub(super) fn find(opened: &[Opened], database: &Database) -> Vec<Held> {
    let shipped: BTreeSet<String> = opened.iter().flat_map(|package| shipped(&package.control)).collect();
    let reason = |control: &Control| {
        let known = database
            .packages
            .values()
            .find(|known| known.name == control.name && known.status.state != "not-installed");
        match known {
            Some(known) if known.architecture == control.architecture || !known.multi_arch_same => {
                Some(format!(
                    "{} {} is there already, {}; hardtack itself only unpacks what is new",
                    known.name, known.version, known.status.state
                ))
            }
            _ => script_reason(control, opened, &shipped),
        }
    };
    let held = opened.iter().enumerate().filter_map(|(index, package)| {
        let reason = reason(&package.control)?;
        Some(Held { index, name: package.control.name.clone(), reason })
    });
    held.collect()
}

/// Whether the `preinst` changes what packages ship. Shell cannot be understood by reading it, so this errs on the
/// side of holding: any command that removes, moves or diverts and can run at a first installation, with a path that
/// is shipped or may become one.
fn script_reason(control: &Control, opened: &[Opened], shipped: &BTreeSet<String>) -> Option<String> {
    let script = control.files.get("preinst")?;
    let script = String::from_utf8_lossy(&script.bytes).replace("\\\n", " ");
    let own: BTreeSet<String> = self::shipped(control).map(|path| merged(&path)).collect();
    for line in script::reached(&script) {
        let words = || line.split(|c: char| !(c.is_ascii_alphanumeric() || "-_+.".contains(c)));
        if words().any(|word| word == "dpkg-maintscript-helper") {
            // Its commands act on an upgrade only.
            continue;
        }
        let asks = ["--truename", "--list"].iter().any(|query| line.contains(query));
        let mut after = words().skip_while(|word| *word != "--package");
        // A diversion in the name of a package that is not there only mends what an old system has.
        let owner = after.nth(1).filter(|name| relation::is_package_name(name));
        let foreign = owner.is_some_and(|owner| !opened.iter().any(|package| package.control.name == owner));
        let diverts = words().any(|word| word == "dpkg-divert") && !asks && !foreign;
        let removes = words().any(|word| matches!(word, "rm" | "mv" | "rmdir" | "unlink"));
        for (path, open) in paths(line).filter(|_| diverts || removes) {
            // A diversion is about one spelling of a path: below /lib they are made so as not to touch /usr/lib.
            let hit = if diverts { touches(shipped, path, open) } else { touches(&own, &merged(path), open) };
            if let Some(hit) = hit {
                let verb = if diverts { "diverts" } else { "removes or moves" };
                return Some(format!("its preinst {verb} `{path}`, and `/{hit}` is shipped"));
            }
        }
    }
    None
}

/// The files a package ships, without a leading slash, as its control data tells: directories and links are not there.
fn shipped(control: &Control) -> impl Iterator<Item = String> {
    let sums =
        control.files.get("md5sums").map(|file| String::from_utf8_lossy(&file.bytes)).unwrap_or_default();
    let sums: Vec<String> =
        sums.lines().filter_map(|line| Some(line.split_once("  ")?.1.to_owned())).collect();
    sums.into_iter()
        .chain(control.conffiles.iter().map(|conffile| conffile.path.trim_start_matches('/').to_owned()))
}

/// `path` as it is where `/usr` is merged.
fn merged(path: &str) -> String {
    let plain = path.trim_start_matches('/');
    let moved = ["bin/", "sbin/", "lib/"].iter().any(|directory| plain.starts_with(directory));
    if moved { format!("usr/{plain}") } else { plain.to_owned() }
}

/// What a shell line names from the root, and whether the name goes on with something only the shell knows.
fn paths(line: &str) -> impl Iterator<Item = (&str, bool)> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || "/._+@%:~-".contains(c);
    line.split(|c: char| c.is_ascii_whitespace() || "'\"=;()|&<>".contains(c)).filter_map(move |word| {
        // `$DPKG_ROOT/etc/x` is `/etc/x`.
        let word =
            word.strip_prefix("$DPKG_ROOT").or_else(|| word.strip_prefix("${DPKG_ROOT}")).unwrap_or(word);
        let end = word.find(|c| !is_part(c)).unwrap_or(word.len());
        let path = &word[..end];
        // Of `$DPKG_ROOT/$x` nothing is known; neither is of `$x`.
        (path.starts_with('/') && path != "/" && path != "/dev/null").then_some((path, end < word.len()))
    })
}

fn touches<'a>(shipped: &'a BTreeSet<String>, path: &str, open: bool) -> Option<&'a str> {
    let plain = path.trim_start_matches('/');
    let found =
        shipped.range(plain.to_owned()..).map(String::as_str).take_while(|known| known.starts_with(plain));
    let inside = |known: &&str| {
        let rest = &known[plain.len()..];
        open || rest.is_empty() || rest.starts_with('/') || plain.ends_with('/')
    };
    found.take(10_000).find(inside)
}
