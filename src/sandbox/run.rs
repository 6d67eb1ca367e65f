//! The parent's side of a run: start the child, give it ids and the tree, follow what it says, and leave nothing behind.

use super::child::{STAGE_NAMESPACES, STAGE_SWEEP};
use super::collect::Receiver;
use super::dispatch::{self, TOOLS};
use super::elf;
use super::error::culprit;
use super::host::{self, Ids};
use super::lay::{Sources, send};
use super::wire::{Put, TEXT_LIMIT, Take, bad, tag};
use super::world::{Emulation, MOUNTED_OVER};
use super::{Event, Job, Outcome, Place, Prop, SandboxError, twins};
use crate::meta::{Meta, Timestamp};
use crate::tree::diff::Change;
use crate::tree::{Kind, Tree, TreeError, TreePath};
use rustix::fs::{FlockOperation, MemfdFlags, SealFlags};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags};
use rustix::process::Pid;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

const PREFIX: &str = "sandbox-";
const LAST_LINES: usize = 40;
const LINE_LIMIT: usize = 4096;
const LOG_LIMIT: usize = 4 << 20;
/// First kernel whose binfmt_misc belongs to a user namespace.
const PRIVATE_BINFMT: (u32, u32) = (6, 7);
/// First kernel whose tmpfs keeps user.* attributes, which overlayfs needs here.
const TMPFS_XATTRS: (u32, u32) = (6, 6);

/// Runs a job. `on` hears how it goes, in this thread. Whatever the outcome, no process, mount or scratch file is left; after
/// a crash of this program, the next run with the same scratch directory cleans up.
pub fn run(job: &Job<'_>, on: &mut dyn FnMut(Event<'_>)) -> Result<Outcome, SandboxError> {
    let ids = Ids::plan(&job.host)?;
    let emulation = emulation(job)?;
    let props = props(job, emulation)?;
    let tools = tools(job, emulation)?;
    let mut lower = job.tree.clone();
    let hidden = dress(&mut lower, &props)?;
    let program = own_copy(&job.host.program)?;
    let scratch = Scratch::make(job.scratch, &ids, &program)?;
    let memory = memory_for(job.place, &[&lower, &tools]);
    let mut sources = Sources::default();
    sources.collect(&tools);
    sources.collect(&lower);
    let plan = Plan { memory, emulation, tools: &tools, lower: &lower, hidden: &hidden, sources: &sources };
    let started = Instant::now();
    let result =
        Running::start(STAGE_NAMESPACES, &scratch.path, &program, &ids, job.cancel).and_then(|mut child| {
            // When sending fails the child has given up, and its own words are better than "broken pipe".
            let sent = child.send_plan(&plan, job);
            let result = child.follow(job, started, sent, on);
            child.finish(result)
        });
    let removed = scratch.remove(&ids, &program);
    let outcome = result?;
    removed?;
    no_host_programs(&outcome.changes, emulation)?;
    Ok(outcome)
}

fn emulation(job: &Job<'_>) -> Result<Emulation, SandboxError> {
    if job.emulator.is_none() {
        return Ok(Emulation::None);
    }
    let name = rustix::system::uname();
    let release = name.release().to_bytes();
    if host::kernel_version(release) < PRIVATE_BINFMT {
        if host::has_own_emulation() {
            return Ok(Emulation::None);
        }
        return Err(SandboxError::NoEmulation { found: String::from_utf8_lossy(release).into_owned() });
    }
    // The dispatcher is x86-64 code; other hosts emulate everything.
    let can_dispatch = cfg!(target_arch = "x86_64");
    Ok(if job.twins.is_some() && can_dispatch { Emulation::Twins } else { Emulation::Qemu })
}

fn path(text: &str) -> TreePath {
    // Only called with plain names; a bad one would be the root, which `put` refuses for a file.
    TreePath::new(text).unwrap_or_default()
}

/// What is in the tree for the run only: mount points, twins' libraries, and the job's own.
fn props(job: &Job<'_>, emulation: Emulation) -> Result<Vec<Prop>, SandboxError> {
    let meta = || Meta::root(0o755, Timestamp::default());
    let directory = || Kind::Directory(BTreeMap::new());
    let mut props: Vec<Prop> = Vec::new();
    for name in MOUNTED_OVER.into_iter().chain([TOOLS]) {
        if job.tree.get(&path(name)).is_none() {
            props.push(Prop { path: path(name), meta: meta(), kind: directory() });
        }
    }
    if let (Emulation::Twins, Some(twins)) = (emulation, job.twins) {
        for (path, target) in twins.links() {
            let meta = Meta::root(0o777, Timestamp::default());
            props.push(Prop { path: path.clone(), meta, kind: Kind::Symlink(target.clone()) });
        }
    }
    props.extend(job.props.iter().cloned());
    Ok(props)
}

/// Puts the props into the tree, without moving the times of the directories they are in. Gives the paths that were not
/// there before or are hidden now.
fn dress(tree: &mut Tree, props: &[Prop]) -> Result<BTreeSet<TreePath>, SandboxError> {
    let mut hidden = BTreeSet::new();
    let failed =
        |error: TreeError| SandboxError::io("preparing the tree for the run", io::Error::other(error));
    for prop in props {
        let real = tree.resolve_parent(&prop.path).map_err(failed)?;
        let mut above = real.parent();
        while let Some(missing) = above.filter(|path| tree.get(path).is_none()) {
            above = missing.parent();
            hidden.insert(missing);
        }
        tree.remove(&real);
        hidden.insert(tree.put(&prop.path, prop.meta.clone(), prop.kind.clone()).map_err(failed)?);
    }
    Ok(hidden)
}

/// The tree of `/.hardtack`.
fn tools(job: &Job<'_>, emulation: Emulation) -> Result<Tree, SandboxError> {
    let mut tree = Tree::new(Timestamp::default());
    let failed =
        |error: TreeError| SandboxError::io("preparing the tools of the run", io::Error::other(error));
    let program = || Meta::root(0o755, Timestamp::default());
    if emulation != Emulation::None
        && let Some(emulator) = job.emulator
    {
        tree.put(&path("qemu"), program(), Kind::File(emulator.clone())).map_err(failed)?;
    }
    if emulation == Emulation::Twins
        && let Some(twins) = job.twins
    {
        tree.put(
            &path("dispatch"),
            program(),
            Kind::File(crate::content::Content::inline(dispatch::program())),
        )
        .map_err(failed)?;
        twins.put_into(&mut tree).map_err(failed)?;
    }
    for (name, content) in job.inputs {
        let place = path("in").join(name.as_bytes()).map_err(|error| failed(error.into()))?;
        tree.put(&place, program(), Kind::File(content.clone())).map_err(failed)?;
    }
    Ok(tree)
}

/// Size of the tmpfs to lay out in, in bytes; 0 to use the disk.
fn memory_for(place: Place, trees: &[&Tree]) -> u64 {
    const SLACK: u64 = 512 << 20;
    let available = host::available_memory();
    // Leaves room for what the scripts themselves need, and the result's contents in the page cache.
    let limit = available / 4 * 3;
    match place {
        Place::Disk => 0,
        Place::Memory => limit.max(64 << 20),
        Place::Auto if host::kernel_version(rustix::system::uname().release().to_bytes()) < TMPFS_XATTRS => 0,
        Place::Auto => {
            let size = |tree: &Tree| {
                let nodes = tree.walk().map(|(_, id)| match &tree.node(id).kind {
                    Kind::File(content) => content.len().next_multiple_of(4096) + 1024,
                    _ => 1024,
                });
                nodes.sum::<u64>()
            };
            // What scripts write is rarely a third of what they are given; an initramfs in the making is most of it.
            let needed = trees.iter().map(|tree| size(tree)).sum::<u64>() / 2 * 3 + SLACK;
            if needed <= limit { limit } else { 0 }
        }
    }
}

/// A sealed copy of this program in memory: what runs as root in the sandbox could reach the file behind `/proc/1/exe`, and must
/// not be able to write it. It also survives a rebuild or upgrade of hardtack in the middle of a run.
fn own_copy(program: &Path) -> Result<OwnedFd, SandboxError> {
    let copy = || -> io::Result<OwnedFd> {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let mut copy = File::from(rustix::fs::memfd_create("hardtack", flags)?);
        io::copy(&mut File::open(program)?, &mut copy)?;
        rustix::fs::fcntl_add_seals(
            &copy,
            SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL,
        )?;
        Ok(copy.into())
    };
    copy().map_err(|source| SandboxError::io(format!("copying {}", program.display()), source))
}

/// The directory of one run, locked for as long as it lives.
struct Scratch {
    path: PathBuf,
    _lock: File,
}

impl Scratch {
    fn make(parent: &Path, ids: &Ids, program: &OwnedFd) -> Result<Self, SandboxError> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let failed = |path: &Path| {
            let what = format!("making the scratch directory {}", path.display());
            move |source| SandboxError::io(what, source)
        };
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(parent).map_err(failed(parent))?;
        sweep(parent, ids, program);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = parent.join(format!("{PREFIX}{}-{number}", std::process::id()));
        let make = || -> io::Result<File> {
            std::fs::DirBuilder::new().mode(0o700).create(&path)?;
            let lock = File::open(&path)?;
            rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive)?;
            let (uid, gid) = ids.root();
            // Only root's sandboxes have another owner than the user.
            if lock.metadata()?.uid() != uid {
                std::os::unix::fs::fchown(&lock, Some(uid), Some(gid))?;
            }
            Ok(lock)
        };
        let lock = make().map_err(failed(&path))?;
        Ok(Self { path, _lock: lock })
    }

    /// Deletes it, with what a run that was killed left in it.
    fn remove(self, ids: &Ids, program: &OwnedFd) -> Result<(), SandboxError> {
        remove_scratch(&self.path, ids, program)
            .map_err(|source| SandboxError::io(format!("deleting {}", self.path.display()), source))
    }
}

/// Deletes what crashed runs left: directories that nobody holds the lock of.
fn sweep(parent: &Path, ids: &Ids, program: &OwnedFd) {
    let Ok(entries) = std::fs::read_dir(parent) else { return };
    for entry in
        entries.flatten().filter(|entry| entry.file_name().as_encoded_bytes().starts_with(PREFIX.as_bytes()))
    {
        let path = entry.path();
        let Ok(directory) = File::open(&path) else { continue };
        if rustix::fs::flock(&directory, FlockOperation::NonBlockingLockExclusive).is_ok() {
            // What cannot be deleted costs space and nothing else; this run goes on.
            let _ = remove_scratch(&path, ids, program);
        }
    }
}

fn remove_scratch(path: &Path, ids: &Ids, program: &OwnedFd) -> io::Result<()> {
    match std::fs::remove_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => {
            // Its files belong to ids that only a namespace can act for.
            let never = AtomicBool::new(false);
            let swept = Running::start(STAGE_SWEEP, path, program, ids, &never).and_then(|mut child| {
                let result = child.read_tag().map(drop);
                child.finish(result)
            });
            swept.map_err(io::Error::other)?;
            std::fs::remove_dir(path)
        }
        other => other,
    }
}

/// Everything the child is sent before the steps.
struct Plan<'a> {
    memory: u64,
    emulation: Emulation,
    tools: &'a Tree,
    lower: &'a Tree,
    hidden: &'a BTreeSet<TreePath>,
    sources: &'a Sources<'a>,
}

/// A child, and the socket to it.
struct Running<'a> {
    child: Child,
    link: BufReader<Link<'a>>,
}

impl<'a> Running<'a> {
    /// Starts a stage in the directory `scratch` and gives its user namespace ids.
    fn start(
        stage: &str,
        scratch: &Path,
        program: &OwnedFd,
        ids: &Ids,
        cancel: &'a AtomicBool,
    ) -> Result<Self, SandboxError> {
        let failed = |what: &'static str| move |source| SandboxError::io(what, source);
        let (ours, theirs) = UnixStream::pair().map_err(failed("making a socket"))?;
        for set in [UnixStream::set_read_timeout, UnixStream::set_write_timeout] {
            // Often enough to give up at once when asked to.
            set(&ours, Some(Duration::from_millis(100))).map_err(failed("making a socket"))?;
        }
        #[expect(clippy::disallowed_methods, reason = "the sandbox starts processes")]
        let mut command = Command::new(format!("/proc/self/fd/{}", program.as_raw_fd()));
        command.arg(stage).current_dir(scratch).env_clear();
        command.stdin(Stdio::from(OwnedFd::from(theirs))).stdout(Stdio::null()).stderr(Stdio::piped());
        let child = command.spawn().map_err(failed("starting the sandbox"))?;
        // Or this end would keep the child's end of the socket open.
        drop(command);
        let mut running =
            Self { child, link: BufReader::with_capacity(256 << 10, Link { stream: ours, cancel }) };
        let mapped = running.read_tag().and_then(|tag| match tag {
            tag::UNSHARED => {
                ids.write(Pid::from_child(&running.child))?;
                running.link.get_mut().write_all(&[tag::MAPPED]).map_err(failed("talking to the sandbox"))
            }
            other => Err(SandboxError::io("starting the sandbox", bad(format!("unknown message {other}")))),
        });
        match mapped {
            Ok(()) => Ok(running),
            Err(error) => running.finish(Err(error)),
        }
    }

    fn send_plan(&mut self, plan: &Plan<'_>, job: &Job<'_>) -> io::Result<()> {
        let link = self.link.get_mut();
        link.send_descriptors(plan.sources)?;
        let mut out = BufWriter::with_capacity(256 << 10, link);
        out.put_u64(plan.memory)?;
        out.put_u8(plan.emulation as u8)?;
        // Never the host's own name: scripts write it into files.
        out.put_bytes(b"localhost")?;
        send(&mut out, plan.tools, plan.sources)?;
        send(&mut out, plan.lower, plan.sources)?;
        out.put_u32(plan.hidden.len() as u32)?;
        plan.hidden.iter().try_for_each(|path| out.put_bytes(path.as_bytes()))?;
        out.put_u32(job.steps.len() as u32)?;
        for step in job.steps {
            out.put_u32(step.argv.len() as u32)?;
            step.argv.iter().try_for_each(|argument| out.put_bytes(argument))?;
            out.put_u32(step.environment.len() as u32)?;
            for (name, value) in &step.environment {
                out.put_bytes(format!("{name}={value}").as_bytes())?;
            }
            out.put_bytes(&step.input)?;
        }
        out.flush()
    }

    /// Listens until the child is done.
    fn follow(
        &mut self,
        job: &Job<'_>,
        started: Instant,
        sent: io::Result<()>,
        on: &mut dyn FnMut(Event<'_>),
    ) -> Result<Outcome, SandboxError> {
        let mut times = Vec::new();
        let mut since = started;
        let mut lap = |label: &str| {
            times.push((label.to_owned(), since.elapsed()));
            since = Instant::now();
        };
        let mut output = Output::default();
        let mut index = 0;
        let mut failed = None;
        let mut receiver = Receiver::new(job.pack);
        let announce = |index: usize, on: &mut dyn FnMut(Event<'_>)| {
            if let Some(step) = job.steps.get(index) {
                on(Event::Step { index, label: &step.label });
            }
        };
        loop {
            let tag = self.read_tag().map_err(|error| match (&sent, error) {
                (Err(broken), SandboxError::Died { .. }) if broken.kind() != io::ErrorKind::BrokenPipe => {
                    SandboxError::io(
                        "sending the tree to the sandbox",
                        io::Error::new(broken.kind(), broken.to_string()),
                    )
                }
                (_, error) => error,
            })?;
            let broken = |source| SandboxError::io("listening to the sandbox", source);
            match tag {
                tag::LAID_OUT => {
                    lap("laying out");
                    on(Event::Ready);
                    announce(0, on);
                }
                tag::OUTPUT => {
                    let bytes = self.link.take_bytes(TEXT_LIMIT).map_err(broken)?;
                    output.add(&bytes, &mut |line| on(Event::Line(line)));
                }
                tag::STEP => {
                    let signalled = self.link.take_u32().map_err(broken)? != 0;
                    let code = self.link.take_u32().map_err(broken)?;
                    output.end(&mut |line| on(Event::Line(line)));
                    let label = job.steps.get(index).map_or("", |step| step.label.as_str());
                    lap(label);
                    if signalled || code != 0 {
                        let last: Vec<String> = output.last.iter().cloned().collect();
                        let (package, script) = culprit(&last);
                        let word = if signalled { "signal" } else { "exit status" };
                        let status = format!("{word} {code}");
                        failed = Some(SandboxError::Step {
                            label: label.to_owned(),
                            package,
                            script,
                            status,
                            last,
                        });
                    }
                    output.last.clear();
                    index += 1;
                    announce(index, on);
                }
                // After the last change; what follows is DONE.
                tag::END => lap("collecting"),
                tag::DONE => break,
                kind => receiver.receive(kind, &mut self.link).map_err(broken)?,
            }
        }
        match failed {
            Some(error) => Err(error),
            None => Ok(Outcome { changes: receiver.finish(), times, log: output.log }),
        }
    }

    /// The next message's kind; a fault of the child becomes an error.
    fn read_tag(&mut self) -> Result<u8, SandboxError> {
        let broken = |source: io::Error| match source.kind() {
            io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset => {
                SandboxError::Died { status: String::new(), said: String::new() }
            }
            _ => SandboxError::io("listening to the sandbox", source),
        };
        let tag = self.link.take_u8().map_err(broken)?;
        if tag != tag::FAULT {
            return Ok(tag);
        }
        let code = self.link.take_u32().map_err(broken)? as i32;
        let what = self.link.take_bytes(TEXT_LIMIT).map_err(broken)?;
        let text = self.link.take_bytes(TEXT_LIMIT).map_err(broken)?;
        let what = String::from_utf8_lossy(&what).into_owned();
        let source = match code {
            0 => io::Error::other(String::from_utf8_lossy(&text).into_owned()),
            code => io::Error::from_raw_os_error(code),
        };
        let is_refusal = [rustix::io::Errno::PERM, rustix::io::Errno::NOSPC, rustix::io::Errno::USERS]
            .iter()
            .any(|errno| errno.raw_os_error() == code);
        let about_rights = ["namespace", "mounting", "root", "making mounts", "registering"];
        if is_refusal && about_rights.iter().any(|word| what.contains(word)) {
            return Err(SandboxError::Refused { what, source });
        }
        Err(SandboxError::io(what, source))
    }

    /// Waits for the child, ending it first when there is an error, until nothing of it is left.
    fn finish<T>(&mut self, result: Result<T, SandboxError>) -> Result<T, SandboxError> {
        let cancelled = self.link.get_ref().cancel.load(Ordering::Relaxed);
        if result.is_err() {
            // Stage 2 is tied to stage 1, and everything else to stage 2: the kernel ends them all.
            let _ = self.child.kill();
        }
        let mut said = Vec::new();
        if let Some(stderr) = self.child.stderr.take() {
            // Ends when the last process that holds it has: stages 1 and 2. Steps have pipes of their own.
            let _ = stderr.take(64 << 10).read_to_end(&mut said);
        }
        let status = self.child.wait();
        match result {
            Err(_) if cancelled => Err(SandboxError::Cancelled),
            Err(SandboxError::Died { .. }) => {
                let status = status.map_or_else(|error| error.to_string(), |status| status.to_string());
                Err(SandboxError::Died { status, said: String::from_utf8_lossy(&said).trim().to_owned() })
            }
            other => other,
        }
    }
}

/// Nothing outlives whoever gave up on it, by a panic too.
impl Drop for Running<'_> {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The socket, with an eye on the wish to give up.
struct Link<'a> {
    stream: UnixStream,
    cancel: &'a AtomicBool,
}

impl Link<'_> {
    fn retry<T>(&self, mut operation: impl FnMut(&UnixStream) -> io::Result<T>) -> io::Result<T> {
        loop {
            if self.cancel.load(Ordering::Relaxed) {
                return Err(io::Error::other("cancelled"));
            }
            match operation(&self.stream) {
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                }
                other => return other,
            }
        }
    }

    fn send_descriptors(&self, sources: &Sources<'_>) -> io::Result<()> {
        let mut space = vec![std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(253))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        let descriptors = sources.descriptors();
        if !descriptors.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(descriptors)) {
            return Err(io::Error::other("too many packs"));
        }
        rustix::net::sendmsg(&self.stream, &[io::IoSlice::new(&[0])], &mut ancillary, SendFlags::empty())?;
        Ok(())
    }
}

impl Read for Link<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.retry(|mut stream| stream.read(buffer))
    }
}

impl Write for Link<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.retry(|mut stream| stream.write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A step's output, cut into lines.
#[derive(Default)]
struct Output {
    rest: Vec<u8>,
    last: VecDeque<String>,
    log: String,
}

impl Output {
    fn add(&mut self, bytes: &[u8], on: &mut dyn FnMut(&str)) {
        for byte in bytes {
            if *byte == b'\n' || self.rest.len() >= LINE_LIMIT {
                self.end(on);
            }
            if *byte != b'\n' {
                self.rest.push(*byte);
            }
        }
    }

    fn end(&mut self, on: &mut dyn FnMut(&str)) {
        if self.rest.is_empty() {
            return;
        }
        let line = String::from_utf8_lossy(&std::mem::take(&mut self.rest)).trim_end().to_owned();
        on(&line);
        if self.log.len() > LOG_LIMIT {
            let half = (self.log.len() / 2..).find(|cut| self.log.is_char_boundary(*cut)).unwrap_or(0);
            self.log.drain(..half);
        }
        self.log.push_str(&line);
        self.log.push('\n');
        if self.last.len() == LAST_LINES {
            self.last.pop_front();
        }
        self.last.push_back(line);
    }
}

/// Twins never become files of the target, but a script could copy `/proc/self/exe` of one.
fn no_host_programs(changes: &[Change], emulation: Emulation) -> Result<(), SandboxError> {
    if emulation == Emulation::None {
        return Ok(());
    }
    for change in changes {
        let Change::Put { path, kind: Kind::File(content), .. } = change else { continue };
        let mut head = [0; 20];
        if content.len() < 64 || content.read_exact_at(&mut head, 0).is_err() {
            continue;
        }
        if elf::machine(&head) == Some(twins::HOST_MACHINE) {
            return Err(SandboxError::HostProgram { path: path.clone() });
        }
    }
    Ok(())
}
