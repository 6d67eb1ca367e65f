//! Partition tables judged by `sfdisk` and `sgdisk`, and disks they made read back.
#![expect(clippy::disallowed_methods, reason = "reference tools are the judges")]

use hardtack::content::ReadAt;
use hardtack::format::disk::{self, FilesystemKind, PartitionKind, Table};
use hardtack::format::{gpt, mbr};
use hardtack::units::Bytes;
use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

/// Runs a judge with some input; gives whether it was content, and what it said on both streams.
fn judge(program: &str, package: &str, arguments: &[&str], input: &str) -> (bool, String) {
    let mut command = Command::new(program);
    command
        .args(arguments)
        .env("LC_ALL", "C")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().unwrap_or_else(|error| panic!("{program}: {error}; install {package}"));
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&text).into_owned())
}

fn blank(directory: &Path, name: &str, sectors: u64) -> PathBuf {
    let path = directory.join(name);
    File::create(&path).unwrap().set_len(sectors * 512).unwrap();
    path
}

fn by_sfdisk(directory: &Path, sectors: u64, script: &str) -> PathBuf {
    let path = blank(directory, "theirs", sectors);
    let (content, said) = judge("sfdisk", "fdisk", &["-q", path.to_str().unwrap()], script);
    assert!(content, "{said}");
    path
}

fn open(path: &Path) -> Result<disk::Disk, disk::DiskError> {
    let file = File::open(path).unwrap();
    let len = Bytes(file.metadata().unwrap().len());
    disk::open(&(Arc::new(file) as Arc<dyn ReadAt>), len)
}

#[test]
fn an_mbr_is_byte_for_byte_what_sfdisk_writes() {
    let directory = tempfile::tempdir().unwrap();
    let one = |number, kind, bootable, sectors| mbr::Partition { number, kind, bootable, sectors };
    for (disk, partitions) in [
        (6 << 20, vec![one(1, 0x0c, false, 16_384..1_064_960), one(2, 0x83, false, 1_064_960..6 << 20)]),
        // Around cylinder 1023 (sector 16,450,560), where addresses by cylinder end, and four of them.
        (
            20 << 20,
            vec![
                one(1, 0x0c, true, 2048..2109),
                one(2, 0x83, false, 16_065..32_130),
                one(3, 0x83, false, 16_450_000..16_450_560),
                one(4, 0x82, false, 16_450_560..16_450_561),
            ],
        ),
    ] {
        let mut script = "label: dos\nlabel-id: 0x12345678\n".to_owned();
        for partition in &partitions {
            let bootable = if partition.bootable { ", bootable" } else { "" };
            let (start, end) = (partition.sectors.start, partition.sectors.end);
            script += &format!("start={start}, size={}, type={:x}{bootable}\n", end - start, partition.kind);
        }
        let theirs = by_sfdisk(directory.path(), disk, &script);
        let mut sector = [0; 512];
        ReadAt::read_exact_at(&File::open(&theirs).unwrap(), &mut sector, 0).unwrap();
        let ours = mbr::write(0x1234_5678, &partitions, disk).unwrap();
        assert_eq!(ours[440..], sector[440..]);
        let path = blank(directory.path(), "ours", disk);
        File::options().write(true).open(&path).unwrap().write_all_at(&ours, 0).unwrap();
        let (content, said) = judge("sfdisk", "fdisk", &["--verify", path.to_str().unwrap()], "");
        assert!(content && said.contains("No errors detected"), "{said}");
    }
}

#[test]
fn logical_partitions_of_sfdisk_are_read() {
    let directory = tempfile::tempdir().unwrap();
    let script = "label: dos\nlabel-id: 0xa1b2c3d4\n\
        start=8192, size=1048576, type=c\nstart=1056768, size=400000, type=f\n\
        start=1058816, size=2048, type=83\nstart=1062912, size=4096, type=82\nstart=1300000, size=8, type=83\n";
    let disk = open(&by_sfdisk(directory.path(), 4 << 20, script)).unwrap();
    assert_eq!(disk.table, Table::Mbr { signature: 0xa1b2_c3d4 });
    let found: Vec<_> = disk
        .partitions
        .iter()
        .map(|one| (&one.partuuid[..], one.start.0 / 512, one.len.0 / 512, one.kind))
        .collect();
    let kind = PartitionKind::Mbr;
    let expected = [
        ("a1b2c3d4-01", 8192, 1_048_576, kind(0x0c)),
        ("a1b2c3d4-02", 1_056_768, 400_000, kind(0x0f)),
        ("a1b2c3d4-05", 1_058_816, 2048, kind(0x83)),
        ("a1b2c3d4-06", 1_062_912, 4096, kind(0x82)),
        ("a1b2c3d4-07", 1_300_000, 8, kind(0x83)),
    ];
    assert_eq!(found, expected);
}

fn gpt_partitions() -> Vec<gpt::Partition> {
    let one = |number: u8, kind, sectors, name: &str| gpt::Partition {
        number: number.into(),
        kind,
        guid: gpt::Guid([number * 17; 16]),
        sectors,
        name: name.into(),
    };
    vec![
        one(1, gpt::BASIC_DATA, 16_384..1_064_960, "bootfs"),
        one(2, gpt::LINUX, 1_064_960..4_194_304, "rootfs"),
    ]
}

fn write_gpt(directory: &Path, hybrid: bool) -> PathBuf {
    let sectors = 4_210_688;
    let path = blank(directory, "gpt", sectors);
    let (head, tail) = gpt::write(gpt::Guid([0xab; 16]), &gpt_partitions(), sectors, hybrid).unwrap();
    let file = File::options().write(true).open(&path).unwrap();
    file.write_all_at(&head, 0).unwrap();
    file.write_all_at(&tail, sectors * 512 - tail.len() as u64).unwrap();
    path
}

#[test]
fn a_gpt_has_no_problems_for_sgdisk_and_sfdisk() {
    let directory = tempfile::tempdir().unwrap();
    for hybrid in [false, true] {
        let path = write_gpt(directory.path(), hybrid);
        let text = path.to_str().unwrap();
        let (content, said) = judge("sgdisk", "gdisk", &["-v", text], "");
        assert!(content && said.contains("No problems found"), "{said}");
        let (content, said) = judge("sfdisk", "fdisk", &["--verify", text], "");
        assert!(content && said.contains("No errors detected"), "{said}");
        let (content, said) = judge("sfdisk", "fdisk", &["-d", text], "");
        assert!(content);
        for line in [
            "label: gpt",
            "label-id: ABABABAB-ABAB-ABAB-ABAB-ABABABABABAB",
            "start=       16384, size=     1048576, type=EBD0A0A2-B9E5-4433-87C0-68B6B72699C7, \
             uuid=11111111-1111-1111-1111-111111111111, name=\"bootfs\"",
            "start=     1064960, size=     3129344, type=0FC63DAF-8483-4772-8E79-3D69D8477DE4, \
             uuid=22222222-2222-2222-2222-222222222222, name=\"rootfs\"",
        ] {
            assert!(said.contains(line), "{line} not in {said}");
        }
        let disk = open(&path).unwrap();
        assert_eq!(disk.table, Table::Gpt { guid: gpt::Guid([0xab; 16]), hybrid, damaged: None });
        assert_eq!(disk.partitions[1].partuuid, "22222222-2222-2222-2222-222222222222");
        if hybrid {
            let mut sector = [0; 512];
            ReadAt::read_exact_at(&File::open(&path).unwrap(), &mut sector, 0).unwrap();
            // The protective record ends where the boot partition starts.
            assert_eq!(sector[446 + 4], 0xee);
            assert_eq!(sector[446 + 8..446 + 16], [1, 0, 0, 0, 0xff, 0x3f, 0, 0]);
            assert_eq!(sector[462 + 4], 0x0c);
        }
    }
}

#[test]
fn the_judges_see_damage() {
    let directory = tempfile::tempdir().unwrap();
    let path = write_gpt(directory.path(), false);
    let file = File::options().write(true).open(&path).unwrap();
    file.write_all_at(&[0x55], 1024 + 60).unwrap();
    let (_, said) = judge("sgdisk", "gdisk", &["-v", path.to_str().unwrap()], "");
    assert!(!said.contains("No problems found"), "{said}");
    assert!(open(&path).is_err());
}

#[test]
fn filesystems_made_by_their_own_tools_are_recognised() {
    let directory = tempfile::tempdir().unwrap();
    let uuid = "01234567-89ab-cdef-0123-456789abcdef";
    let ext = |kind| vec!["-q", "-t", kind, "-L", "rootfs", "-U", uuid];
    for (program, package, arguments, kind, label, id) in [
        ("mke2fs", "e2fsprogs", ext("ext2"), FilesystemKind::Ext2, "rootfs", uuid),
        ("mke2fs", "e2fsprogs", ext("ext3"), FilesystemKind::Ext3, "rootfs", uuid),
        ("mke2fs", "e2fsprogs", ext("ext4"), FilesystemKind::Ext4, "rootfs", uuid),
        ("mkswap", "util-linux", vec!["-L", "s", "-U", uuid], FilesystemKind::Swap, "s", uuid),
        (
            "mkfs.vfat",
            "dosfstools",
            vec!["-F", "32", "-n", "BOOT", "-i", "12345678"],
            FilesystemKind::Fat32,
            "BOOT",
            "1234-5678",
        ),
    ] {
        let path = blank(directory.path(), "filesystem", 100_000);
        let arguments: Vec<&str> = arguments.into_iter().chain([path.to_str().unwrap()]).collect();
        let (content, said) = judge(program, package, &arguments, "");
        assert!(content, "{said}");
        let disk = open(&path).unwrap();
        assert_eq!(disk.table, Table::None);
        let found = disk.partitions[0].filesystem.clone().unwrap();
        assert_eq!((found.kind, &found.label[..], &found.uuid[..]), (kind, label, id));
    }
}
