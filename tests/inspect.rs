//! `inspect`, `ls` and `cat` from outside, on images made by other people's tools (`sfdisk`, `mkfs.vfat`, mtools,
//! `mke2fs`) and by hardtack, judged by `sfdisk`, `blkid`, `dumpe2fs` and mtools.
#![expect(clippy::disallowed_methods, reason = "tests start the program they test, and reference tools")]

use hardtack::content::ReadAt;
use hardtack::digest::Sha256;
use hardtack::image::layout::{ImageSize, Spec, TableKind};
use hardtack::image::write::{Watch, to_file};
use hardtack::image::{Contents, Identity, plan};
use hardtack::inspect::{InspectError, Part, of_source};
use hardtack::meta::Timestamp;
use hardtack::tree::{Kind, Tree, TreePath};
use hardtack::units::Bytes;
use serde_json::Value;
use std::ffi::OsStr;
use std::fs;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

const BOOT_AT: u64 = 1 << 20;
const BOOT_LEN: u64 = 8 << 20;
const ROOT_AT: u64 = BOOT_AT + BOOT_LEN;
const ROOT_LEN: u64 = 12 << 20;
const THIRD_AT: u64 = ROOT_AT + ROOT_LEN;
const SIZE: u64 = THIRD_AT + (3 << 20);

fn hardtack(arguments: &[&OsStr]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hardtack"));
    command.env_clear().env("HOME", "/nonexistent").args(arguments).output().unwrap()
}

/// An answer that is expected to be one.
fn answer(arguments: &[&str]) -> Vec<u8> {
    let arguments: Vec<&OsStr> = arguments.iter().map(OsStr::new).collect();
    let output = hardtack(&arguments);
    let talk = String::from_utf8_lossy(&output.stderr);
    assert_eq!((output.status.code(), &*talk), (Some(0), ""), "{arguments:?}");
    output.stdout
}

fn text(arguments: &[&str]) -> String {
    String::from_utf8(answer(arguments)).unwrap()
}

fn json(arguments: &[&str]) -> Value {
    serde_json::from_slice(&answer(arguments)).unwrap()
}

/// What is said when it fails with exit code 1.
fn refused(arguments: &[&str]) -> String {
    let arguments: Vec<&OsStr> = arguments.iter().map(OsStr::new).collect();
    let output = hardtack(&arguments);
    let talk = String::from_utf8(output.stderr).unwrap();
    assert_eq!((output.status.code(), output.stdout.len()), (Some(1), 0), "{arguments:?}: {talk}");
    assert!(talk.starts_with("error: "), "{talk}");
    talk
}

/// Runs a tool that must be content, and gives what it printed.
fn tool(program: &str, package: &str, arguments: &[&str], input: &str) -> String {
    let mut command = Command::new(program);
    command.args(arguments).env("LC_ALL", "C.UTF-8").env("MTOOLS_SKIP_CHECK", "1");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap_or_else(|error| panic!("{program}: {error}; install {package}"));
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{program} {arguments:?}: {said}");
    String::from_utf8(output.stdout).unwrap()
}

fn noise(len: usize) -> Vec<u8> {
    let mut state = 1u64;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        bytes.extend(state.to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

const STATUS: &str = "Package: dpkg\nStatus: install ok installed\nVersion: 1.22.21\nArchitecture: arm64\n
Package: old\nStatus: deinstall ok config-files\nVersion: 1\nArchitecture: arm64\n
Package: base-files\nStatus: install ok installed\nVersion: 13.8\nArchitecture: arm64\n";

/// An image that hardtack had no part in: FAT, ext4, and a third partition of btrfs, as far as its magic goes.
fn foreign(directory: &Path, label: &str) -> PathBuf {
    let tree = directory.join("tree");
    for name in ["etc", "usr/lib/modules/6.12.1-v8", "boot/firmware", "var/lib/dpkg", "srv"] {
        fs::create_dir_all(tree.join(name)).unwrap();
    }
    let put = |name: &str, bytes: &[u8]| fs::write(tree.join(name), bytes).unwrap();
    put("usr/lib/os-release", b"PRETTY_NAME=\"Foreign \x1b[31m 1\"\nID=foreign\n");
    put("etc/hostname", b"stranger\n");
    put(
        "etc/fstab",
        b"# <device>\nLABEL=FIRMWARE /boot/firmware vfat defaults 0 2\nLABEL=top / ext4 defaults 0 1\n",
    );
    put("var/lib/dpkg/status", STATUS.as_bytes());
    put("boot/vmlinuz-6.12.1-v8", b"MZ");
    put("boot/firmware/hidden", b"behind the mount");
    put("srv/large", &noise(3_000_001));
    fs::write(tree.join(OsStr::from_bytes(b"srv/a\x1b[2J\nb\xff")), "odd").unwrap();
    symlink("../usr/lib/os-release", tree.join("etc/os-release")).unwrap();
    symlink("usr/lib", tree.join("lib")).unwrap();
    symlink("/boot/firmware/config.txt", tree.join("etc/config")).unwrap();
    symlink("nowhere", tree.join("etc/dangling")).unwrap();
    symlink("round", tree.join("etc/round")).unwrap();

    let image = directory.join("foreign.img");
    fs::File::create(&image).unwrap().set_len(SIZE).unwrap();
    let at = image.to_str().unwrap();
    let sectors = |bytes: u64| bytes / 512;
    let kinds = if label == "gpt" { ["U", "L", "L"] } else { ["c", "83", "83"] };
    let id = if label == "gpt" { "" } else { "label-id: 0x12345678\n" };
    let name = |name: &str| if label == "gpt" { format!(", name=\"{name}\"") } else { String::new() };
    let script = format!(
        "label: {label}\n{id}start={}, size={}, type={}{}\nstart={}, size={}, type={}{}\nstart={}, size={}, type={}\n",
        sectors(BOOT_AT),
        sectors(BOOT_LEN),
        kinds[0],
        name("first one"),
        sectors(ROOT_AT),
        sectors(ROOT_LEN),
        kinds[1],
        name("second"),
        sectors(THIRD_AT),
        sectors(1 << 20),
        kinds[2]
    );
    tool("sfdisk", "fdisk", &["--quiet", at], &script);
    let (boot_at, boot_kib) = (sectors(BOOT_AT).to_string(), (BOOT_LEN >> 10).to_string());
    let fat =
        ["-F", "16", "-s", "1", "-n", "FIRMWARE", "-i", "cafe0123", "--offset", &boot_at, at, &boot_kib];
    tool("mkfs.vfat", "dosfstools", &fat, "");
    let config = directory.join("config.txt");
    fs::write(&config, "arm_64bit=1\n").unwrap();
    let drive = format!("{at}@@{BOOT_AT}");
    for name in ["config.txt", "kernel8.img", "A rather long name.txt"] {
        tool("mcopy", "mtools", &["-i", &drive, config.to_str().unwrap(), &format!("::{name}")], "");
    }
    let extended = format!("offset={ROOT_AT},root_owner=0:0");
    let size = format!("{}K", ROOT_LEN >> 10);
    let from = tree.to_str().unwrap();
    let ext = ["-q", "-F", "-t", "ext4", "-L", "top", "-d", from, "-E", &extended, at, &size];
    tool("mke2fs", "e2fsprogs", &ext, "");
    let file = fs::OpenOptions::new().write(true).open(&image).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, b"_BHRfS_M", THIRD_AT + 0x10040).unwrap();
    image
}

fn number(text: &str) -> u64 {
    text.chars().filter(char::is_ascii_digit).collect::<String>().parse().unwrap()
}

#[test]
fn an_image_of_other_tools_is_described_as_they_do() {
    for label in ["dos", "gpt"] {
        let directory = tempfile::tempdir().unwrap();
        let image = foreign(directory.path(), label);
        let at = image.to_str().unwrap();
        let value = json(&["inspect", at, "--json"]);
        let table = tool("sfdisk", "fdisk", &["--disk-id", at], "").to_lowercase();
        assert_eq!(value["table"]["id"], table.trim().trim_start_matches("0x"));
        assert_eq!(
            (&value["table"]["kind"], &value["size"]),
            (&(if label == "gpt" { "gpt" } else { "mbr" }).into(), &SIZE.into())
        );
        let partitions = value["partitions"].as_array().unwrap();
        assert_eq!(partitions.len(), 3);
        for (partition, (start, len)) in
            partitions.iter().zip([(BOOT_AT, BOOT_LEN), (ROOT_AT, ROOT_LEN), (THIRD_AT, 1 << 20)])
        {
            assert_eq!((&partition["start"], &partition["size"]), (&start.into(), &len.into()));
            let own = partition["number"].to_string();
            let sfdisk = |what: &str| tool("sfdisk", "fdisk", &[what, at, &own], "").trim().to_lowercase();
            assert_eq!(partition["type"], format!("{:0>2}", sfdisk("--part-type")));
            if label == "gpt" {
                assert_eq!(partition["partuuid"], sfdisk("--part-uuid"));
            } else {
                assert_eq!(partition["partuuid"], format!("12345678-0{own}"));
            }
        }
        for (index, start) in [BOOT_AT, ROOT_AT].into_iter().enumerate() {
            let arguments = ["-p", "-O", &start.to_string(), "-o", "export", at];
            let said = tool("blkid", "util-linux", &arguments, "");
            let field =
                |name: &str| said.lines().find_map(|line| line.strip_prefix(name)).unwrap().to_owned();
            let found = &partitions[index]["filesystem"];
            assert_eq!(found["uuid"], field("UUID="));
            assert_eq!(found["label"], field("LABEL="));
        }
        assert_eq!(partitions[0]["filesystem"]["kind"], "FAT16");
        let free = tool("mdir", "mtools", &["-i", &format!("{at}@@{BOOT_AT}"), "::"], "");
        let free = number(free.lines().find(|line| line.contains("bytes free")).unwrap());
        assert_eq!(partitions[0]["filesystem"]["free"], free);
        let said = tool("dumpe2fs", "e2fsprogs", &["-h", &format!("{at}?offset={ROOT_AT}")], "");
        let line = |name: &str| number(said.lines().find_map(|line| line.strip_prefix(name)).unwrap());
        let root = &partitions[1]["filesystem"];
        assert_eq!(root["free"], line("Free blocks:") * line("Block size:"));
        assert_eq!(root["size"], line("Block count:") * line("Block size:"));
        let third = &partitions[2];
        assert_eq!((&third["filesystem"]["kind"], &third["damaged"]), (&"btrfs".into(), &false.into()));
        if label == "gpt" {
            assert_eq!(partitions[0]["name"], "first one");
        }

        let system = &value["system"];
        assert_eq!((&system["root"], &system["packages"]), (&2.into(), &2.into()));
        assert_eq!((&system["hostname"], &system["architecture"]), (&"stranger".into(), &"arm64".into()));
        assert_eq!(system["release"]["pretty_name"], "Foreign \u{1b}[31m 1");
        let kernels: Vec<&Value> =
            system["kernels"].as_array().unwrap().iter().map(|one| &one["path"]).collect();
        assert_eq!(kernels, ["/boot/vmlinuz-6.12.1-v8", "/boot/firmware/kernel8.img"]);
        assert_eq!(system["modules"], serde_json::json!(["6.12.1-v8"]));
        assert_eq!((&system["manifest"], &system["notes"]), (&Value::Null, &serde_json::json!([])));

        let shown = text(&["inspect", at]);
        assert!(!shown.contains('\x1b') && shown.contains("Foreign \\u{1b}[31m 1"), "{shown}");
        assert!(shown.contains("FAT16, FIRMWARE, UUID CAFE-0123"), "{shown}");
        assert!(shown.contains("not read    btrfs, which hardtack"), "{shown}");
    }
}

#[test]
fn files_are_listed_and_printed() {
    let directory = tempfile::tempdir().unwrap();
    let image = foreign(directory.path(), "dos");
    let at = |rest: &str| format!("{}{rest}", image.to_str().unwrap());
    let lines = |arguments: &[&str]| text(arguments).lines().map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(lines(&["ls", &at("")]), ["boot", "etc", "lib", "lost+found", "srv", "usr", "var"]);
    assert_eq!(lines(&["ls", &at("")]), lines(&["ls", &at(":/")]));
    let boot = ["A rather long name.txt", "config.txt", "kernel8.img"];
    assert_eq!(lines(&["ls", &at(":/boot/firmware")]), boot, "what is mounted hides what is below");
    assert_eq!(lines(&["ls", &at(":1")]), boot);
    assert_eq!(lines(&["ls", &at(":2:/boot/firmware")]), ["hidden"]);
    assert_eq!(lines(&["ls", &at(":/lib")]), ["modules", "os-release"], "a link to a directory is followed");
    assert_eq!(lines(&["ls", &at(":/srv")]), ["a\\u{1b}[2J\\nb\\xff", "large"]);
    let all = lines(&["ls", &at(":/usr"), "-R"]);
    assert_eq!(all, ["/usr/lib", "/usr/lib/modules", "/usr/lib/modules/6.12.1-v8", "/usr/lib/os-release"]);
    let long = text(&["ls", &at(":/etc/dangling"), "-l"]);
    assert!(long.starts_with("lrwxrwxrwx ") && long.ends_with(" dangling -> nowhere\n"), "{long}");
    let value = json(&["ls", &at(":/srv"), "--json"]);
    assert_eq!(value["entries"][0]["path_hex"], "7372762f611b5b324a0a62ff");
    assert_eq!(value["entries"][1]["size"], 3_000_001);
    assert_eq!(value["entries"][1]["path"], "/srv/large");

    assert_eq!(answer(&["cat", &at(":/srv/large")]), noise(3_000_001));
    assert_eq!(text(&["cat", &at(":1:/config.txt")]), "arm_64bit=1\n");
    assert_eq!(text(&["cat", &at(":etc/config")]), "arm_64bit=1\n", "a link into the boot partition");
    assert!(text(&["cat", &at(":/etc/os-release")]).ends_with("ID=foreign\n"));
    let mut odd = at(":/srv/").into_bytes();
    odd.extend(b"a\x1b[2J\nb\xff");
    assert_eq!(hardtack(&[OsStr::new("cat"), OsStr::from_bytes(&odd)]).stdout, b"odd");
}

#[test]
fn our_own_image_is_read_back() {
    let directory = tempfile::tempdir().unwrap();
    let time = Timestamp::seconds(1_795_431_116);
    let path = |text: &str| TreePath::new(text).unwrap();
    let manifest = r#"{"format": 1, "hardtack": "0.1.0", "profile": "office", "description": "", "lock": "LOCK",
        "epoch": 0, "suite": "trixie", "architecture": "arm64", "boards": ["pi4"],
        "ports": [{"name": "smb", "port": "445", "protocol": "tcp", "scope": "lan"}],
        "units": {"enable": [], "mask": []}, "accounts": [], "overlays": [], "packages": []}"#;
    let manifest = manifest.replace("LOCK", &Sha256::of(b"lock").to_string());
    for table in [TableKind::Mbr, TableKind::Gpt, TableKind::HybridGpt] {
        let (mut boot, mut root) = (Tree::new(time), Tree::new(time));
        boot.put_file(&path("config.txt"), 0o755, time, "arm_64bit=1\n").unwrap();
        boot.put_file(&path("vmlinuz-6.12.0"), 0o755, time, noise(100_000)).unwrap();
        root.put_file(&path("usr/lib/os-release"), 0o644, time, "PRETTY_NAME='Debian 13'\n").unwrap();
        // Nothing mounts the boot partition: it is where the directory for it is.
        root.put(&path("boot/firmware"), Default::default(), Kind::Directory(Default::default())).unwrap();
        root.put_file(&path("usr/share/hardtack/manifest.json"), 0o644, time, manifest.as_str()).unwrap();
        let align = Bytes::mib(4);
        let size = ImageSize::Auto { margin: Bytes::mib(8) };
        let spec = Spec { table, align, boot: Bytes::mib(40), size, ..Spec::default() };
        let contents = Contents::new(&boot, &root);
        let identity = Identity::from_digest(&Sha256::of(b"lock"));
        let planned = plan(&contents, &spec, &identity, time).unwrap();
        let file = directory.path().join("12:30.img");
        let cancel = AtomicBool::new(false);
        to_file(&planned, &file, Watch { progress: &mut |_, _| {}, cancel: &cancel }).unwrap();
        let at = |rest: &str| format!("{}{rest}", file.to_str().unwrap());

        let value = json(&["inspect", &at(""), "--json"]);
        let [boot_id, root_id] = identity.partuuids(table);
        let partuuid = |index: usize| value["partitions"][index]["partuuid"].clone();
        assert_eq!((partuuid(0), partuuid(1)), (boot_id.into(), root_id.into()));
        assert_eq!(value["partitions"][0]["filesystem"]["label"], "bootfs");
        assert_eq!(value["table"]["hybrid"], table == TableKind::HybridGpt);
        assert_eq!(value["system"]["manifest"]["ports"][0]["port"], "445");
        assert_eq!(value["system"]["kernels"][0]["version"], "6.12.0");
        assert_eq!(value["system"]["packages"], Value::Null, "there is no dpkg in it");
        let shown = text(&["inspect", &at("")]);
        assert!(shown.contains("profile  office\n") && shown.contains("445/tcp lan (smb)"), "{shown}");
        assert_eq!(text(&["cat", &at(":/boot/firmware/config.txt")]), "arm_64bit=1\n");
        assert_eq!(answer(&["cat", &at(":1:vmlinuz-6.12.0")]), noise(100_000));
        fs::remove_file(&file).unwrap();
    }
}

#[test]
fn wrong_inputs_are_exit_code_1_and_say_what_is_wrong() {
    let directory = tempfile::tempdir().unwrap();
    let image = foreign(directory.path(), "dos");
    let at = |rest: &str| format!("{}{rest}", image.to_str().unwrap());
    let file = |name: &str, bytes: &[u8]| {
        fs::write(directory.path().join(name), bytes).unwrap();
        directory.path().join(name).to_str().unwrap().to_owned()
    };
    let check = |arguments: &[&str], expected: &str| {
        let said = refused(arguments);
        assert!(said.contains(expected), "{arguments:?}: {said}");
    };
    check(&["inspect", "/nonexistent/a.img"], "cannot open `/nonexistent/a.img`: No such file");
    check(&["ls", "/nonexistent/a.img:/etc"], "cannot open `/nonexistent/a.img`: No such file");
    check(&["inspect", directory.path().to_str().unwrap()], "neither a file nor a block device");
    check(&["inspect", &file("text", &[b'x'; 5000])], "is no disk image");
    check(&["inspect", &file("empty", b"")], "too short");
    check(&["inspect", &file("a.img.xz", b"\xfd7zXZ\0rest of it")], "compressed (xz)");
    check(&["cat", &at("")], "no file is named");
    check(&["cat", &at(":/etc")], "/etc is a directory, not a file");
    check(&["cat", &at(":/etc/nothing")], "/etc/nothing: no such file or directory");
    check(&["ls", &at(":/etc/hostname/x")], "no such file or directory");
    check(&["cat", &at(":/etc/round")], "too many symbolic links");
    check(&["cat", &at(":/../etc/fstab")], "leaves its directory");
    check(&["ls", &at(":9:/")], "there is no partition 9; the image has 1, 2, 3");
    check(
        &["ls", &at(":3:/")],
        "cannot read partition 3: btrfs, which hardtack recognises but does not read",
    );
    let mut luks = vec![0; 1 << 20];
    luks[..6].copy_from_slice(b"LUKS\xba\xbe");
    check(&["ls", &file("luks.img", &luks)], "LUKS, which hardtack recognises");

    let short = fs::OpenOptions::new().write(true).open(&image).unwrap();
    short.set_len(ROOT_AT + 1000).unwrap();
    check(&["inspect", &at("")], "is cut off: partition 2 ends at 21.0 MiB, the file at 9.0 MiB");
}

#[test]
fn damage_is_shown_beside_what_is_sound() {
    let directory = tempfile::tempdir().unwrap();
    let image = foreign(directory.path(), "dos");
    let at = image.to_str().unwrap();
    // A checksummed byte of the superblock.
    let file = fs::OpenOptions::new().write(true).open(&image).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, b"\xff", ROOT_AT + 1024 + 0x60 + 3).unwrap();
    let output = hardtack(&["inspect", at].map(OsStr::new));
    let shown = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "features that are not known are no damage: {shown}");
    assert!(shown.contains("unsupported: incompatible features"), "{shown}");
    std::os::unix::fs::FileExt::write_all_at(&file, b"\0", ROOT_AT + 1024 + 0x60 + 3).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, b"\xff", ROOT_AT + 1024 + 0x3fc).unwrap();
    let output = hardtack(&["inspect", at].map(OsStr::new));
    let shown = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(1), "{shown}");
    assert!(shown.contains("FAT16, FIRMWARE") && shown.contains("NOT READ"), "{shown}");
    assert!(shown.contains("No system: cannot read partition 2: corrupt filesystem: superblock"), "{shown}");
    assert_eq!(text(&["cat", &format!("{at}:1:/config.txt")]), "arm_64bit=1\n");
}

/// An image with one byte changed, and cut off.
struct Damaged {
    bytes: Arc<Vec<u8>>,
    at: u64,
    mask: u8,
    len: u64,
}

impl ReadAt for Damaged {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        if offset.checked_add(buffer.len() as u64).is_none_or(|end| end > self.len) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.bytes.read_exact_at(buffer, offset)?;
        let index = self.at.checked_sub(offset).and_then(|index| usize::try_from(index).ok());
        if let Some(byte) = index.and_then(|index| buffer.get_mut(index)) {
            *byte ^= self.mask;
        }
        Ok(())
    }
}

/// Everything the commands do, but printing.
fn look(damaged: Damaged) -> Result<(), InspectError> {
    let len = Bytes(damaged.len);
    let image = of_source(Path::new("a.img"), Arc::new(damaged), len)?;
    let _ = image.system();
    let tree = image.files(Part::System)?;
    for (_, id) in tree.walk() {
        if let Kind::File(content) = &tree.node(id).kind
            && content.len() < 10_000
        {
            let _ = content.read_to_vec(10_000);
        }
    }
    Ok(())
}

#[test]
fn damaged_images_never_panic() {
    for label in ["dos", "gpt"] {
        let directory = tempfile::tempdir().unwrap();
        let bytes = Arc::new(fs::read(foreign(directory.path(), label)).unwrap());
        let look = |at, mask, len| look(Damaged { bytes: bytes.clone(), at, mask, len });
        look(0, 0, SIZE).unwrap();
        let mut refused = 0;
        // The tables, the boot sector, the FAT and its root directory, the superblock and what follows it.
        let places = (440..512)
            .chain((512..1200).step_by(7))
            .chain(BOOT_AT..BOOT_AT + 64)
            .chain((BOOT_AT + 512..BOOT_AT + 90_000).step_by(997))
            .chain((ROOT_AT + 1024..ROOT_AT + 2048).step_by(3))
            .chain((ROOT_AT + 2048..ROOT_AT + 400_000).step_by(1999));
        for at in places {
            for mask in [0x01, 0x80, 0xff] {
                refused += u32::from(look(at, mask, SIZE).is_err());
            }
        }
        assert!(refused > 100, "damage was found {refused} times only");
        for len in (0..4096).step_by(511).chain((4096..SIZE).step_by(777_777)) {
            let outcome = look(0, 0, len);
            assert!(outcome.is_err() || len > THIRD_AT, "cut at {len}");
        }
    }
}
