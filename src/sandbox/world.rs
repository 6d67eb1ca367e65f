//! The world of a run: everything the child mounts. In the child.
//!
//! ```text
//! /                      an empty tmpfs; the host's root is gone (pivot_root, then detached)
//! ├── proc               of the new pid namespace
//! ├── binfmt             a binfmt_misc of this user namespace alone
//! ├── scratch            a tmpfs, or the scratch directory on disk
//! │   ├── lower          the tree, laid out
//! │   ├── upper  work    what overlayfs writes
//! │   └── tools          QEMU, the dispatcher, twins, packages to unpack
//! └── root               the overlay: what steps see as /
//!     ├── proc dev sys run tmp      never part of the result
//!     └── .hardtack                 /scratch/tools, read-only
//! ```
//!
//! Steps run under `chroot /root`, not in a mount namespace of their own: what breaks out of it finds only this world.

use super::child::{During, Fault};
use super::dispatch::TOOLS;
use super::lay::lay_out;
use super::wire::Take;
use rustix::fs::{CWD, Mode};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MountPropagationFlags, MoveMountFlags,
    OpenTreeFlags, UnmountFlags,
};
use std::ffi::CString;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::path::Path;

/// The target's root.
pub(super) const ROOT: &str = "/root";
/// The tree as it was.
pub(super) const LOWER: &str = "/scratch/lower";
/// What the steps changed.
pub(super) const UPPER: &str = "/scratch/upper";
const SCRATCH: &str = "/scratch";
const WORK: &str = "/scratch/work";
const TOOLS_LAID_OUT: &str = "/scratch/tools";

/// Directories that are mounted over in the root, and so never part of a result.
pub(super) const MOUNTED_OVER: [&str; 5] = ["proc", "sys", "dev", "run", "tmp"];

/// Device nodes that programs rely on. A user namespace may not make any, so these are the host's own.
const DEVICES: [&str; 6] = ["null", "zero", "full", "random", "urandom", "tty"];

/// What runs programs of the target's architecture.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Emulation {
    /// The host is of that architecture, or its own binfmt_misc does it.
    None,
    /// QEMU for everything.
    Qemu,
    /// The dispatcher: twins, and QEMU for the rest.
    Twins,
}

impl Emulation {
    pub(super) fn from_u8(value: u8) -> Option<Self> {
        [Self::None, Self::Qemu, Self::Twins].into_iter().find(|emulation| *emulation as u8 == value)
    }
}

/// A world, built.
pub(super) struct World {
    on_disk: bool,
    mounts: Vec<String>,
}

impl World {
    /// Builds it from what the parent sends; the scratch directory is the current directory. `sources` are closed before
    /// anything of the target runs: they are the user's packs, opened for writing.
    pub(super) fn build(input: &mut impl Read, sources: Vec<OwnedFd>) -> Result<Self, Fault> {
        let memory = input.take_u64().during("receiving the plan")?;
        let emulation = input.take_u8().during("receiving the plan")?;
        let emulation = Emulation::from_u8(emulation).unwrap_or(Emulation::None);
        let hostname = input.take_bytes(64).during("receiving the plan")?;
        rustix::system::sethostname(&hostname).during("setting the host name")?;
        raise_loopback().during("raising the loopback interface")?;
        let on_disk = memory == 0;
        let devices = leave_the_host(on_disk, memory)?;
        for directory in [LOWER, UPPER, WORK, TOOLS_LAID_OUT] {
            std::fs::create_dir(directory).during_with(|| format!("making {directory}"))?;
        }
        lay_out(input, Path::new(TOOLS_LAID_OUT), &sources)?;
        lay_out(input, Path::new(LOWER), &sources)?;
        drop(sources);
        set_same_meta(LOWER, UPPER)?;
        let mut world = Self { on_disk, mounts: Vec::new() };
        world.mount_root()?;
        world.furnish(devices)?;
        register(emulation)?;
        limit_processes();
        Ok(world)
    }

    fn mount_root(&mut self) -> Result<(), Fault> {
        // A user namespace may not write trusted.* attributes, so overlayfs keeps its notes in user.* ones. Whiteouts and
        // opaque directories are all that the collector has to understand: nothing else is switched on. `volatile`
        // leaves fsync out, which dpkg calls for every file; what a crash leaves is thrown away anyhow.
        let options = format!(
            "lowerdir={LOWER},upperdir={UPPER},workdir={WORK},userxattr,volatile,redirect_dir=nofollow,index=off,metacopy=off"
        );
        self.mount("overlay", ROOT, "overlay", MountFlags::empty(), &options)
    }

    fn furnish(&mut self, devices: Vec<(&'static str, OwnedFd)>) -> Result<(), Fault> {
        let at = |path: &str| format!("{ROOT}/{path}");
        let quiet = MountFlags::NOSUID | MountFlags::NOEXEC | MountFlags::NODEV;
        self.mount("proc", &at("proc"), "proc", quiet, "")?;
        // Empty: nothing of the host's hardware may reach an image.
        self.mount("sysfs-of-nothing", &at("sys"), "tmpfs", quiet | MountFlags::RDONLY, "mode=0555,size=4k")?;
        self.mount("run", &at("run"), "tmpfs", MountFlags::NOSUID | MountFlags::NODEV, "mode=0755")?;
        make(&at("run/lock"), 0o1777)?;
        self.mount("tmp", &at("tmp"), "tmpfs", MountFlags::NOSUID | MountFlags::NODEV, "mode=1777")?;
        self.mount("dev", &at("dev"), "tmpfs", MountFlags::NOSUID | MountFlags::NOEXEC, "mode=0755")?;
        for (name, tree) in devices {
            let path = at(&format!("dev/{name}"));
            std::fs::File::create(&path).during_with(|| format!("making {path}"))?;
            move_mount(&tree, &path)?;
            self.mounts.push(path);
        }
        for directory in ["pts", "shm"] {
            make(&at(&format!("dev/{directory}")), 0o755)?;
        }
        let options = "newinstance,ptmxmode=0666,mode=0620";
        self.mount("devpts", &at("dev/pts"), "devpts", MountFlags::NOSUID | MountFlags::NOEXEC, options)?;
        self.mount("shm", &at("dev/shm"), "tmpfs", MountFlags::NOSUID | MountFlags::NODEV, "mode=1777")?;
        let links = [
            ("pts/ptmx", "ptmx"),
            ("/proc/self/fd", "fd"),
            ("/proc/self/fd/0", "stdin"),
            ("/proc/self/fd/1", "stdout"),
            ("/proc/self/fd/2", "stderr"),
        ];
        for (target, name) in links {
            let path = at(&format!("dev/{name}"));
            std::os::unix::fs::symlink(target, &path).during_with(|| format!("making {path}"))?;
        }
        let tools = at(TOOLS);
        rustix::mount::mount_bind(TOOLS_LAID_OUT, &tools).during_with(|| format!("binding {tools}"))?;
        rustix::mount::mount_remount(&tools, MountFlags::BIND | MountFlags::RDONLY | MountFlags::NODEV, c"")
            .during_with(|| format!("making {tools} read-only"))?;
        self.mounts.push(tools);
        Ok(())
    }

    fn mount(
        &mut self,
        source: &str,
        target: &str,
        kind: &str,
        flags: MountFlags,
        options: &str,
    ) -> Result<(), Fault> {
        mount(source, target, kind, flags, options)?;
        self.mounts.push(target.to_owned());
        Ok(())
    }

    /// Takes the root away, so that the upper directory can be read while nothing writes to it.
    pub(super) fn quiet(&self) -> Result<(), Fault> {
        for target in self.mounts.iter().rev() {
            // A script may have unmounted it already.
            let _ = rustix::mount::unmount(target.as_str(), UnmountFlags::DETACH);
        }
        Ok(())
    }

    /// Deletes what is on disk. What is in memory goes with the namespace.
    pub(super) fn take_down(&self) -> Result<(), Fault> {
        if self.on_disk { empty_directory(Path::new(SCRATCH)) } else { Ok(()) }
    }
}

/// Deletes everything in a directory, whoever owns it.
pub(super) fn empty_directory(path: &Path) -> Result<(), Fault> {
    let remove = || -> io::Result<()> {
        for entry in std::fs::read_dir(path)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                std::fs::remove_dir_all(entry.path())?;
            } else {
                std::fs::remove_file(entry.path())?;
            }
        }
        Ok(())
    };
    remove().during("deleting the scratch files of a run")
}

/// Makes the new, empty root and gives the host's up for good. Gives the device nodes taken along.
fn leave_the_host(on_disk: bool, memory: u64) -> Result<Vec<(&'static str, OwnedFd)>, Fault> {
    rustix::mount::mount_change("/", MountPropagationFlags::REC | MountPropagationFlags::PRIVATE)
        .during("making mounts private")?;
    let take = |path: &str| {
        let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
        rustix::mount::open_tree(CWD, path, flags).during_with(|| format!("taking {path} into the sandbox"))
    };
    let mut devices = Vec::new();
    for name in DEVICES {
        // /dev/tty may be missing in a container; programs cope.
        if name != "tty" || Path::new("/dev/tty").exists() {
            devices.push((name, take(&format!("/dev/{name}"))?));
        }
    }
    // A clone is a mount of its own: no `..` leads out of it.
    let scratch = on_disk.then(|| take(".")).transpose()?;
    let root = rustix::mount::fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC).during("making an empty root")?;
    rustix::mount::fsconfig_set_string(&root, "mode", "0755").during("making an empty root")?;
    rustix::mount::fsconfig_create(&root).during("making an empty root")?;
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
    let root = rustix::mount::fsmount(&root, FsMountFlags::FSMOUNT_CLOEXEC, attributes);
    let root = root.during("making an empty root")?;
    move_mount(&root, ".")?;
    rustix::process::fchdir(&root).during("entering the empty root")?;
    for directory in ["proc", "binfmt", "scratch", "root"] {
        std::fs::create_dir(directory).during_with(|| format!("making /{directory}"))?;
    }
    // A new proc is only allowed where the host's is still in sight (mount_namespaces(7)).
    mount("proc", "proc", "proc", MountFlags::NOSUID | MountFlags::NOEXEC | MountFlags::NODEV, "")?;
    // Both on one place: the old root is then on top of the new one, and goes (pivot_root(2)).
    rustix::process::pivot_root(".", ".").during("entering the empty root")?;
    rustix::mount::unmount(".", UnmountFlags::DETACH).during("leaving the host's root")?;
    rustix::process::chdir("/").during("entering the empty root")?;
    match scratch {
        Some(tree) => move_mount(&tree, SCRATCH)?,
        None => {
            let options = format!("mode=0755,size={memory}");
            mount("scratch", SCRATCH, "tmpfs", MountFlags::NODEV, &options)?;
        }
    }
    Ok(devices)
}

fn move_mount(tree: &OwnedFd, path: &str) -> Result<(), Fault> {
    rustix::mount::move_mount(tree, "", CWD, path, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
        .during_with(|| format!("mounting {path}"))
}

fn mount(source: &str, target: &str, kind: &str, flags: MountFlags, options: &str) -> Result<(), Fault> {
    let what = || format!("mounting {kind} on {target}");
    let options = CString::new(options).map_err(io::Error::from).during_with(what)?;
    rustix::mount::mount(source, target, kind, flags, options.as_c_str()).during_with(what)
}

fn make(path: &str, mode: u32) -> Result<(), Fault> {
    std::fs::create_dir(path)
        .and_then(|()| Ok(rustix::fs::chmod(path, Mode::from_raw_mode(mode))?))
        .during_with(|| format!("making {path}"))
}

/// The merged root shows the upper directory's metadata.
fn set_same_meta(from: &str, to: &str) -> Result<(), Fault> {
    let copy = || -> io::Result<()> {
        let stat = rustix::fs::stat(from)?;
        let (uid, gid) = (rustix::fs::Uid::from_raw(stat.st_uid), rustix::fs::Gid::from_raw(stat.st_gid));
        rustix::fs::chown(to, Some(uid), Some(gid))?;
        rustix::fs::chmod(to, Mode::from_raw_mode(stat.st_mode))?;
        let time = rustix::fs::Timespec { tv_sec: stat.st_mtime, tv_nsec: stat.st_mtime_nsec as _ };
        let times = rustix::fs::Timestamps { last_access: time, last_modification: time };
        Ok(rustix::fs::utimensat(CWD, to, &times, rustix::fs::AtFlags::empty())?)
    };
    copy().during_with(|| format!("giving {to} the metadata of {from}"))
}

/// Tells a binfmt_misc of our own what runs arm64 programs.
///
/// Flags (admin-guide/binfmt-misc): F opens the interpreter now, so that it is found from inside the root; P keeps argv[0];
/// C takes set-id bits from the program, not the interpreter; O, implied by C, hands over the program as a descriptor.
fn register(emulation: Emulation) -> Result<(), Fault> {
    let interpreter = match emulation {
        Emulation::None => return Ok(()),
        Emulation::Qemu => "qemu",
        Emulation::Twins => "dispatch",
    };
    mount("binfmt_misc", "/binfmt", "binfmt_misc", MountFlags::empty(), "")?;
    // An ELF header: 64 bits, little-endian, any ABI, ET_EXEC or ET_DYN, EM_AARCH64.
    let magic = r"\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00";
    let mask = r"\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff";
    let rule = format!(":hardtack:M::{magic}:{mask}:{TOOLS_LAID_OUT}/{interpreter}:FOCP");
    std::fs::write("/binfmt/register", rule).during("registering the emulator")
}

/// Sets the loopback interface up: the only one there is. Some scripts talk to a service of their own.
fn raise_loopback() -> io::Result<()> {
    use rustix::net::{AddressFamily, SendFlags, SocketType};
    // Protocol 0 is NETLINK_ROUTE.
    let socket = rustix::net::socket(AddressFamily::NETLINK, SocketType::RAW, None)?;
    // struct nlmsghdr (linux/netlink.h): RTM_NEWLINK, NLM_F_REQUEST | NLM_F_ACK.
    let mut message = Vec::new();
    message.extend(32u32.to_ne_bytes());
    message.extend(16u16.to_ne_bytes());
    message.extend(5u16.to_ne_bytes());
    message.extend([0; 8]);
    // struct ifinfomsg (linux/rtnetlink.h): interface 1, which is lo in every namespace; flag and mask IFF_UP.
    message.extend([0; 4]);
    message.extend(1i32.to_ne_bytes());
    message.extend(1u32.to_ne_bytes());
    message.extend(1u32.to_ne_bytes());
    rustix::net::send(&socket, &message, SendFlags::empty())?;
    let mut answer = [0; 64];
    let (_, n) = rustix::net::recv(&socket, &mut answer[..], rustix::net::RecvFlags::empty())?;
    // NLMSG_ERROR with a negative errno, zero when all is well.
    let code = answer.get(16..20).filter(|_| n >= 20).and_then(|bytes| bytes.try_into().ok());
    match code.map(i32::from_ne_bytes) {
        Some(0) => Ok(()),
        Some(code) => Err(io::Error::from_raw_os_error(code.saturating_neg())),
        None => Err(io::ErrorKind::InvalidData.into()),
    }
}

/// Bounds the number of processes, where the kernel counts them per pid namespace (Linux 6.14): before that the file is
/// the host's own and is left alone.
fn limit_processes() {
    let release = rustix::system::uname();
    if super::host::kernel_version(release.release().to_bytes()) >= (6, 14) {
        // What is lost when this fails is a guard against runaway scripts, nothing else.
        let _ = std::fs::write("/proc/sys/kernel/pid_max", "4096");
    }
}
