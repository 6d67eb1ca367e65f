//! The sandbox on a real Debian: a system of arm64 packages, configured in every way there is, must come out the same to the
//! last byte.
//!
//! Packages come from the archive that the host's own apt is configured for. Needs `apt`, `dpkg`, and for an ordinary user's run
//! what `tests/sandbox.rs` needs. Takes a few minutes, most of them emulated.
#![cfg(target_os = "linux")]
#![expect(clippy::disallowed_methods, reason = "apt fetches the packages, dpkg is the judge")]

use hardtack::base::archive::{self, DebToUnpack, Options, Unpacked};
use hardtack::content::Content;
use hardtack::debian::deb::Deb;
use hardtack::meta::Timestamp;
use hardtack::pack::PackWriter;
use hardtack::sandbox::configure::{Configure, Configured, Preinst, Script, configure};
use hardtack::sandbox::twins::Twins;
use hardtack::sandbox::{Host, Place, SandboxError};
use hardtack::tree::{Kind, Tree, TreePath, dump};
use std::collections::BTreeSet;
use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

const EPOCH: i64 = 1_790_000_000;
/// Besides what every system has: certificates (perl, openssl), byte code (python3), keys and accounts (ssh), messages (dbus).
const EXTRA: [&str; 5] = ["ca-certificates", "python3-minimal", "openssh-server", "dbus", "adduser"];
const USERS_RUN: &str = "HARDTACK_TEST_DEBIAN_AS_USER";

#[test]
fn however_it_is_configured_the_result_is_the_same() {
    let work = tempfile::Builder::new().prefix("hardtack-sandbox-").tempdir().unwrap();
    let packages = Packages::fetch();
    if let Ok(result) = std::env::var(USERS_RUN) {
        // The second half of the run below, as somebody else.
        let tree = system(&packages, work.path(), Some(&packages.twins), Place::Disk, &[]).unwrap().tree;
        std::fs::write(result, dump::dump(&tree).unwrap()).unwrap();
        return;
    }
    let configured = system(&packages, work.path(), Some(&packages.twins), Place::Auto, &[]).unwrap();
    let twins = dump::dump(&configured.tree).unwrap();
    is_a_good_system(&configured.tree, work.path());

    let emulated = system(&packages, work.path(), None, Place::Auto, &[]).unwrap();
    same("with twins", &twins, "emulated", &dump::dump(&emulated.tree).unwrap());

    if rustix::process::geteuid().is_root() {
        let result = work.path().join("result");
        std::fs::write(&result, "").unwrap();
        let (uid, gid) = ordinary_user();
        for path in [work.path(), &result] {
            std::os::unix::fs::chown(path, Some(uid), Some(gid)).unwrap();
        }
        let output = Command::new(std::env::current_exe().unwrap())
            .args(["however_it_is_configured_the_result_is_the_same", "--exact", "--nocapture"])
            .env("TMPDIR", "/tmp")
            .env(USERS_RUN, &result)
            .uid(uid)
            .gid(gid)
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        same("as root", &twins, "as a user, on disk", &std::fs::read_to_string(&result).unwrap());
    }
}

#[test]
fn a_script_of_the_profile_that_fails_names_itself() {
    let work = tempfile::tempdir().unwrap();
    let packages = Packages::fetch();
    let script = |text: &str| Script { name: "site/setup".into(), content: Content::inline(text) };
    let scripts = [script("#!/bin/sh\necho about to fail; exit 3\n")];
    let error = system(&packages, work.path(), Some(&packages.twins), Place::Auto, &scripts).unwrap_err();
    assert_eq!(error.to_string(), "script site/setup failed (exit status 3)");
    let SandboxError::Step { last, .. } = error else { panic!("{error:?}") };
    assert_eq!(last, ["about to fail"]);
}

/// Unpacks and configures, each time from the package files.
fn system(
    packages: &Packages,
    work: &Path,
    twins: Option<&[PathBuf]>,
    place: Place,
    scripts: &[Script],
) -> Result<Configured, SandboxError> {
    let directory = tempfile::tempdir_in(work).unwrap();
    let pack = PackWriter::create(&directory.path().join("pack")).unwrap();
    let debs: Vec<DebToUnpack> = packages.target.iter().map(|path| deb(path)).collect();
    let Unpacked { tree, packages: controls, held } = unpack(&debs, &pack);
    let native =
        twins.map(|twins| unpack(&twins.iter().map(|path| deb(path)).collect::<Vec<_>>(), &pack).tree);
    let twins = native.map(|native| Twins::choose(&tree, &native).unwrap());
    assert!(twins.as_ref().is_none_or(|twins| twins.programs() > 200));
    let preinsts = controls.iter().map(|control| Preinst {
        database_name: control.database_name(),
        package: control.name.clone(),
        architecture: control.architecture.clone(),
    });
    let held = held.iter().map(|held| {
        let deb = &debs[held.index];
        (deb.label.clone(), Content::of(deb.source.clone(), 0, deb.len))
    });
    let emulator = emulator(&packages.emulator, directory.path());
    let mut configured = configure(
        Configure {
            tree,
            preinsts: &preinsts.collect::<Vec<_>>(),
            held: &held.collect::<Vec<_>>(),
            scripts,
            initramfs: true,
            epoch: EPOCH,
            emulator: Some(&emulator),
            twins: twins.as_ref(),
            scratch: &directory.path().join("scratch"),
            place,
            pack: &pack,
            cancel: &AtomicBool::new(false),
            host: Host { program: env!("CARGO_BIN_EXE_hardtack").into(), ..Host::default() },
        },
        &mut |_| (),
    )?;
    assert!(std::fs::read_dir(directory.path().join("scratch")).unwrap().next().is_none());
    // The log has the clock of the run in it; the tree must not.
    configured.log.clear();
    Ok(configured)
}

fn unpack(debs: &[DebToUnpack], pack: &PackWriter) -> Unpacked {
    let options = Options {
        epoch: Timestamp::seconds(EPOCH),
        jobs: 2.try_into().unwrap(),
        progress: &|_| {},
        cancel: &AtomicBool::new(false),
    };
    archive::unpack(Tree::new(Timestamp::seconds(EPOCH)), debs, pack, &options).unwrap()
}

fn deb(path: &Path) -> DebToUnpack {
    let file = File::open(path).unwrap();
    let len = file.metadata().unwrap().len();
    let source = Arc::new(file);
    let label = path.file_name().unwrap().to_string_lossy().into_owned();
    let control = Deb::open(&label, source.clone(), len).unwrap().control().unwrap();
    let (name, version, architecture) = (control.name, control.version, control.architecture);
    DebToUnpack { label, name, version, architecture, source, len }
}

fn emulator(package: &Path, directory: &Path) -> Content {
    let to = directory.join("emulator");
    run("dpkg-deb", &["-x", package.to_str().unwrap(), to.to_str().unwrap()]);
    Content::inline(std::fs::read(to.join("usr/bin/qemu-aarch64")).unwrap())
}

/// dpkg is content, nothing is left of the run, and what must be the device's own is not there.
fn is_a_good_system(tree: &Tree, work: &Path) {
    let root = work.join("audit");
    let (mut programs, mut foreign) = (0, Vec::new());
    for (path, id) in tree.walk() {
        let Kind::File(content) = &tree.node(id).kind else { continue };
        if path.starts_with(&TreePath::new("var/lib/dpkg").unwrap()) {
            let to = root.join(String::from_utf8_lossy(path.as_bytes()).into_owned());
            std::fs::create_dir_all(to.parent().unwrap()).unwrap();
            std::fs::write(to, content.read_to_vec(64 << 20).unwrap()).unwrap();
        }
        let head = content.read_to_vec(1 << 30).unwrap();
        if head.starts_with(b"\x7fELF") {
            programs += 1;
            if head[18..20] != [183, 0] {
                foreign.push(path);
            }
        }
    }
    assert!(
        programs > 300 && foreign.is_empty(),
        "{programs} programs, of another architecture: {foreign:?}"
    );
    // To the host's dpkg, arm64 is a foreign architecture that it has to be told of.
    std::fs::write(root.join("var/lib/dpkg/arch"), "amd64\narm64\n").unwrap();
    let root = root.to_str().unwrap();
    let audit = output("dpkg", &["--root", root, "--audit"]);
    assert!(audit.status.success() && audit.stdout.is_empty(), "{}", String::from_utf8_lossy(&audit.stdout));
    let states = output(
        "dpkg-query",
        &["--admindir", &format!("{root}/var/lib/dpkg"), "-W", "-f", "${db:Status-Status}\n"],
    );
    let states: BTreeSet<&[u8]> =
        states.stdout.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).collect();
    assert_eq!(states, BTreeSet::from([&b"installed"[..]]));
    for gone in
        [".hardtack", "usr/sbin/policy-rc.d", "lib64", "usr/lib/x86_64-linux-gnu", "etc/ssh/ssh_host_rsa_key"]
    {
        assert!(tree.get(&TreePath::new(gone).unwrap()).is_none(), "{gone}");
    }
    for made in ["etc/ld.so.cache", "etc/ssl/certs/ca-certificates.crt", "etc/passwd", "etc/alternatives/awk"]
    {
        assert!(tree.get(&TreePath::new(made).unwrap()).is_some(), "{made}");
    }
    let start_stop = tree.file(&TreePath::new("usr/sbin/start-stop-daemon").unwrap()).unwrap();
    assert!(start_stop.len() > 10_000, "the stand-in did not stay");
}

fn same(left_name: &str, left: &str, right_name: &str, right: &str) {
    if left == right {
        return;
    }
    let (lines, others): (BTreeSet<&str>, BTreeSet<&str>) = (left.lines().collect(), right.lines().collect());
    let only = |a: &BTreeSet<&str>, b: &BTreeSet<&str>| {
        a.difference(b).take(20).map(|line| format!("\n  {line}")).collect::<String>()
    };
    panic!("only {left_name}:{}\nonly {right_name}:{}", only(&lines, &others), only(&others, &lines));
}

fn ordinary_user() -> (u32, u32) {
    let subuid = std::fs::read_to_string("/etc/subuid").unwrap_or_default();
    let user = std::env::var("HARDTACK_TEST_USER").ok();
    let user = user.or_else(|| Some(subuid.lines().next()?.split(':').next()?.to_owned()));
    let user = user.expect("no user with subordinate ids; `useradd -m hardtack-test`");
    let passwd = std::fs::read_to_string("/etc/passwd").unwrap();
    let line =
        passwd.lines().find(|line| line.starts_with(&format!("{user}:"))).expect("user in /etc/passwd");
    let ids: Vec<u32> = line.split(':').skip(2).take(2).map(|id| id.parse().unwrap()).collect();
    (ids[0], ids[1])
}

/// Package files, kept below the target directory from one run of the tests to the next.
struct Packages {
    target: Vec<PathBuf>,
    twins: Vec<PathBuf>,
    emulator: PathBuf,
}

impl Packages {
    fn fetch() -> Self {
        let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("sandbox-debian");
        let list = directory.join("list");
        if !list.exists() {
            std::fs::create_dir_all(&directory).unwrap();
            // Two tests may come here at once: the lock is held until the list is written.
            let lock = File::create(directory.join("lock")).unwrap();
            lock.lock().unwrap();
            if !list.exists() {
                std::fs::write(&list, Self::download(&directory)).unwrap();
            }
        }
        let text = std::fs::read_to_string(&list).unwrap();
        let named = |word: &str| {
            let lines = text.lines().filter_map(|line| line.strip_prefix(word)?.strip_prefix(' '));
            lines.map(|name| directory.join(name)).collect::<Vec<_>>()
        };
        Self { target: named("target"), twins: named("twin"), emulator: named("emulator").remove(0) }
    }

    /// Downloads; gives the list.
    fn download(directory: &Path) -> String {
        let target = Apt::new(&directory.join("arm64"), "arm64");
        let native = Apt::new(&directory.join("amd64"), "amd64");
        let mut wanted: Vec<String> = EXTRA.map(str::to_owned).to_vec();
        wanted.extend(
            target.packages().into_iter().filter(|package| package.required).map(|package| package.name),
        );
        let files = target.fetch_with_dependencies(&wanted);
        let available: BTreeSet<(String, String)> = native
            .packages()
            .into_iter()
            .map(|package| (package.name, without_rebuild(&package.version)))
            .collect();
        let twins: Vec<String> = files
            .iter()
            .map(|path| deb(path))
            .filter(|deb| deb.architecture != "all")
            .filter(|deb| available.contains(&(deb.name.clone(), without_rebuild(&deb.version))))
            .map(|deb| deb.name)
            .collect();
        let twins = native.fetch(&twins);
        let emulator = native.fetch(&["qemu-user".to_owned()]);
        let line = |word: &str, paths: &[PathBuf]| {
            let names = paths.iter().map(|path| path.strip_prefix(directory).unwrap().display().to_string());
            names.map(|name| format!("{word} {name}\n")).collect::<String>()
        };
        line("target", &files) + &line("twin", &twins) + &line("emulator", &emulator)
    }
}

/// `1.2-3+b1` is `1.2-3`, built again.
fn without_rebuild(version: &str) -> String {
    match version.rsplit_once("+b") {
        Some((before, number)) if number.bytes().all(|byte| byte.is_ascii_digit()) => before.to_owned(),
        _ => version.to_owned(),
    }
}

/// An apt of its own for one architecture, with the archive that the host's apt uses.
struct Apt {
    directory: PathBuf,
    options: Vec<String>,
}

struct Listed {
    name: String,
    version: String,
    required: bool,
}

impl Apt {
    fn new(directory: &Path, architecture: &str) -> Self {
        let at = |path: &str| directory.join(path).display().to_string();
        for made in ["lists/partial", "cache/archives/partial", "debs"] {
            std::fs::create_dir_all(directory.join(made)).unwrap();
        }
        std::fs::write(directory.join("status"), "").unwrap();
        let sources = directory.join("sources.list");
        let uri =
            output("apt-get", &["indextargets", "--format", "$(REPO_URI) $(LABEL)", "Created-By: Packages"]);
        let uri = String::from_utf8(uri.stdout).unwrap();
        let uri = uri
            .lines()
            .find_map(|line| line.strip_suffix(" Debian"))
            .expect("a Debian archive in apt's sources");
        let keys = "/usr/share/keyrings/debian-archive-keyring.gpg";
        std::fs::write(&sources, format!("deb [signed-by={keys}] {uri} trixie main\n")).unwrap();
        let options = [
            format!("APT::Architecture={architecture}"),
            format!("APT::Architectures={architecture}"),
            format!("Dir::State::lists={}", at("lists")),
            format!("Dir::State::status={}", at("status")),
            format!("Dir::Cache={}", at("cache")),
            format!("Dir::Etc::sourcelist={}", sources.display()),
            "Dir::Etc::sourceparts=/dev/null".to_owned(),
            "APT::Install-Recommends=false".to_owned(),
            "APT::Sandbox::User=".to_owned(),
            "Debug::NoLocking=1".to_owned(),
        ];
        let options = options.into_iter().flat_map(|option| ["-o".to_owned(), option]).collect();
        let apt = Self { directory: directory.to_owned(), options };
        apt.run("apt-get", &["update".to_owned()]);
        apt
    }

    fn run(&self, program: &str, arguments: &[String]) -> Output {
        let arguments: Vec<&str> = self.options.iter().chain(arguments).map(String::as_str).collect();
        let mut command = Command::new(program);
        let output = command.args(&arguments).current_dir(self.directory.join("debs")).output();
        let output = output.unwrap_or_else(|error| panic!("{program}: {error}; install apt"));
        assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
        output
    }

    fn packages(&self) -> Vec<Listed> {
        let text = String::from_utf8(self.run("apt-cache", &["dumpavail".to_owned()]).stdout).unwrap();
        let stanzas = text.split("\n\n").filter_map(|stanza| {
            let field = |name: &str| {
                let lines = stanza.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
                lines.map(str::to_owned)
            };
            let required = field("Essential").is_some() || field("Priority").as_deref() == Some("required");
            Some(Listed { name: field("Package")?, version: field("Version")?, required })
        });
        stanzas.collect()
    }

    fn fetch_with_dependencies(&self, names: &[String]) -> Vec<PathBuf> {
        let mut arguments = vec!["-y".to_owned(), "--simulate".to_owned(), "install".to_owned()];
        arguments.extend_from_slice(names);
        let plan = String::from_utf8(self.run("apt-get", &arguments).stdout).unwrap();
        let names = plan.lines().filter_map(|line| line.strip_prefix("Inst ")?.split(' ').next());
        self.fetch(&names.map(str::to_owned).collect::<Vec<_>>())
    }

    fn fetch(&self, names: &[String]) -> Vec<PathBuf> {
        let before = self.files();
        let mut arguments = vec!["download".to_owned()];
        arguments.extend_from_slice(names);
        self.run("apt-get", &arguments);
        self.files().difference(&before).cloned().collect()
    }

    fn files(&self) -> BTreeSet<PathBuf> {
        std::fs::read_dir(self.directory.join("debs")).unwrap().map(|entry| entry.unwrap().path()).collect()
    }
}

fn output(program: &str, arguments: &[&str]) -> Output {
    let output = Command::new(program).args(arguments).env("LC_ALL", "C").output();
    output.unwrap_or_else(|error| panic!("cannot run {program} ({error}): install apt and dpkg"))
}

fn run(program: &str, arguments: &[&str]) {
    let output = output(program, arguments);
    assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
}
