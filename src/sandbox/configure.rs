//! Configuring: what turns a tree of unpacked packages into a system, and makes the result depend on nothing but its inputs.
//!
//! The order is dpkg's own for a new installation, with two differences. `preinst` scripts run after unpacking, not before
//! (see `base::archive`). And an initramfs is made once, at the end, however many packages ask for one: each costs as much as
//! everything else together, and all but the last are thrown away.

use super::{Event, Host, Job, Place, Prop, SandboxError, Step, environment, normalise, run, twins::Twins};
use crate::content::Content;
use crate::meta::{Meta, Timestamp};
use crate::pack::PackWriter;
use crate::tree::{Kind, Tree, TreeError, TreePath};
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

/// Part of every layer's cache key: to be raised whenever the same inputs may give another result because of a change in
/// this room.
pub const RULES: u32 = 1;

/// A package whose `preinst` is to run.
#[derive(Clone, Debug)]
pub struct Preinst {
    /// Name in dpkg's database: `libc6:arm64` for Multi-Arch: same, else the plain name.
    pub database_name: String,
    /// Name of the package.
    pub package: String,
    /// Its architecture.
    pub architecture: String,
}

/// A program of the profile.
#[derive(Clone, Debug)]
pub struct Script {
    /// What it is called in messages; also its file name.
    pub name: String,
    /// The program, with its `#!` line.
    pub content: Content,
}

/// What to configure.
pub struct Configure<'a> {
    /// Packages unpacked, dpkg's database in place.
    pub tree: Tree,
    /// Packages in the order in which they were unpacked; those without a `preinst` are passed over.
    pub preinsts: &'a [Preinst],
    /// Packages for the real dpkg to unpack, by file name: those whose `preinst` diverts files.
    pub held: &'a [(String, Content)],
    /// Programs to run when everything is configured.
    pub scripts: &'a [Script],
    /// Whether to make the initramfs that packages and scripts ask for; without, asking has no effect.
    pub initramfs: bool,
    /// The clock, seconds since 1970. Nothing in the result is newer.
    pub epoch: i64,
    /// See [`Job::emulator`].
    pub emulator: Option<&'a Content>,
    /// See [`Job::twins`].
    pub twins: Option<&'a Twins>,
    /// See [`Job::scratch`].
    pub scratch: &'a Path,
    /// See [`Job::place`].
    pub place: Place,
    /// See [`Job::pack`].
    pub pack: &'a PackWriter,
    /// See [`Job::cancel`].
    pub cancel: &'a AtomicBool,
    /// See [`Job::host`].
    pub host: Host,
}

/// A configured system.
#[derive(Debug)]
pub struct Configured {
    /// The tree, [normalised](normalise).
    pub tree: Tree,
    /// How long each part took.
    pub times: Vec<(String, Duration)>,
    /// What the scripts wrote.
    pub log: String,
}

/// Runs everything that makes a system of unpacked packages.
pub fn configure(work: Configure<'_>, on: &mut dyn FnMut(Event<'_>)) -> Result<Configured, SandboxError> {
    let mut tree = work.tree;
    let props = props(&tree);
    let inputs = inputs(&tree, work.held, work.scripts);
    let version = dpkg_version(&tree);
    let mut steps: Vec<Step> = Vec::new();
    let with_preinst = work.preinsts.iter().filter(|preinst| has_preinst(&tree, preinst));
    steps.extend(with_preinst.map(|preinst| preinst_step(preinst, &version, work.epoch)));
    for (name, _) in work.held {
        let file = format!("/.hardtack/in/{}", plain(name));
        // What it pre-depends on is unpacked but not configured; it was the same for debootstrap at every release.
        let argv = [
            "dpkg",
            "--force-depends",
            "--force-unsafe-io",
            "--force-confdef",
            "--force-confold",
            "--unpack",
            &file,
        ];
        steps.push(Step::new(format!("unpacking {name}"), &argv, work.epoch));
    }
    let argv =
        ["dpkg", "--force-unsafe-io", "--force-confdef", "--force-confold", "--configure", "--pending"];
    steps.push(Step::new("configuring packages", &argv, work.epoch));
    for script in work.scripts {
        let program = format!("/.hardtack/in/{}", plain(&script.name));
        steps.push(Step::new(format!("script {}", script.name), &[&program], work.epoch));
    }
    if work.initramfs && has_initramfs(&tree) {
        let make =
            "if [ -e /run/hardtack-initramfs ]; then exec /.hardtack/in/update-initramfs -c -k all; fi";
        steps.push(Step::new("making the initramfs", &["/bin/sh", "-ec", make], work.epoch));
    }
    let job = Job {
        tree: &tree,
        emulator: work.emulator,
        twins: work.twins,
        inputs: &inputs,
        props: &props,
        steps: &steps,
        scratch: work.scratch,
        place: work.place,
        pack: work.pack,
        cancel: work.cancel,
        host: work.host.clone(),
    };
    let outcome = run(&job, on)?;
    let broken = |error: TreeError| {
        SandboxError::io("taking over what the scripts changed", std::io::Error::other(error))
    };
    tree.apply(outcome.changes).map_err(broken)?;
    normalise::normalise(&mut tree, Timestamp::seconds(work.epoch)).map_err(broken)?;
    normalise::check(&tree)?;
    Ok(Configured { tree, times: outcome.times, log: outcome.log })
}

fn path(text: &str) -> TreePath {
    // Plain constants; a bad one would be the root, which holds no file.
    TreePath::new(text).unwrap_or_default()
}

/// A name that cannot leave its directory.
fn plain(name: &str) -> String {
    let mut plain: String = name.chars().map(|c| if c == '/' || c == '\0' { '_' } else { c }).collect();
    if plain.starts_with('.') {
        plain.insert(0, '_');
    }
    plain
}

fn has_initramfs(tree: &Tree) -> bool {
    tree.look_up(&path("usr/sbin/update-initramfs")).is_ok()
}

/// Programs that stand in for the target's while it is configured.
fn props(tree: &Tree) -> Vec<Prop> {
    let program = |name: &str, text: &str| Prop {
        path: path(name),
        meta: Meta::root(0o755, Timestamp::default()),
        kind: Kind::File(Content::inline(text)),
    };
    let mut props = vec![
        // "Action not allowed" for every service (invoke-rc.d, deb-systemd-invoke): nothing is started or restarted.
        program("usr/sbin/policy-rc.d", "#!/bin/sh\nexit 101\n"),
    ];
    if tree.get(&path("usr/sbin/start-stop-daemon")).is_some() {
        // The few scripts that start a daemon without asking; debootstrap does the same.
        props.push(program("usr/sbin/start-stop-daemon", "#!/bin/sh\nexit 0\n"));
    }
    if has_initramfs(tree) {
        // Remembers that someone asked. Kernel hooks ask for the version first, to see whose program it is.
        let stub = "#!/bin/sh\n\
            case \"$1\" in --version) exec /.hardtack/in/update-initramfs --version ;; esac\n\
            : >/run/hardtack-initramfs\n";
        props.push(program("usr/sbin/update-initramfs", stub));
    }
    props
}

fn inputs(tree: &Tree, held: &[(String, Content)], scripts: &[Script]) -> Vec<(String, Content)> {
    let mut inputs: Vec<(String, Content)> =
        held.iter().map(|(name, content)| (plain(name), content.clone())).collect();
    inputs.extend(scripts.iter().map(|script| (plain(&script.name), script.content.clone())));
    if let Ok(program) = tree.file(&path("usr/sbin/update-initramfs")) {
        inputs.push(("update-initramfs".to_owned(), program.clone()));
    }
    inputs
}

fn has_preinst(tree: &Tree, preinst: &Preinst) -> bool {
    TreePath::new(preinst_path(preinst)).is_ok_and(|path| tree.get(&path).is_some())
}

fn preinst_path(preinst: &Preinst) -> String {
    format!("/var/lib/dpkg/info/{}.preinst", preinst.database_name)
}

/// A `preinst` as dpkg runs it for a new installation (dpkg(1), "environment"; src/main/script.c).
fn preinst_step(preinst: &Preinst, version: &str, epoch: i64) -> Step {
    let mut step = Step::new(
        format!("pre-installation script of {}", preinst.package),
        &[&preinst_path(preinst), "install"],
        epoch,
    );
    let variables = [
        ("DPKG_MAINTSCRIPT_PACKAGE", preinst.package.as_str()),
        ("DPKG_MAINTSCRIPT_ARCH", &preinst.architecture),
        ("DPKG_MAINTSCRIPT_NAME", "preinst"),
        ("DPKG_MAINTSCRIPT_PACKAGE_REFCOUNT", "1"),
        ("DPKG_MAINTSCRIPT_DEBUG", "0"),
        ("DPKG_RUNNING_VERSION", version),
        ("DPKG_ADMINDIR", "/var/lib/dpkg"),
        ("DPKG_ROOT", ""),
    ];
    step.environment.extend(variables.map(|(name, value)| (name.to_owned(), value.to_owned())));
    step
}

/// The version of the target's own dpkg, without Debian's revision, as `DPKG_RUNNING_VERSION` has it.
fn dpkg_version(tree: &Tree) -> String {
    let status = tree.file(&path("var/lib/dpkg/status")).and_then(|content| {
        // A status file of a whole desktop has 10 MB.
        content.read_to_vec(256 << 20).map_err(|_| TreeError::Missing(path("var/lib/dpkg/status")))
    });
    let status = String::from_utf8_lossy(&status.unwrap_or_default()).into_owned();
    let mut stanzas = status.split("\n\n");
    let stanza =
        stanzas.find(|stanza| stanza.lines().any(|line| line == "Package: dpkg")).unwrap_or_default();
    let version = stanza.lines().find_map(|line| line.strip_prefix("Version: ")).unwrap_or_default();
    version.split('-').next().unwrap_or_default().to_owned()
}

/// Everything besides the job's inputs that decides a result: for cache keys.
pub fn fingerprint() -> String {
    let environment: Vec<String> =
        environment(0).iter().map(|(name, value)| format!("{name}={value}")).collect();
    format!("rules {RULES}; {}", environment.join(" "))
}
