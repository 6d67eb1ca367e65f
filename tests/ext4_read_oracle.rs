//! The ext4 reader against the kernel: what a mounted image shows, entry by entry. Needs root for the loop mounts.

#[path = "support/walk.rs"]
mod walk;

use hardtack::format::ext4::read::{Filesystem, ReadError};
use hardtack::tree::Tree;
use hardtack::tree::dump::dump;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

#[expect(clippy::disallowed_methods, reason = "judges are other programs")]
fn run(program: &str, arguments: &[&str]) {
    let output = Command::new(program).args(arguments).output();
    let output = output.unwrap_or_else(|error| {
        panic!("{program} is needed (apt install e2fsprogs mount attr acl): {error}")
    });
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Makes an image with mke2fs, lets the kernel fill it, and gives what the kernel then shows.
fn image(directory: &Path, options: &[&str]) -> (PathBuf, String) {
    let (image, mount) = (directory.join("image"), directory.join("mount"));
    File::create(&image).unwrap().set_len(96 << 20).unwrap();
    std::fs::create_dir(&mount).unwrap();
    let (image_text, mount_text) = (image.to_str().unwrap(), mount.to_str().unwrap());
    run("mke2fs", &[&["-q", "-F", "-L", "rootfs"], options, &[image_text]].concat());
    run("mount", &["-o", "loop,user_xattr,acl", image_text, mount_text]);
    let script = r#"
        set -e; cd "$1"
        mkdir -p deep/er many; mkdir -m 2755 setgid
        i=0; while [ $i -lt 3000 ]; do : > "many/file with a rather long name number $i"; i=$((i+1)); done
        head -c 100000 /dev/urandom > random; head -c 40 /dev/urandom > tiny; : > empty
        printf 'x' | dd of=sparse bs=1 seek=30000000 status=none; printf 'y' | dd of=sparse bs=1 seek=70000 conv=notrunc status=none
        ln -s "$(printf %059d 0)" short; ln -s "$(printf %060d 0)" long; ln -s "$(printf %0900d 0)" longer
        ln random deep/hard; ln random deep/er/hard
        mknod null c 1 3; mknod big c 259 70000; mknod disk b 8 1; mkfifo fifo
        chown 100001:70000 tiny; chmod 4755 tiny; touch -h -d '1969-12-31 23:59:58.5Z' short; touch -d '2077-01-02 03:04:05.678901234Z' random
        printf 'n' > "$(printf 'not\377utf8')"; printf 'l' > "$(printf %0255d 1)"
        i=0; while [ $i -lt 1200 ]; do printf 'z' | dd of=holes bs=1 seek=$((i*9000)) conv=notrunc status=none; i=$((i+1)); done
        fallocate -l 300000 unwritten || true; fallocate -n -l 900000 tiny || true
    "#;
    run("sh", &["-c", script, "sh", mount_text]);
    let set = |path: &str, name: &str, value: &[u8]| {
        rustix::fs::lsetxattr(mount.join(path), name, value, rustix::fs::XattrFlags::empty()).unwrap();
    };
    set("random", "user.note", b"hello");
    set("deep", "user.big", &[7; 700]);
    set("longer", "trusted.link", b"t");
    set("tiny", "security.capability", &[1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    // An access control list: owner, user 7, group, mask, others (linux/posix_acl_xattr.h).
    let entry = |tag: u16, permissions: u16, id: u32| {
        [&tag.to_le_bytes()[..], &permissions.to_le_bytes(), &id.to_le_bytes()].concat()
    };
    let none = u32::MAX;
    let list = [
        2u32.to_le_bytes().to_vec(),
        entry(1, 6, none),
        entry(2, 4, 7),
        entry(4, 4, none),
        entry(16, 4, none),
        entry(32, 4, none),
    ];
    set("empty", "system.posix_acl_access", &list.concat());
    set("deep", "system.posix_acl_default", &list.concat());
    run("sync", &["-f", mount_text]);
    let shown = dump(&walk::walk(&mount)).unwrap();
    run("umount", &[mount_text]);
    (image, shown)
}

fn read(path: &Path) -> Result<String, ReadError> {
    let file = File::open(path).unwrap();
    let len = file.metadata().unwrap().len();
    let entries = Filesystem::open(Arc::new(file), 0, len)?.entries()?;
    Ok(dump(&Tree::from_entries(entries).unwrap()).unwrap())
}

#[test]
fn every_entry_is_what_the_kernel_shows() {
    for options in [
        &["-t", "ext4"][..],
        &["-t", "ext4", "-O", "^64bit,^huge_file"],
        &["-t", "ext4", "-b", "1024", "-I", "128"],
        &["-t", "ext4", "-O", "inline_data"],
        &["-t", "ext4", "-O", "^metadata_csum,uninit_bg,^resize_inode,meta_bg", "-g", "8192"],
        &["-t", "ext4", "-O", "metadata_csum_seed,^flex_bg"],
        &["-t", "ext3"],
        &["-t", "ext2", "-b", "2048"],
    ] {
        let directory = tempfile::tempdir().unwrap();
        let (image, shown) = image(directory.path(), options);
        let found = read(&image).unwrap_or_else(|error| panic!("{options:?}: {error}"));
        for (shown, found) in shown.lines().zip(found.lines()) {
            assert_eq!(shown, found, "{options:?}");
        }
        assert_eq!(shown.lines().count(), found.lines().count(), "{options:?}");
        run("e2fsck", &["-fn", image.to_str().unwrap()]);
    }
}

#[test]
fn a_journal_that_must_be_replayed_is_refused_by_name() {
    let directory = tempfile::tempdir().unwrap();
    let image = directory.path().join("image");
    File::create(&image).unwrap().set_len(16 << 20).unwrap();
    run("mke2fs", &["-q", "-F", "-t", "ext4", image.to_str().unwrap()]);
    run("debugfs", &["-w", "-R", "feature needs_recovery", image.to_str().unwrap()]);
    let error = read(&image).unwrap_err();
    assert!(error.to_string().contains("journal that must be replayed"), "{error}");
}

/// A generator with a fixed seed (xorshift64*), so that a failure can be run again.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) % end
    }
}

/// Errors are fine; panics, endless loops and memory without bound are bugs.
#[test]
fn damaged_images_give_errors_and_never_panic() {
    for options in [
        &["-t", "ext4", "-O", "^metadata_csum"][..],
        &["-t", "ext4", "-O", "^metadata_csum,inline_data"],
        &["-t", "ext2"],
    ] {
        let directory = tempfile::tempdir().unwrap();
        let source = directory.path().join("source");
        std::fs::create_dir_all(source.join("a/b")).unwrap();
        for index in 0..300 {
            std::fs::write(source.join(format!("a/b/{index}")), vec![1; index * 31]).unwrap();
        }
        std::os::unix::fs::symlink("x".repeat(200), source.join("link")).unwrap();
        let image = directory.path().join("image");
        File::create(&image).unwrap().set_len(4 << 20).unwrap();
        run(
            "mke2fs",
            &[&["-q", "-F", "-d", source.to_str().unwrap()], options, &[image.to_str().unwrap()]].concat(),
        );
        let good = std::fs::read(&image).unwrap();
        // Only blocks in use are worth damaging.
        let used: Vec<usize> = (0..good.len() / 1024)
            .filter(|at| good[at * 1024..(at + 1) * 1024].iter().any(|b| *b != 0))
            .collect();
        let mut random = Random(0x5eed);
        let (mut refused, mut read) = (0, 0);
        for round in 0..1500 {
            let mut bad = good.clone();
            for _ in 0..=random.below(8) {
                let block = used[random.below(used.len() as u64) as usize];
                let at = block * 1024 + random.below(1024) as usize;
                bad[at] = if random.below(2) == 0 {
                    random.below(256) as u8
                } else {
                    bad[at] ^ 1 << random.below(8)
                };
            }
            if round % 10 == 0 {
                bad.truncate(random.below(good.len() as u64) as usize);
            }
            let len = bad.len() as u64;
            let result = Filesystem::open(Arc::new(bad), 0, len).and_then(|filesystem| filesystem.entries());
            if result.is_err() { refused += 1 } else { read += 1 }
        }
        assert!(
            refused > 100 && read > 100,
            "{refused} refused, {read} read: the damage is not where it matters"
        );
    }
}

#[test]
fn a_flipped_bit_under_a_checksum_is_found() {
    let directory = tempfile::tempdir().unwrap();
    let (image, shown) = image(directory.path(), &["-t", "ext4"]);
    assert_eq!(read(&image).unwrap(), shown);
    let good = std::fs::read(&image).unwrap();
    // The root directory's inode is the second of the first inode table; `debugfs` is asked where its block is.
    let at = (0..good.len() - 8)
        .step_by(4096)
        .find(|at| &good[at + 8..at + 10] == b".\0" && good[at + 4] == 12)
        .unwrap();
    let mut bad = good.clone();
    bad[at + 24] ^= 1;
    let len = bad.len() as u64;
    let error = Filesystem::open(Arc::new(bad), 0, len).unwrap().entries().unwrap_err();
    assert!(error.to_string().contains("checksum of directory block"), "{error}");
    let mut bad = good;
    bad[1024 + 120] ^= 1;
    let error = Filesystem::open(Arc::new(bad), 0, len).err().unwrap();
    assert!(error.to_string().contains("superblock: checksum"), "{error}");
}
