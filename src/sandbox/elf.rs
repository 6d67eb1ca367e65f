//! As much of ELF as the choice of twins needs: which machine, which loader, which libraries (System V ABI, "Dynamic Linking").

use crate::content::Content;

/// Loader and libraries of a 64-bit little-endian program or library.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Elf {
    /// `e_machine`.
    pub(super) machine: u16,
    /// PT_INTERP: programs that need a loader, and ld.so's own kin.
    pub(super) interpreter: Option<Vec<u8>>,
    /// DT_NEEDED.
    pub(super) needed: Vec<Vec<u8>>,
    /// DT_RUNPATH or DT_RPATH, split at colons.
    pub(super) run_path: Vec<Vec<u8>>,
}

const PT_LOAD: u32 = 1;
const PT_DYNAMIC: u32 = 2;
const PT_INTERP: u32 = 3;
const DT_NEEDED: u64 = 1;
const DT_STRTAB: u64 = 5;
const DT_RPATH: u64 = 15;
const DT_RUNPATH: u64 = 29;
/// Longest dynamic section looked at, in bytes: real ones have a few hundred.
const DYNAMIC: u64 = 64 << 10;

/// The machine of an ELF file, from its first 20 bytes.
pub(super) fn machine(head: &[u8; 20]) -> Option<u16> {
    head.starts_with(b"\x7fELF").then(|| u16::from_le_bytes([head[18], head[19]]))
}

impl Elf {
    /// Reads a file; `None` when it is no such ELF file, or a damaged one: then it simply is no twin.
    pub(super) fn read(content: &Content) -> Option<Self> {
        let head = bytes(content, 0, 64)?;
        // ELFCLASS64, ELFDATA2LSB; ET_EXEC or ET_DYN.
        if !head.starts_with(b"\x7fELF\x02\x01") || !matches!(half(&head, 16)?, 2 | 3) {
            return None;
        }
        let mut elf = Self { machine: half(&head, 18)?, ..Self::default() };
        let (table, size, count) = (long(&head, 32)?, half(&head, 54)?, half(&head, 56)?);
        let mut loads = Vec::new();
        let mut dynamic = None;
        for index in 0..u64::from(count.min(64)) {
            let header = bytes(content, table.checked_add(index * u64::from(size))?, 56)?;
            let (kind, offset, address, in_file) =
                (word(&header, 0)?, long(&header, 8)?, long(&header, 16)?, long(&header, 32)?);
            match kind {
                PT_LOAD => loads.push((offset, address, in_file)),
                PT_DYNAMIC => dynamic = Some((offset, in_file.min(DYNAMIC))),
                PT_INTERP => elf.interpreter = Some(text(content, offset)?),
                _ => {}
            }
        }
        let Some((offset, size)) = dynamic else { return Some(elf) };
        let section = bytes(content, offset, size as usize)?;
        let entries = section.chunks_exact(16).map_while(|entry| Some((long(entry, 0)?, long(entry, 8)?)));
        let entries: Vec<(u64, u64)> = entries.take_while(|(tag, _)| *tag != 0).collect();
        let (_, strings) = *entries.iter().find(|(tag, _)| *tag == DT_STRTAB)?;
        let (offset, address, _) =
            *loads.iter().find(|(_, at, len)| *at <= strings && strings - at < *len)?;
        let strings = offset.checked_add(strings - address)?;
        for (tag, value) in entries {
            let string = || text(content, strings.checked_add(value)?);
            match tag {
                DT_NEEDED => elf.needed.push(string()?),
                DT_RPATH | DT_RUNPATH => {
                    elf.run_path.extend(string()?.split(|byte| *byte == b':').map(<[u8]>::to_vec));
                }
                _ => {}
            }
        }
        Some(elf)
    }
}

fn bytes(content: &Content, offset: u64, len: usize) -> Option<Vec<u8>> {
    let mut bytes = vec![0; len];
    content.read_exact_at(&mut bytes, offset).ok()?;
    Some(bytes)
}

/// A NUL-terminated string of at most 255 bytes.
fn text(content: &Content, offset: u64) -> Option<Vec<u8>> {
    let len = content.len().checked_sub(offset)?.min(256) as usize;
    let bytes = bytes(content, offset, len)?;
    let end = bytes.iter().position(|byte| *byte == 0)?;
    Some(bytes[..end].to_vec())
}

fn half(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn long(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn this_test_itself_is_read_as_readelf_reads_it() {
        let program = std::env::current_exe().unwrap();
        let elf = Elf::read(&Content::inline(std::fs::read(&program).unwrap())).unwrap();
        #[expect(clippy::disallowed_methods, reason = "readelf is the judge")]
        let output = Command::new("readelf").args(["-d", "-l", "-W"]).arg(&program).output();
        let output = output.expect("install binutils");
        let output = String::from_utf8(output.stdout).unwrap();
        let needed = output.lines().filter(|line| line.contains("(NEEDED)"));
        let needed: Vec<_> =
            needed.map(|line| line.split(['[', ']']).nth(1).unwrap().as_bytes().to_vec()).collect();
        assert!(!needed.is_empty());
        assert_eq!(elf.needed, needed);
        let interpreter = String::from_utf8(elf.interpreter.unwrap()).unwrap();
        assert!(output.contains(&format!("program interpreter: {interpreter}]")), "{interpreter}");
        assert_eq!(elf.machine, super::super::twins::HOST_MACHINE);
    }

    #[test]
    fn damaged_files_are_no_twins_and_no_panic() {
        let program = std::fs::read("/proc/self/exe").unwrap();
        let head = &program[..4096];
        for at in 0..64 {
            for value in [0, 1, 0x7f, 0xff] {
                let mut damaged = head.to_vec();
                damaged[at] = value;
                // Whatever it gives: it comes back, and quickly.
                let _ = Elf::read(&Content::inline(damaged));
            }
        }
        for len in [0, 1, 19, 63, 64, 100, 200] {
            assert_eq!(Elf::read(&Content::inline(&head[..len.min(63)])), None);
            let _ = Elf::read(&Content::inline(&head[..len]));
        }
    }
}
