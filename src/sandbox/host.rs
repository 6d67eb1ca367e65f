//! What the host offers: user namespaces, ids to map, memory, the kernel's version; and exact words when something is missing.

use super::error::SandboxError;
use rustix::process::Pid;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Where things are on the host. Tests point them elsewhere.
#[derive(Clone, Debug)]
pub struct Host {
    /// The hardtack to run as the sandbox's child.
    pub program: PathBuf,
    /// `newuidmap` of Debian's package uidmap.
    pub newuidmap: PathBuf,
    /// `newgidmap`.
    pub newgidmap: PathBuf,
    /// subuid(5).
    pub subuid: PathBuf,
    /// subgid(5).
    pub subgid: PathBuf,
    /// passwd(5), for the user's name.
    pub passwd: PathBuf,
}

impl Default for Host {
    fn default() -> Self {
        let find = |name: &str| {
            let places = ["/usr/bin", "/bin", "/usr/local/bin", "/run/wrappers/bin"];
            let found = places.iter().map(|place| Path::new(place).join(name)).find(|path| path.exists());
            found.unwrap_or_else(|| Path::new("/usr/bin").join(name))
        };
        Self {
            program: "/proc/self/exe".into(),
            newuidmap: find("newuidmap"),
            newgidmap: find("newgidmap"),
            subuid: "/etc/subuid".into(),
            subgid: "/etc/subgid".into(),
            passwd: "/etc/passwd".into(),
        }
    }
}

/// Ids a Debian system needs: 0 to 65535 (policy 9.2.2).
const NEEDED: u64 = 65536;
/// Where root's sandboxes have their ids: no user or system account lives there, and nothing in the sandbox is the host's
/// root, whose mere id opens sysctls and other namespaces' files.
const OFFSET: u32 = 1 << 31;

/// One line of an id map (user_namespaces(7)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Range {
    inside: u32,
    outside: u32,
    count: u32,
}

/// The ids of a run, and who writes them.
#[derive(Debug)]
pub(super) struct Ids {
    uids: Vec<Range>,
    gids: Vec<Range>,
    tools: Option<(PathBuf, PathBuf)>,
}

impl Ids {
    /// What this user may map, or what to do about it.
    pub(super) fn plan(host: &Host) -> Result<Self, SandboxError> {
        let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        if uid == 0 {
            return Ok(Self { uids: as_root("uid")?, gids: as_root("gid")?, tools: None });
        }
        for tool in [&host.newuidmap, &host.newgidmap] {
            if !tool.exists() {
                return Err(SandboxError::NoIdTool { tool: tool.clone() });
            }
        }
        let passwd = std::fs::read(&host.passwd).unwrap_or_default();
        let user = user_name(&passwd, uid);
        let own = |file: &Path, own: u32| -> Result<Vec<Range>, SandboxError> {
            let text = match std::fs::read(file) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
                other => {
                    other.map_err(|source| SandboxError::io(format!("reading {}", file.display()), source))?
                }
            };
            let mut ranges = vec![Range { inside: 0, outside: own, count: 1 }];
            let mut next = 1u64;
            for (outside, count) in subordinate(&text, uid, user.as_deref()) {
                let count = u64::from(count).min(u64::from(u32::MAX) - next) as u32;
                if count > 0 {
                    ranges.push(Range { inside: next as u32, outside, count });
                    next += u64::from(count);
                }
            }
            if next < NEEDED {
                let user = user.clone().unwrap_or_else(|| uid.to_string());
                return Err(SandboxError::NoIds { file: file.to_owned(), user, found: next - 1 });
            }
            Ok(ranges)
        };
        let tools = Some((host.newuidmap.clone(), host.newgidmap.clone()));
        Ok(Self { uids: own(&host.subuid, uid)?, gids: own(&host.subgid, gid)?, tools })
    }

    /// The id outside that is root inside: who has to own the scratch directory.
    pub(super) fn root(&self) -> (u32, u32) {
        let root = |ranges: &[Range]| ranges.first().map_or(0, |range| range.outside);
        (root(&self.uids), root(&self.gids))
    }

    /// Gives the ids to the user namespace of a process.
    pub(super) fn write(&self, pid: Pid) -> Result<(), SandboxError> {
        let pid = pid.as_raw_nonzero();
        for (kind, ranges) in [("uid", &self.uids), ("gid", &self.gids)] {
            let Some((newuidmap, newgidmap)) = &self.tools else {
                let lines = ranges.iter().map(|r| format!("{} {} {}\n", r.inside, r.outside, r.count));
                let path = format!("/proc/{pid}/{kind}_map");
                std::fs::write(&path, lines.collect::<String>())
                    .map_err(|source| SandboxError::io(format!("writing {path}"), source))?;
                continue;
            };
            let tool = if kind == "uid" { newuidmap } else { newgidmap };
            #[expect(clippy::disallowed_methods, reason = "the sandbox starts processes")]
            let mut command = Command::new(tool);
            command.arg(pid.to_string());
            for range in ranges {
                command.args([range.inside, range.outside, range.count].map(|number| number.to_string()));
            }
            let output = command
                .output()
                .map_err(|source| SandboxError::io(format!("running {}", tool.display()), source))?;
            if !output.status.success() {
                let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
                return Err(SandboxError::IdToolFailed { tool: tool.clone(), said });
            }
        }
        Ok(())
    }
}

/// Root's own map: in the first user namespace a range far away, in a container whatever it has, one to one.
fn as_root(kind: &str) -> Result<Vec<Range>, SandboxError> {
    let path = format!("/proc/self/{kind}_map");
    let text = std::fs::read_to_string(&path)
        .map_err(|source| SandboxError::io(format!("reading {path}"), source))?;
    let ranges = root_ranges(&text);
    let covered =
        ranges.iter().map(|range| u64::from(range.inside) + u64::from(range.count)).max().unwrap_or(0);
    if covered < NEEDED {
        return Err(SandboxError::NoIds { file: path.into(), user: "root".into(), found: covered });
    }
    Ok(ranges)
}

fn root_ranges(map: &str) -> Vec<Range> {
    let lines = map.lines().filter_map(|line| {
        let mut numbers = line.split_whitespace().map(|number| number.parse::<u32>().ok());
        Some((numbers.next()??, numbers.next()??, numbers.next()??))
    });
    let mut ranges: Vec<Range> =
        lines.map(|(inside, _, count)| Range { inside, outside: inside, count }).collect();
    ranges.sort_by_key(|range| range.inside);
    if let [Range { inside: 0, count: u32::MAX, .. }] = ranges[..] {
        return vec![Range { inside: 0, outside: OFFSET, count: u32::MAX - OFFSET }];
    }
    ranges
}

/// The name of a user, from passwd(5).
fn user_name(passwd: &[u8], uid: u32) -> Option<String> {
    let text = String::from_utf8_lossy(passwd);
    let mut lines = text.lines().map(|line| line.split(':').collect::<Vec<_>>());
    let line = lines.find(|fields| fields.get(2).and_then(|id| id.parse().ok()) == Some(uid))?;
    line.first().map(|name| (*name).to_owned())
}

/// The ranges of a user, from subuid(5): by name or by number.
fn subordinate(file: &[u8], uid: u32, user: Option<&str>) -> Vec<(u32, u32)> {
    let text = String::from_utf8_lossy(file);
    let lines = text.lines().map(|line| line.trim().split(':').collect::<Vec<_>>());
    lines
        .filter_map(|fields| match fields[..] {
            [who, start, count] if Some(who) == user || who.parse() == Ok(uid) => {
                Some((start.parse().ok()?, count.parse().ok()?))
            }
            _ => None,
        })
        .collect()
}

/// Why the kernel may have refused a namespace, as far as its settings tell.
pub(super) fn refusal() -> Option<&'static str> {
    let says = |path: &str, value: &str| std::fs::read_to_string(path).is_ok_and(|text| text.trim() == value);
    if says("/proc/sys/kernel/unprivileged_userns_clone", "0") {
        return Some(
            "user namespaces are switched off here: `sudo sysctl kernel.unprivileged_userns_clone=1`",
        );
    }
    if says("/proc/sys/user/max_user_namespaces", "0") {
        return Some("user namespaces are switched off here: `sudo sysctl user.max_user_namespaces=10000`");
    }
    if says("/proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1") {
        return Some(
            "AppArmor takes the rights in user namespaces away here: \
             `sudo sysctl kernel.apparmor_restrict_unprivileged_userns=0`, or give hardtack a profile with `userns,`",
        );
    }
    if Path::new("/.dockerenv").exists() || Path::new("/run/.containerenv").exists() {
        return Some(
            "this is a container: run it with `--security-opt seccomp=unconfined --security-opt systempaths=unconfined`",
        );
    }
    None
}

/// Major and minor version of a kernel release such as `6.12.48+deb13-amd64`; zeros when it is none.
pub(super) fn kernel_version(release: &[u8]) -> (u32, u32) {
    let text = String::from_utf8_lossy(release);
    let mut numbers = text.split(|c: char| !c.is_ascii_digit()).map(|number| number.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

/// Memory that can be taken without pushing anything out, in bytes: the kernel's own estimate, or the limit of the cgroup.
pub(super) fn available_memory() -> u64 {
    let meminfo = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0);
    let available = kib.saturating_mul(1024);
    let number = |path: &str| std::fs::read_to_string(path).ok()?.trim().parse::<u64>().ok();
    // In a container the root of the hierarchy is the container's own group.
    match (number("/sys/fs/cgroup/memory.max"), number("/sys/fs/cgroup/memory.current")) {
        (Some(max), Some(current)) => available.min(max.saturating_sub(current)),
        _ => available,
    }
}

/// Whether the host's own binfmt_misc runs arm64 programs inside any root: an entry with the F flag.
pub(super) fn has_own_emulation() -> bool {
    let Ok(entries) = std::fs::read_dir("/proc/sys/fs/binfmt_misc") else { return false };
    entries.flatten().any(|entry| {
        let text = std::fs::read_to_string(entry.path()).unwrap_or_default();
        let flags = text.lines().find_map(|line| line.strip_prefix("flags:")).unwrap_or_default();
        let magic = text.lines().find_map(|line| line.strip_prefix("magic ")).unwrap_or_default();
        text.starts_with("enabled") && flags.contains('F') && magic.contains("0200b700")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_found_by_name_and_by_number() {
        let file = b"alice:100000:65536\n# bob:1:2\n1001:200000:1000\nbob:300000:65536\nbob:x:1\nbob:1\n";
        assert_eq!(subordinate(file, 1000, Some("alice")), [(100_000, 65536)]);
        assert_eq!(subordinate(file, 1001, Some("bob")), [(200_000, 1000), (300_000, 65536)]);
        assert_eq!(subordinate(file, 1002, None), []);
    }

    #[test]
    fn root_keeps_away_from_the_ids_of_the_host_unless_in_a_container() {
        let whole = root_ranges("         0          0 4294967295\n");
        assert_eq!(whole, [Range { inside: 0, outside: 1 << 31, count: (1 << 31) - 1 }]);
        let nested = root_ranges("         1     100000      65535\n         0       1000          1\n");
        let one = |inside, count| Range { inside, outside: inside, count };
        assert_eq!(nested, [one(0, 1), one(1, 65535)]);
    }

    #[test]
    fn names_and_versions() {
        let passwd = b"root:x:0:0:root:/root:/bin/sh\nbuild:x:1002:1002::/home/build:/bin/sh\n";
        assert_eq!(user_name(passwd, 1002).as_deref(), Some("build"));
        assert_eq!(user_name(passwd, 1003), None);
        assert_eq!(kernel_version(b"6.12.48+deb13-amd64"), (6, 12));
        assert_eq!(kernel_version(b"6.7-rc1"), (6, 7));
        assert_eq!(kernel_version(b"weird"), (0, 0));
    }
}
