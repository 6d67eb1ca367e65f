//! The child's side: two stages, each a fresh run of this same program.
//!
//! 1. [`STAGE_NAMESPACES`] is single-threaded, as `unshare(CLONE_NEWUSER)` demands. It leaves for a new user namespace,
//!    waits until the parent has given it ids, becomes root there, leaves for the other namespaces, and starts stage 2.
//! 2. [`STAGE_INIT`] is process 1 of the new pid namespace: it builds the world ([`super::world`]), runs the steps, collects
//!    the difference. When it ends, for whatever reason, the kernel ends everything in the namespace.
//!
//! Standard input of both is the socket to the parent.

use super::collect;
use super::wire::{PATH_LIMIT, Put, TEXT_LIMIT, Take, tag};
use super::world::{self, World};
use rustix::event::{PollFd, PollFlags};
use rustix::fs::{MemfdFlags, OFlags};
use rustix::process::{Pid, Signal, WaitOptions, WaitStatus};
use rustix::thread::UnshareFlags;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::net::UnixStream;
use std::process::{Command, ExitCode, Stdio};

/// First argument of stage 1.
pub(super) const STAGE_NAMESPACES: &str = "__sandbox";
/// First argument of the stage that deletes what an earlier run left: its files belong to ids the user cannot touch.
pub(super) const STAGE_SWEEP: &str = "__sandbox-sweep";
const STAGE_INIT: &str = "__sandbox-init";

/// What went wrong in the child: what was attempted, and what the system said.
#[derive(Debug)]
pub(super) struct Fault {
    pub(super) what: String,
    pub(super) source: io::Error,
}

/// Says what was attempted when something failed.
pub(super) trait During<T> {
    fn during(self, what: &str) -> Result<T, Fault>;
    fn during_with(self, what: impl FnOnce() -> String) -> Result<T, Fault>;
}

impl<T, E: Into<io::Error>> During<T> for Result<T, E> {
    fn during(self, what: &str) -> Result<T, Fault> {
        self.during_with(|| what.to_owned())
    }

    fn during_with(self, what: impl FnOnce() -> String) -> Result<T, Fault> {
        self.map_err(|error| Fault { what: what(), source: error.into() })
    }
}

/// Runs one of the sandbox's stages when this process was started as one; otherwise gives `None` at once. Must be the first
/// thing `main` does, before any thread is started.
pub fn child_main() -> Option<ExitCode> {
    let mut arguments = std::env::args_os().skip(1);
    let stage = arguments.next()?;
    let result = match stage.to_str()? {
        STAGE_NAMESPACES => namespaces(),
        STAGE_SWEEP => sweep(),
        STAGE_INIT => init(),
        _ => return None,
    };
    Some(match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    })
}

/// The socket to the parent, which is standard input.
fn socket() -> io::Result<UnixStream> {
    Ok(UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?))
}

/// Reports a fault to the parent, which has all the words for it.
fn report(fault: Fault) -> Fault {
    if let Ok(mut socket) = socket() {
        let mut message = Vec::new();
        let sent = message.put_u8(tag::FAULT);
        let sent = sent.and_then(|()| message.put_u32(fault.source.raw_os_error().unwrap_or(0) as u32));
        let sent = sent.and_then(|()| message.put_bytes(fault.what.as_bytes()));
        let sent = sent.and_then(|()| message.put_bytes(fault.source.to_string().as_bytes()));
        // Nobody else is left to tell when the parent is gone.
        let _ = sent.and_then(|()| socket.write_all(&message));
    }
    fault
}

/// The parent's end is ours: no sandbox outlives the hardtack that started it.
fn die_with_parent() -> Result<(), Fault> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))
        .during("tying the sandbox to its parent")
}

fn unshare(flags: UnshareFlags, what: &str) -> Result<(), Fault> {
    #[expect(
        deprecated,
        reason = "no descriptor table is unshared, which is what made the safe form deprecated"
    )]
    rustix::thread::unshare(flags).during(what)
}

/// Root in a new user namespace, with ids the parent gave.
fn become_root() -> Result<(), Fault> {
    die_with_parent()?;
    unshare(UnshareFlags::NEWUSER, "making a user namespace")?;
    let mut socket = socket().during("talking to the parent")?;
    socket.write_all(&[tag::UNSHARED]).during("talking to the parent")?;
    let mut answer = [0];
    socket.read_exact(&mut answer).during("waiting for ids")?;
    let (uid, gid) = (rustix::process::Uid::ROOT, rustix::process::Gid::ROOT);
    rustix::thread::set_thread_groups(&[]).during("leaving the user's groups")?;
    rustix::thread::set_thread_res_gid(gid, gid, gid).during("becoming root's group")?;
    rustix::thread::set_thread_res_uid(uid, uid, uid).during("becoming root")?;
    // Changing ids took it away (prctl(2)).
    die_with_parent()
}

fn namespaces() -> Result<(), Fault> {
    let run = || {
        become_root()?;
        let flags = UnshareFlags::NEWNS
            | UnshareFlags::NEWPID
            | UnshareFlags::NEWNET
            | UnshareFlags::NEWIPC
            | UnshareFlags::NEWUTS
            | UnshareFlags::NEWCGROUP;
        unshare(flags, "making mount, pid, network, ipc, uts and cgroup namespaces")?;
        // A pid namespace begins with the next process.
        #[expect(clippy::disallowed_methods, reason = "the sandbox starts processes")]
        let mut child = Command::new("/proc/self/exe").arg(STAGE_INIT).spawn().during("starting stage 2")?;
        child.wait().during("waiting for stage 2")
    };
    run().map(drop).map_err(report)
}

fn sweep() -> Result<(), Fault> {
    let run = || {
        become_root()?;
        world::empty_directory(std::path::Path::new("."))?;
        socket().and_then(|mut socket| socket.write_all(&[tag::DONE])).during("talking to the parent")
    };
    run().map_err(report)
}

/// A step as the child gets it.
struct Command0 {
    arguments: Vec<OsString>,
    environment: Vec<(OsString, OsString)>,
    input: Vec<u8>,
}

fn init() -> Result<(), Fault> {
    let run = || {
        die_with_parent()?;
        let socket = socket().during("talking to the parent")?;
        let sources = receive_descriptors(&socket).during("receiving descriptors")?;
        // Steps must not get at the socket: from here on it is a private descriptor, and standard input is empty.
        let null = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, rustix::fs::Mode::empty());
        rustix::stdio::dup2_stdin(null.during("opening /dev/null")?).during("closing standard input")?;
        let result = sandboxed(&socket, sources);
        if let Err(fault) = &result {
            let fault = Fault { what: fault.what.clone(), source: clone(&fault.source) };
            // `report` finds the socket on standard input.
            let _ = rustix::stdio::dup2_stdin(&socket);
            report(fault);
        }
        result
    };
    run()
}

fn clone(error: &io::Error) -> io::Error {
    match error.raw_os_error() {
        Some(code) => io::Error::from_raw_os_error(code),
        None => io::Error::new(error.kind(), error.to_string()),
    }
}

fn sandboxed(socket: &UnixStream, sources: Vec<OwnedFd>) -> Result<(), Fault> {
    let mut input = BufReader::with_capacity(256 << 10, socket);
    let mut out = BufWriter::with_capacity(256 << 10, socket);
    let world = World::build(&mut input, sources)?;
    send(&mut out, |out| out.put_u8(tag::LAID_OUT))?;
    let props = receive_list(&mut input, u32::MAX)?;
    let steps = input.take_u32().during("receiving the steps")?;
    let mut failed = false;
    prepare_for_steps()?;
    for _ in 0..steps {
        let step = receive_step(&mut input)?;
        if !run_step(&step, &mut out)? {
            failed = true;
            break;
        }
    }
    world.quiet()?;
    if !failed {
        collect::send_changes(&mut out, &props)?;
    }
    world.take_down()?;
    send(&mut out, |out| out.put_u8(tag::DONE))
}

fn send(out: &mut impl Write, message: impl FnOnce(&mut Vec<u8>) -> io::Result<()>) -> Result<(), Fault> {
    let mut bytes = Vec::new();
    message(&mut bytes)
        .and_then(|()| out.write_all(&bytes))
        .and_then(|()| out.flush())
        .during("talking to the parent")
}

fn receive_descriptors(socket: &UnixStream) -> io::Result<Vec<OwnedFd>> {
    use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags};
    let mut space = vec![std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(253))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    let mut buffers = [io::IoSliceMut::new(&mut byte)];
    rustix::net::recvmsg(socket, &mut buffers, &mut ancillary, RecvFlags::CMSG_CLOEXEC)?;
    let mut descriptors = Vec::new();
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(received) = message {
            descriptors.extend(received);
        }
    }
    Ok(descriptors)
}

fn receive_list(input: &mut impl Read, limit: u32) -> Result<Vec<Vec<u8>>, Fault> {
    let mut take = || -> io::Result<Vec<Vec<u8>>> {
        (0..input.take_count(limit)?).map(|_| input.take_bytes(TEXT_LIMIT.max(PATH_LIMIT))).collect()
    };
    take().during("receiving a list")
}

fn receive_step(input: &mut impl Read) -> Result<Command0, Fault> {
    let arguments = receive_list(input, u32::MAX)?.into_iter().map(OsString::from_vec).collect();
    let mut environment = Vec::new();
    for pair in receive_list(input, u32::MAX)? {
        let cut = pair.iter().position(|byte| *byte == b'=').unwrap_or(pair.len());
        let (name, value) = pair.split_at(cut);
        let value = value.get(1..).unwrap_or_default();
        environment.push((OsString::from_vec(name.to_vec()), OsString::from_vec(value.to_vec())));
    }
    let input = input.take_bytes(u32::MAX).during("receiving a step's input")?;
    Ok(Command0 { arguments, environment, input })
}

/// Runs one step to its end and then ends whatever it left running. Gives whether it succeeded.
fn run_step(step: &Command0, out: &mut impl Write) -> Result<bool, Fault> {
    let (reader, writer) =
        rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).during("making a pipe")?;
    let input = rustix::fs::memfd_create("stdin", MemfdFlags::CLOEXEC).map(File::from);
    let mut input = input.during("making a step's input")?;
    input
        .write_all(&step.input)
        .and_then(|()| io::Seek::rewind(&mut input))
        .during("making a step's input")?;
    let (program, arguments) =
        step.arguments.split_first().map_or((OsStr::new(""), &[][..]), |(p, a)| (p.as_os_str(), a));
    #[expect(clippy::disallowed_methods, reason = "the sandbox starts processes")]
    let mut command = Command::new(program);
    command.args(arguments).env_clear().envs(step.environment.iter().cloned());
    command.stdin(Stdio::from(input));
    command.stdout(Stdio::from(writer.try_clone().during("making a pipe")?)).stderr(Stdio::from(writer));
    let child = spawn_in_root(&mut command)
        .during_with(|| format!("starting {}", program.as_bytes().escape_ascii()))?;
    drop(command);
    let child = Pid::from_child(&child);
    let status = follow(child, &reader, out)?;
    let (kind, code) = match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => (0, code),
        (None, Some(signal)) => (1, signal),
        (None, None) => (1, 0),
    };
    send(out, |out| {
        out.put_u8(tag::STEP)?;
        out.put_u32(kind)?;
        out.put_u32(code as u32)
    })?;
    Ok(status.exit_status() == Some(0))
}

/// Starts a program in the target's root while this process stays outside: `ischroot`, which maintainer scripts ask, compares
/// itself with process 1. A thread with a root directory of its own does it, since a child gets its parent thread's.
fn spawn_in_root(command: &mut Command) -> io::Result<std::process::Child> {
    let spawn = || -> io::Result<std::process::Child> {
        #[expect(
            deprecated,
            reason = "no descriptor table is unshared, which is what made the safe form deprecated"
        )]
        rustix::thread::unshare(UnshareFlags::FS)?;
        rustix::process::chroot(world::ROOT)?;
        rustix::process::chdir("/")?;
        command.spawn()
    };
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().spawn_scoped(scope, spawn)?;
        thread.join().unwrap_or_else(|_| Err(io::Error::other("the thread panicked")))
    })
}

/// Passes a step's output on until it ends. A daemon it left behind may hold the pipe: the step's own end counts.
fn follow(child: Pid, reader: &OwnedFd, out: &mut impl Write) -> Result<WaitStatus, Fault> {
    let ended = rustix::process::pidfd_open(child, rustix::process::PidfdFlags::empty());
    let ended = ended.during("watching a step")?;
    let mut buffer = vec![0; 32 << 10];
    let mut open = true;
    let mut status = None;
    loop {
        let mut watched = vec![PollFd::new(&ended, PollFlags::IN)];
        if open {
            watched.push(PollFd::new(reader, PollFlags::IN));
        }
        match rustix::event::poll(&mut watched, None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error).during("watching a step"),
        }
        let is_over = !watched[0].revents().is_empty();
        let has_output = watched.get(1).is_some_and(|output| !output.revents().is_empty());
        if has_output {
            let n = rustix::io::read(reader, &mut buffer).during("reading a step's output")?;
            open = n > 0;
            if n > 0 {
                send(out, |out| {
                    out.put_u8(tag::OUTPUT)?;
                    out.put_bytes(&buffer[..n])
                })?;
            }
        } else if is_over {
            break;
        }
        reap(child, &mut status)?;
    }
    end_everything(child, &mut status)?;
    status.ok_or_else(|| Fault { what: "waiting for a step".into(), source: io::ErrorKind::NotFound.into() })
}

/// Collects every process that has ended: orphans of a step become children of process 1.
fn reap(child: Pid, status: &mut Option<WaitStatus>) -> Result<(), Fault> {
    loop {
        match rustix::process::wait(WaitOptions::NOHANG) {
            Ok(Some((pid, ended))) if pid == child => *status = Some(ended),
            Ok(Some(_)) => {}
            Ok(None) | Err(rustix::io::Errno::CHILD) => return Ok(()),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error).during("waiting for processes"),
        }
    }
}

/// Ends every process but this one: daemons that a script started must not touch the files while they are read.
fn end_everything(child: Pid, status: &mut Option<WaitStatus>) -> Result<(), Fault> {
    loop {
        // From process 1 this is every other process of its pid namespace, and none outside.
        if rustix::process::getpid() == Pid::INIT {
            match rustix::process::kill_process_group(Pid::INIT, Signal::KILL) {
                Ok(()) | Err(rustix::io::Errno::SRCH) => {}
                Err(error) => return Err(error).during("ending what a step left running"),
            }
        }
        match rustix::process::wait(WaitOptions::empty()) {
            Ok(Some((pid, ended))) if pid == child => *status = Some(ended),
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(rustix::io::Errno::CHILD) => return Ok(()),
            Err(error) => return Err(error).during("waiting for processes"),
        }
    }
}

/// What every step inherits: no terminal, the usual mask, and the same limits everywhere, whatever the user's shell has: some programs look at them (closing every descriptor they may
/// have), and a core dump would end up in the result.
fn prepare_for_steps() -> Result<(), Fault> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    rustix::process::setsid().during("leaving the user's terminal")?;
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    for (resource, wanted) in [(Resource::Nofile, 1024), (Resource::Core, 0), (Resource::Stack, 8 << 20)] {
        let maximum = getrlimit(resource).maximum;
        let current = maximum.map_or(wanted, |maximum| wanted.min(maximum));
        setrlimit(resource, Rlimit { current: Some(current), maximum }).during("setting limits")?;
    }
    Ok(())
}
