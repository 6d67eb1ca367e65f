//! Boots an image in QEMU, unchanged, and looks at it from outside.
//!
//! The image has no login, so the harness brings a shell along by systemd's own means: the kernel command line carries a
//! credential that PID 1 turns into a unit, and that unit is a shell on a serial line of its own. Nothing in the image is
//! touched; what the device writes goes to a copy of the image that is thrown away.

use crate::lan::Lan;
use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// The size of the card the image is written to: a power of two, because QEMU's SD card insists.
const SMALLEST_CARD: u64 = 4 << 30;

/// How long one question to the device's shell may take unless the caller knows better.
const ANSWER: Duration = Duration::from_secs(300);

/// What to boot it on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Machine {
    /// QEMU's own board: fast, with virtio, and whatever clock we give it.
    Virt,
    /// A Raspberry Pi 3, with the image's own device tree: slow, but the real drivers.
    Raspi3b,
}

/// How to boot it.
#[derive(Debug, Default)]
pub struct Options<'a> {
    /// The network the device is plugged into; none if absent.
    pub lan: Option<&'a Lan>,
    /// More words for the kernel command line.
    pub cmdline: &'a str,
}

/// A device that runs. Dropping it pulls the plug and removes its card.
pub struct Boot {
    qemu: Child,
    console: Arc<Mutex<Vec<u8>>>,
    shell: Shell,
    room: tempfile::TempDir,
    machine: Machine,
}

impl Boot {
    /// Writes `image` to a card of its own, puts the card into `machine` and switches it on. Returns at once.
    ///
    /// Kernel, initramfs, device tree and command line are the ones of the image's own boot partition, as the Pi's
    /// firmware would load them; only a console and the shell are added to the command line.
    pub fn start(image: &Path, machine: Machine, options: &Options<'_>) -> Self {
        let room =
            tempfile::Builder::new().prefix("hardtack-boot-").tempdir().expect("a temporary directory");
        let card = room.path().join("card.img");
        run(
            "coreutils",
            Command::new("cp").args(["--sparse=always", "--reflink=auto"]).arg(image).arg(&card),
        );
        let length = fs::metadata(&card).expect("the card").len();
        let size = (length + (512 << 20)).next_power_of_two().max(SMALLEST_CARD);
        fs::OpenOptions::new()
            .write(true)
            .open(&card)
            .and_then(|file| file.set_len(size))
            .expect("a bigger card");

        let partition = Partition::of(image, 1);
        let config = partition.read("config.txt");
        let kernel = partition.copy(setting(&config, "kernel="), room.path());
        let initramfs = partition.copy(setting(&config, "initramfs "), room.path());
        let own_cmdline = partition.read("cmdline.txt");

        // QEMU's Pi resets at once when its watchdog is set, instead of a minute later: there it stays unset. Its
        // second serial port is the shell's, so what the console would show comes out of the first, the early
        // console of the kernel, which is told everything by systemd too.
        let (line, extra) = match machine {
            Machine::Virt => ("hvc0", "console=ttyAMA0 systemd.show_status=yes"),
            Machine::Raspi3b => (
                "ttyS1",
                "systemd.watchdog_sec=0 earlycon=pl011,mmio32,0x3f201000 keep_bootcon loglevel=7 \
                 systemd.log_target=kmsg printk.devkmsg=on",
            ),
        };
        let cmdline = format!(
            "{} {extra} nowatchdog systemd.getty_auto=no systemd.default_device_timeout_sec=900 systemd.default_timeout_start_sec=900 \
             systemd.wants=hardtack-probe.service \
             systemd.set_credential_binary=systemd.extra-unit.hardtack-probe.service:{} {}",
            own_cmdline.trim_end_matches('\n'),
            base64(probe_unit(line).as_bytes()),
            options.cmdline,
        );
        assert!(cmdline.len() < 2048, "the kernel would cut off its command line: {} bytes", cmdline.len());

        let shell_socket = room.path().join("shell");
        let console_socket = room.path().join("console");
        let mut qemu = match options.lan {
            Some(lan) => lan.command("qemu-system-aarch64"),
            None => Command::new("qemu-system-aarch64"),
        };
        qemu.args(["-nodefaults", "-display", "none", "-monitor", "none"]);
        for (name, socket) in [("shell", &shell_socket), ("console", &console_socket)] {
            // The log beside the socket is for whoever wants to watch.
            let socket = socket.display();
            let line = format!("socket,id={name},path={socket},server=on,wait=off,logfile={socket}.log");
            qemu.arg("-chardev").arg(line);
        }
        if let Some(lan) = options.lan {
            qemu.arg("-netdev").arg(format!("tap,id=lan,ifname={},script=no,downscript=no", lan.tap()));
        }
        qemu.arg("-kernel").arg(kernel).arg("-initrd").arg(initramfs).arg("-append").arg(&cmdline);
        match machine {
            Machine::Virt => {
                // No clock chip worth the name: the device starts in 1980 and has to know better.
                qemu.args([
                    "-M",
                    "virt",
                    "-cpu",
                    "cortex-a72",
                    "-smp",
                    "2",
                    "-m",
                    "1024",
                    "-rtc",
                    "base=1980-01-01",
                ]);
                qemu.arg("-drive").arg(format!("if=none,id=card,file={},format=raw", card.display()));
                qemu.args(["-device", "virtio-blk-pci,drive=card", "-device", "virtio-serial-pci"]);
                qemu.args(["-device", "virtconsole,chardev=shell", "-serial", "chardev:console"]);
                if options.lan.is_some() {
                    qemu.args(["-device", "virtio-net-pci,netdev=lan"]);
                }
            }
            Machine::Raspi3b => {
                let dtb = partition.copy("bcm2837-rpi-3-b.dtb", room.path());
                qemu.args(["-M", "raspi3b", "-dtb"]).arg(dtb);
                qemu.arg("-drive").arg(format!("if=sd,file={},format=raw", card.display()));
                // The first serial port is the one Bluetooth sits on, the second is the header's.
                qemu.args(["-serial", "chardev:console", "-serial", "chardev:shell"]);
                if options.lan.is_some() {
                    qemu.args(["-device", "usb-net,netdev=lan"]);
                }
            }
        }
        let log = fs::File::create(room.path().join("qemu.log")).expect("a log for QEMU");
        qemu.stdin(Stdio::null()).stdout(log.try_clone().expect("a second handle")).stderr(log);
        let qemu = spawn("qemu-system-arm", &mut qemu);

        let console = Arc::new(Mutex::new(Vec::new()));
        let mut boot = Self {
            qemu,
            console,
            shell: Shell { stream: None, buffer: Vec::new(), asked: 0 },
            room,
            machine,
        };
        let mut listener = boot.connect(&console_socket);
        let heard = Arc::clone(&boot.console);
        thread::spawn(move || {
            let mut chunk = [0; 4096];
            while let Ok(length @ 1..) = listener.read(&mut chunk) {
                lock(&heard).extend_from_slice(&chunk[..length]);
            }
        });
        let line = boot.connect(&shell_socket);
        line.set_read_timeout(Some(Duration::from_millis(500)))
            .expect("a socket that does not wait for ever");
        boot.shell.stream = Some(line);
        boot
    }

    fn connect(&mut self, socket: &Path) -> UnixStream {
        let end = Instant::now() + Duration::from_secs(30);
        loop {
            match UnixStream::connect(socket) {
                Ok(stream) => return stream,
                Err(error) if Instant::now() > end => panic!("QEMU's socket {}: {error}", socket.display()),
                Err(_) => {}
            }
            if let Ok(Some(status)) = self.qemu.try_wait() {
                let log = fs::read_to_string(self.room.path().join("qemu.log")).unwrap_or_default();
                panic!("QEMU ended at once, {status}: {log}");
            }
            thread::sleep(Duration::from_millis(100));
        }
    }

    /// Waits until the console has shown `pattern`.
    pub fn wait_for(&mut self, pattern: &str, timeout: Duration) {
        let end = Instant::now() + timeout;
        while !self.console().contains(pattern) {
            assert!(
                Instant::now() < end,
                "no {pattern:?} in {timeout:?}; the console's end:\n{}",
                self.tail()
            );
            self.assert_running();
            thread::sleep(Duration::from_millis(500));
        }
    }

    /// Everything the console has shown.
    pub fn console(&self) -> String {
        String::from_utf8_lossy(&lock(&self.console)).into_owned()
    }

    fn tail(&self) -> String {
        let console = self.console();
        let lines: Vec<_> = console.lines().rev().take(40).collect();
        lines.into_iter().rev().map(|line| format!("{line}\n")).collect()
    }

    fn assert_running(&mut self) {
        if let Ok(Some(status)) = self.qemu.try_wait() {
            panic!("QEMU has ended, {status}; the console's end:\n{}", self.tail());
        }
    }

    /// Waits until systemd has finished starting up, and returns what it calls that state: `running` if nothing failed.
    pub fn wait_until_started(&mut self, timeout: Duration) -> String {
        let end = Instant::now() + timeout;
        let first_word = match self.machine {
            Machine::Virt => "Welcome to ",
            Machine::Raspi3b => "systemd[1]: ",
        };
        self.wait_for(first_word, timeout);
        self.wait_for_shell(end);
        let left = end.saturating_duration_since(Instant::now()).max(ANSWER);
        self.ask("systemctl is-system-running --wait", left).1.trim().to_owned()
    }

    /// Waits for the shell's greeting. Nothing may be typed before: half a line would be left over for the shell.
    fn wait_for_shell(&mut self, end: Instant) {
        while !self.shell.greets() {
            self.assert_running();
            assert!(Instant::now() < end, "no shell; the console's end:\n{}", self.tail());
        }
    }

    /// Runs a shell command on the device as root and returns its output, standard error included.
    /// A command that fails ends the test.
    pub fn shell(&mut self, command: &str) -> String {
        let (status, said) = self.ask(command, ANSWER);
        assert_eq!(status, 0, "on the device: {command}\n{said}");
        said
    }

    /// Runs a shell command on the device as root: its exit status and its output.
    pub fn ask(&mut self, command: &str, timeout: Duration) -> (i32, String) {
        self.shell.ask(command, timeout).unwrap_or_else(|| {
            panic!("no answer in {timeout:?} to: {command}\nthe console's end:\n{}", self.tail())
        })
    }

    /// Restarts the device and waits until it has started up again: the state systemd is in.
    pub fn reboot(&mut self, timeout: Duration) -> String {
        let end = Instant::now() + timeout;
        self.shell("systemctl --no-block reboot");
        self.wait_for_shell(end);
        self.ask("systemctl is-system-running --wait", ANSWER).1.trim().to_owned()
    }

    /// Shuts the device down in good order and returns its card, which lives as long as `self`.
    pub fn power_off(&mut self, timeout: Duration) -> PathBuf {
        let end = Instant::now() + timeout;
        self.shell("systemctl --no-block poweroff");
        loop {
            match self.qemu.try_wait() {
                Ok(Some(_)) => break,
                // A Pi cannot switch itself off; the last word is as good.
                _ if self.machine == Machine::Raspi3b && self.console().contains("System halted") => break,
                _ => assert!(Instant::now() < end, "it does not stop; the console's end:\n{}", self.tail()),
            }
            thread::sleep(Duration::from_millis(500));
        }
        self.room.path().join("card.img")
    }
}

impl Drop for Boot {
    fn drop(&mut self) {
        // Its own process, by the handle of it: it may have ended already, which is as well.
        drop(self.qemu.kill());
        drop(self.qemu.wait());
        if thread::panicking()
            && let Some(directory) = std::env::var_os("HARDTACK_BOOT_LOGS")
        {
            let name = format!("console-{:?}-{}.log", self.machine, std::process::id());
            drop(fs::write(Path::new(&directory).join(name), self.console()));
        }
    }
}

/// The unit that is the shell. A pipe between the line and the shell keeps it from taking the line for a terminal.
fn probe_unit(line: &str) -> String {
    format!(
        "[Unit]\nDefaultDependencies=no\nWants=dev-{line}.device\nAfter=dev-{line}.device\n[Service]\n\
         Environment=PAGER=cat SYSTEMD_COLORS=0 TERM=dumb COLUMNS=200 HOME=/root\n\
         ExecStart=/bin/sh -c 'exec 3<>/dev/{line};stty -F /dev/{line} raw -echo;echo {GREETING} >&3;cat <&3|sh -s >&3 2>&1'\n\
         Restart=always\nRestartSec=1\n"
    )
}

/// What the shell says when it is there.
const GREETING: &str = "hardtack-shell-is-here";

/// The shell's line.
struct Shell {
    stream: Option<UnixStream>,
    buffer: Vec<u8>,
    asked: u64,
}

impl Shell {
    /// Listens for a moment: whether the shell has said that it is there.
    fn greets(&mut self) -> bool {
        self.listen();
        let greets = String::from_utf8_lossy(&self.buffer).contains(GREETING);
        if greets {
            self.buffer.clear();
        }
        greets
    }

    /// Takes what comes within half a second. `false` if nobody will ever say anything again.
    fn listen(&mut self) -> bool {
        let Some(stream) = self.stream.as_mut() else { return false };
        let mut chunk = [0; 4096];
        match stream.read(&mut chunk) {
            Ok(0) => false,
            Ok(length) => {
                self.buffer.extend_from_slice(&chunk[..length]);
                true
            }
            Err(error) => matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut),
        }
    }

    /// Asks once. `None` if no answer came in time; a late one is thrown away by the next question.
    fn ask(&mut self, command: &str, timeout: Duration) -> Option<(i32, String)> {
        self.asked += 1;
        let (number, end) = (self.asked, Instant::now() + timeout);
        let (begin, finish) = (format!("begin-{number}-\n"), format!("\nfinish-{number}-"));
        // The quotes keep an echo of the question from looking like an answer.
        let question = format!(
            "echo; echo be''gin-{number}-; {{ {command}\n}} </dev/null; printf '\\nfin''ish-{number}-%s-\\n' $?\n"
        );
        self.stream.as_mut()?.write_all(question.as_bytes()).ok()?;
        while Instant::now() < end {
            if !self.listen() {
                return None;
            }
            let heard = String::from_utf8_lossy(&self.buffer).replace('\r', "");
            if let Some((_, rest)) = heard.rsplit_once(&begin)
                && let Some((said, rest)) = rest.rsplit_once(&finish)
                && let Some((status, _)) = rest.split_once('-')
            {
                let answer = (status.parse().ok()?, said.to_owned());
                self.buffer.clear();
                return Some(answer);
            }
        }
        self.buffer.clear();
        None
    }
}

/// A partition of an image.
pub struct Partition {
    image: PathBuf,
    /// Where it begins, in bytes.
    pub start: u64,
    /// How long it is, in bytes.
    pub size: u64,
}

impl Partition {
    /// The partition with this number, by sfdisk.
    pub fn of(image: &Path, number: usize) -> Self {
        let table = run("fdisk", Command::new("sfdisk").args(["--json", "--"]).arg(image));
        let table: serde_json::Value = serde_json::from_str(&table).expect("sfdisk writes JSON");
        let entry = &table["partitiontable"]["partitions"][number - 1];
        let sector = table["partitiontable"]["sectorsize"].as_u64().unwrap_or(512);
        let bytes = |key: &str| entry[key].as_u64().expect("a partition") * sector;
        Self { image: image.to_owned(), start: bytes("start"), size: bytes("size") }
    }

    /// As mtools name a file of it.
    fn drive(&self) -> String {
        format!("{}@@{}", self.image.display(), self.start)
    }

    /// A small text file at the top of a FAT partition.
    pub fn read(&self, name: &str) -> String {
        run("mtools", Command::new("mtype").arg("-i").arg(self.drive()).arg(format!("::{name}")))
    }

    /// Copies a file from the top of a FAT partition into a directory.
    pub fn copy(&self, name: &str, directory: &Path) -> PathBuf {
        let target = directory.join(name);
        run(
            "mtools",
            Command::new("mcopy").arg("-i").arg(self.drive()).arg(format!("::{name}")).arg(&target),
        );
        target
    }

    /// Copies the whole partition into a file, for tools that take no offset.
    pub fn extract(&self, target: &Path) {
        run(
            "coreutils",
            Command::new("dd")
                .args(["bs=1M", "conv=sparse", "iflag=skip_bytes,count_bytes", "status=none"])
                .arg(format!("if={}", self.image.display()))
                .arg(format!("of={}", target.display()))
                .arg(format!("skip={}", self.start))
                .arg(format!("count={}", self.size)),
        );
    }
}

/// What follows `key` on a line of config.txt; the last word counts.
fn setting<'a>(config: &'a str, key: &str) -> &'a str {
    let found = config.lines().filter_map(|line| line.strip_prefix(key)).next_back();
    found.unwrap_or_else(|| panic!("config.txt has no {key:?}:\n{config}")).trim()
}

/// Runs a tool of the host, wants it to succeed, and returns its output. A missing tool is a failure, never a skip.
pub fn run(package: &str, command: &mut Command) -> String {
    let output = output(package, command);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {}\n{said}", output.status);
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Runs a tool of the host to its end.
pub fn output(package: &str, command: &mut Command) -> Output {
    command.output().unwrap_or_else(|error| missing(package, command, &error))
}

/// Starts a tool of the host.
pub fn spawn(package: &str, command: &mut Command) -> Child {
    command.spawn().unwrap_or_else(|error| missing(package, command, &error))
}

fn missing(package: &str, command: &Command, error: &std::io::Error) -> ! {
    let program = command.get_program().to_string_lossy();
    panic!("{program}: {error}; this test needs the package {package}")
}

fn lock(bytes: &Mutex<Vec<u8>>) -> MutexGuard<'_, Vec<u8>> {
    bytes.lock().unwrap_or_else(PoisonError::into_inner)
}

/// RFC 4648, with padding: what a kernel command line can carry.
fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let value = chunk
            .iter()
            .enumerate()
            .fold(0_u32, |value, (at, &byte)| value | u32::from(byte) << (16 - 8 * at));
        for at in 0..4 {
            let letter = LETTERS[(value >> (18 - 6 * at) & 63) as usize];
            text.push(if at <= chunk.len() { char::from(letter) } else { '=' });
        }
    }
    text
}
