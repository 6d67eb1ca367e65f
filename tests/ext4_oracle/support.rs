//! What the tests share: images on disk, the judges, trees to write.

use hardtack::content::{Content, Piece, ReadAt};
use hardtack::format::entry::{Device, Entry, EntryKind};
use hardtack::format::ext4::{Error, InodeCount, Journal, Parameters, Plan, plan};
use hardtack::format::sink::Sink;
use hardtack::meta::{Meta, Timestamp, Xattrs};
use hardtack::units::Bytes;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;

pub const UUID: &str = "01234567-89ab-cdef-0123-456789abcdef";
pub const UUID_BYTES: [u8; 16] =
    [1, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef, 1, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef];

pub fn parameters(size: Bytes) -> Parameters {
    let mut label = [0; 16];
    label[..6].copy_from_slice(b"rootfs");
    Parameters {
        size,
        uuid: UUID_BYTES,
        hash_seed: UUID_BYTES,
        label,
        time: Timestamp::seconds(1_790_000_000),
        inodes: InodeCount::Auto,
        reserved_percent: 5,
        journal: Journal::Auto,
    }
}

/// An image in a directory of its own, removed with it.
pub struct Image {
    pub directory: tempfile::TempDir,
    pub path: PathBuf,
}

impl Image {
    pub fn write(plan: &Plan<'_>) -> Self {
        let image = Self::empty();
        let file = File::create(&image.path).unwrap();
        file.set_len(plan.size().0).unwrap();
        let mut sink = FileSink { file, end: 0, used: plan.used().collect() };
        plan.write(&mut sink).unwrap();
        image
    }

    pub fn empty() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("image");
        Self { directory, path }
    }

    pub fn of(entries: &[Entry], parameters: &Parameters) -> Self {
        Self::write(&plan(entries, parameters).unwrap_or_else(|error| panic!("{error}")))
    }

    /// Changes one byte, to see a judge object.
    pub fn flip(&self, offset: u64) {
        let file = File::options().read(true).write(true).open(&self.path).unwrap();
        let mut byte = [0];
        FileExt::read_exact_at(&file, &mut byte, offset).unwrap();
        file.write_all_at(&[byte[0] ^ 0x10], offset).unwrap();
    }

    pub fn assert_clean(&self, about: &str) {
        let output = judge("e2fsck", &["-fn"], &self.path);
        assert!(output.status.success(), "{about}: {}", text(&output));
        // Exit code 0 also with remarks such as "extent tree could be narrower": none of these either.
        let remarks: Vec<&str> = std::str::from_utf8(&output.stdout)
            .unwrap()
            .lines()
            .filter(|line| !line.starts_with("Pass ") && !line.contains(" files ("))
            .collect();
        assert!(remarks.is_empty(), "{about}: {}", text(&output));
    }
}

/// Keeps the promise of [`Sink`] honest: offsets ascend, and nothing is written outside of what the plan calls used.
struct FileSink {
    file: File,
    end: u64,
    used: Vec<std::ops::Range<u64>>,
}

impl Sink for FileSink {
    fn copy(&mut self, offset: u64, content: &Content, at: u64, len: u64) -> io::Result<()> {
        // Gigabytes are [`Zeros`], and need not be written.
        if content.len() < 1 << 30 {
            return Plain(self).copy(offset, content, at, len);
        }
        assert!(offset >= self.end && at + len <= content.len());
        self.end = offset + len;
        Ok(())
    }

    fn bytes(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        assert!(offset >= self.end, "offset {offset} after {}", self.end);
        self.end = offset + bytes.len() as u64;
        let run = self.used.partition_point(|run| run.end <= offset);
        assert!(self.used[run].start <= offset && self.end <= self.used[run].end, "unused block at {offset}");
        self.file.write_all_at(bytes, offset)
    }
}

/// Copies as [`Sink`] does on its own.
struct Plain<'s>(&'s mut FileSink);

impl Sink for Plain<'_> {
    fn bytes(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.0.bytes(offset, bytes)
    }
}

pub fn judge(tool: &str, arguments: &[&str], path: &Path) -> Output {
    let output = Command::new(tool).args(arguments).arg(path).env("LC_ALL", "C").output();
    output.unwrap_or_else(|error| panic!("{tool}: {error}: install e2fsprogs and mount"))
}

pub fn succeed(tool: &str, arguments: &[&str], path: &Path) -> String {
    let output = judge(tool, arguments, path);
    assert!(output.status.success(), "{tool} {arguments:?}: {}", text(&output));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

pub fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// Same numbers on every machine: splitmix64.
pub struct Random(pub u64);

impl Random {
    pub fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ z >> 31) % limit
    }

    pub fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.below(256) as u8).collect()
    }

    /// A name of any bytes but NUL and slash.
    pub fn name(&mut self, len: usize) -> Vec<u8> {
        (0..len)
            .map(|_| match self.below(254) as u8 + 1 {
                b'/' => 255,
                byte => byte,
            })
            .collect()
    }
}

pub fn entry(path: impl AsRef<[u8]>, kind: EntryKind) -> Entry {
    let mode = if matches!(kind, EntryKind::Directory) { 0o755 } else { 0o644 };
    let meta = Meta::root(mode, Timestamp { seconds: 1_700_000_000, nanoseconds: 123_456_789 });
    Entry { path: path.as_ref().to_vec(), meta, kind, layer: 0 }
}

pub fn directory(path: impl AsRef<[u8]>) -> Entry {
    entry(path, EntryKind::Directory)
}

pub fn file(path: impl AsRef<[u8]>, bytes: &[u8]) -> Entry {
    entry(path, EntryKind::File(Content::inline(bytes)))
}

/// A file with `len` bytes of data at each of these offsets.
pub fn sparse(size: u64, len: u64, offsets: impl Iterator<Item = u64>) -> Content {
    let source: Arc<dyn ReadAt> = Arc::new((0..len).map(|at| (at % 251) as u8).collect::<Vec<u8>>());
    let pieces = offsets.map(|at| Piece { at, len, source: source.clone(), offset: 0 }).collect();
    Content::sparse(size, pieces).unwrap()
}

/// Zeros without end, as data and not as a hole.
pub struct Zeros;

impl ReadAt for Zeros {
    fn read_exact_at(&self, buffer: &mut [u8], _: u64) -> io::Result<()> {
        buffer.fill(0);
        Ok(())
    }
}

/// A tree of about `size` entries with a bit of everything, in several layers.
pub fn random_tree(random: &mut Random, size: u64) -> Vec<Entry> {
    let mut entries = vec![directory("")];
    let mut directories = vec![0];
    for number in 0..size {
        let above = directories[random.below(directories.len() as u64) as usize];
        let longest = if random.below(8) == 0 { 240 } else { 20 };
        let len = 1 + random.below(longest) as usize;
        let mut name = random.name(len);
        name.extend_from_slice(format!("~{number}").as_bytes());
        let above: &[u8] = &entries[above].path;
        let path = if above.is_empty() { name } else { [above, b"/", &name].concat() };
        let kind = match random.below(16) {
            0..2 => {
                directories.push(entries.len());
                EntryKind::Directory
            }
            2 => {
                let len = [1, 58, 59, 60, 61, 4095][random.below(6) as usize];
                EntryKind::Symlink(vec![b'x'; len])
            }
            3 => EntryKind::CharDevice(random_device(random)),
            4 => EntryKind::BlockDevice(random_device(random)),
            5 => EntryKind::Fifo,
            6 => EntryKind::Socket,
            7 => {
                let runs = 1 + random.below(400);
                let step = 4096 * (1 + random.below(5));
                EntryKind::File(sparse(runs * step + random.below(5000), 4096, (0..runs).map(|at| at * step)))
            }
            8..10 => {
                let target = random.below(entries.len() as u64) as usize;
                match entries[target].kind {
                    EntryKind::Directory | EntryKind::HardLink(_) => EntryKind::Fifo,
                    _ => EntryKind::HardLink(target),
                }
            }
            _ => {
                let len = [0, 1, 4095, 4096, 4097, random.below(200_000) as usize][random.below(6) as usize];
                EntryKind::File(Content::inline(random.bytes(len)))
            }
        };
        let mut xattrs = Xattrs::new();
        for attribute in 0..random.below(12).saturating_sub(8) {
            let namespace = match random.below(3) {
                0 => "security.",
                // The kernel hides `user.` attributes of anything else.
                1 if matches!(kind, EntryKind::File(_) | EntryKind::Directory) => "user.",
                _ => "trusted.",
            };
            let name = format!("{namespace}{}{attribute}", "n".repeat(random.below(30) as usize));
            let len = [0, 1, 40, 200, 900][random.below(5) as usize];
            xattrs.insert(name.into_bytes(), random.bytes(len));
        }
        let meta = Meta {
            mode: random.below(0o10000) as u16,
            uid: random.below(1 << 32) as u32,
            gid: random.below(100_000) as u32,
            mtime: Timestamp {
                seconds: random.below(3 << 32) as i64 - (1 << 31),
                nanoseconds: random.below(1_000_000_000) as u32,
            },
            xattrs,
        };
        entries.push(Entry { path, meta, kind, layer: random.below(4) as u16 });
    }
    entries
}

fn random_device(random: &mut Random) -> Device {
    let major = random.below(4096) as u32 >> random.below(12);
    let minor = random.below(1 << 20) as u32 >> random.below(20);
    Device { major, minor }
}

/// Plans with these parameters, or with the size the error names if they are too small.
pub fn plan_or_grow<'a>(entries: &'a [Entry], parameters: &mut Parameters) -> Plan<'a> {
    match plan(entries, parameters) {
        Ok(plan) => plan,
        Err(Error::TooSmall { needed, .. }) => {
            parameters.size = needed;
            plan(entries, parameters).unwrap_or_else(|error| panic!("what was said to be enough: {error}"))
        }
        Err(error) => panic!("{error}"),
    }
}
