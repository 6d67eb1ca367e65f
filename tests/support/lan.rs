//! A small network of its own for one device: a network namespace with a tap, DHCP, router advertisements, names and
//! the time, and a stranger who is not on the LAN. Nothing reaches the host's network.

use crate::qemu::{output, run, spawn};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::net::{AddressFamily, SocketFlags, SocketType};

/// Our own addresses on the LAN, and the stranger's.
const LAN4: Ipv4Addr = Ipv4Addr::new(192, 168, 77, 1);
const LAN6: Ipv6Addr = Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 1);
const STRANGER4: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);
const STRANGER6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);

/// How many ports are knocked at together, and how long an answer may take. An emulated device is slow.
const AT_ONCE: usize = 1500;
const PATIENCE: Duration = Duration::from_millis(1500);

/// A port of the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Port {
    /// TCP and its number.
    Tcp(u16),
    /// UDP and its number.
    Udp(u16),
}

/// What came back from a port. Silence is not in here: it is what a firewall should say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Answer {
    /// Something listens.
    Open,
    /// Nothing listens, and the firewall lets the question through.
    Refused,
}

/// Where a question comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// A private address: a neighbour on the LAN.
    Lan,
    /// A public address: somebody from the Internet.
    Stranger,
}

/// A network namespace with one tap in it. Dropping it takes it down.
#[derive(Debug)]
pub struct Lan {
    name: String,
    dnsmasq: Option<Child>,
    room: tempfile::TempDir,
}

impl Lan {
    /// Makes the network. Needs root: a test that cannot have it fails and says so.
    pub fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        assert!(
            rustix::process::geteuid().is_root(),
            "the boot test makes a network namespace: run it as root"
        );
        let name = format!("hardtack{}x{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let room = tempfile::Builder::new().prefix("hardtack-lan-").tempdir().expect("a temporary directory");
        run("iproute2", Command::new("ip").args(["netns", "add", &name]));
        let mut lan = Self { name, dnsmasq: None, room };
        let both = |address: &dyn std::fmt::Display, length: u8| format!("{address}/{length}");
        lan.ip(&["link", "set", "lo", "up"]);
        lan.ip(&["tuntap", "add", "dev", lan.tap(), "mode", "tap"]);
        lan.ip(&["address", "add", &both(&LAN4, 24), "dev", lan.tap()]);
        lan.ip(&["address", "add", &both(&STRANGER4, 32), "dev", lan.tap()]);
        lan.ip(&["address", "add", &both(&LAN6, 64), "dev", lan.tap(), "nodad"]);
        lan.ip(&["address", "add", &both(&STRANGER6, 128), "dev", lan.tap(), "nodad"]);
        lan.ip(&["link", "set", lan.tap(), "up"]);
        lan.tell_the_time();
        lan.dnsmasq = Some(lan.start_dnsmasq());
        lan
    }

    /// The name of the tap inside the namespace.
    pub fn tap(&self) -> &'static str {
        "tap0"
    }

    /// A command that runs inside the namespace.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name, program]);
        command
    }

    fn ip(&self, arguments: &[&str]) -> String {
        run("iproute2", Command::new("ip").args(["-n", &self.name]).args(arguments))
    }

    /// DHCP, router advertisements and names: every name of the time servers leads to us.
    fn start_dnsmasq(&self) -> Child {
        let path = |file: &str| self.room.path().join(file).display().to_string();
        let mut dnsmasq = self.command("dnsmasq");
        dnsmasq.args([
            "--keep-in-foreground",
            "--conf-file=/dev/null",
            "--no-resolv",
            "--no-hosts",
            "--user=root",
        ]);
        dnsmasq.args(["--interface=tap0", "--bind-interfaces", "--except-interface=lo", "--enable-ra"]);
        dnsmasq.arg("--dhcp-range=192.168.77.50,192.168.77.99,1h").arg("--dhcp-range=fd77::,ra-stateless,64");
        dnsmasq.arg(format!("--address=/pool.ntp.org/{LAN4}")).arg("--log-dhcp");
        dnsmasq
            .arg(format!("--dhcp-leasefile={}", path("leases")))
            .arg(format!("--pid-file={}", path("pid")));
        let log = fs::File::create(path("dnsmasq.log")).expect("a log for dnsmasq");
        dnsmasq.stdin(Stdio::null()).stdout(log.try_clone().expect("a second handle")).stderr(log);
        spawn("dnsmasq-base", &mut dnsmasq)
    }

    /// Runs `work` on a thread that lives in the namespace: the sockets it makes belong there.
    fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let namespace = fs::File::open(format!("/run/netns/{}", self.name)).expect("the namespace");
        thread::scope(|scope| {
            let thread = scope.spawn(|| {
                let network = Some(rustix::thread::LinkNameSpaceType::Network);
                rustix::thread::move_into_link_name_space(namespace.as_fd(), network)
                    .expect("to enter the namespace");
                work()
            });
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Answers every question for the time (SNTP, RFC 4330), until the process ends.
    fn tell_the_time(&self) {
        let socket = self.inside(|| UdpSocket::bind((LAN4, 123)).expect("port 123"));
        thread::spawn(move || {
            let mut question = [0; 128];
            while let Ok((length, from)) = socket.recv_from(&mut question) {
                if length < 48 {
                    continue;
                }
                // A test has to know what day it is to send a device there.
                #[expect(clippy::disallowed_methods, reason = "a time server tells the real time")]
                let now =
                    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
                let seconds = u32::try_from(now.as_secs() + 2_208_988_800).unwrap_or(0).to_be_bytes();
                let mut answer = [0_u8; 48];
                answer[0] = 0b00_100_100;
                answer[1] = 1;
                answer[12..16].copy_from_slice(b"GPS\0");
                answer[24..32].copy_from_slice(&question[40..48]);
                for at in [16, 32, 40] {
                    answer[at..at + 4].copy_from_slice(&seconds);
                }
                if socket.send_to(&answer, from).is_err() {
                    break;
                }
            }
        });
    }

    /// The device's address on the LAN, as DHCP gave it; waits for it.
    pub fn device4(&self, timeout: Duration) -> Ipv4Addr {
        let end = Instant::now() + timeout;
        loop {
            let leases = fs::read_to_string(self.room.path().join("leases")).unwrap_or_default();
            let found = leases.lines().filter_map(|line| line.split_whitespace().nth(2)?.parse().ok()).next();
            if let Some(address) = found {
                return address;
            }
            let log = || fs::read_to_string(self.room.path().join("dnsmasq.log")).unwrap_or_default();
            assert!(Instant::now() < end, "the device asked for no address; dnsmasq says:\n{}", log());
            thread::sleep(Duration::from_secs(1));
        }
    }

    /// Knocks at every TCP port of the device and at `udp`, and returns which ports answered, and how.
    pub fn scan(&self, device: IpAddr, side: Side, udp: &BTreeSet<u16>) -> BTreeMap<Port, Answer> {
        // More sockets at once than a login usually may have, fewer than it may ask for.
        let mut limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
        limit.current = limit.maximum;
        rustix::process::setrlimit(rustix::process::Resource::Nofile, limit).expect("to raise a soft limit");
        self.inside(|| {
            let mut found = BTreeMap::new();
            let all: Vec<u16> = (1..=u16::MAX).collect();
            for ports in all.chunks(AT_ONCE) {
                found.extend(knock(device, side, SocketType::STREAM, ports));
            }
            let udp: Vec<u16> = udp.iter().copied().collect();
            for ports in udp.chunks(20) {
                found.extend(knock(device, side, SocketType::DGRAM, ports));
            }
            found
        })
    }
}

impl Drop for Lan {
    fn drop(&mut self) {
        if let Some(mut dnsmasq) = self.dnsmasq.take() {
            drop(dnsmasq.kill());
            drop(dnsmasq.wait());
        }
        drop(output("iproute2", Command::new("ip").args(["netns", "delete", &self.name])));
    }
}

/// Knocks at some ports together and returns what answered in time.
fn knock(device: IpAddr, side: Side, kind: SocketType, ports: &[u16]) -> Vec<(Port, Answer)> {
    let local = match (device, side) {
        (IpAddr::V4(_), Side::Lan) => SocketAddr::from((LAN4, 0)),
        (IpAddr::V4(_), Side::Stranger) => SocketAddr::from((STRANGER4, 0)),
        (IpAddr::V6(_), Side::Lan) => SocketAddr::from((LAN6, 0)),
        (IpAddr::V6(_), Side::Stranger) => SocketAddr::from((STRANGER6, 0)),
    };
    let tcp = kind == SocketType::STREAM;
    let family = if device.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let mut found = Vec::new();
    let mut waiting: Vec<(u16, OwnedFd)> = Vec::new();
    for &port in ports {
        let name = if tcp { Port::Tcp(port) } else { Port::Udp(port) };
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let socket = rustix::net::socket_with(family, kind, flags, None).expect("a socket");
        rustix::net::bind(&socket, &local).expect("our own address");
        let target = match device {
            IpAddr::V4(address) => SocketAddr::from((address, port)),
            IpAddr::V6(address) => SocketAddrV6::new(address, port, 0, 0).into(),
        };
        match rustix::net::connect(&socket, &target) {
            Err(rustix::io::Errno::INPROGRESS) => waiting.push((port, socket)),
            Ok(()) if tcp => found.push((name, Answer::Open)),
            Ok(()) => {
                // An empty datagram opens nothing anywhere; a DNS question is polite everywhere and gets more answers.
                // An error here is the answer to an earlier datagram; it comes again below.
                let _ = rustix::net::send(&socket, QUESTION, rustix::net::SendFlags::empty());
                waiting.push((port, socket));
            }
            Err(rustix::io::Errno::CONNREFUSED) => found.push((name, Answer::Refused)),
            Err(error) => panic!("{target}: {error}"),
        }
    }
    thread::sleep(PATIENCE);
    for (port, socket) in waiting {
        if tcp {
            match rustix::net::sockopt::socket_error(&socket) {
                Ok(Ok(())) if rustix::net::getpeername(&socket).is_ok() => {
                    found.push((Port::Tcp(port), Answer::Open))
                }
                Ok(Err(rustix::io::Errno::CONNREFUSED)) => found.push((Port::Tcp(port), Answer::Refused)),
                _ => {}
            }
        } else {
            match UdpSocket::from(socket).recv(&mut [0; 2048]) {
                Ok(_) => found.push((Port::Udp(port), Answer::Open)),
                Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
                    found.push((Port::Udp(port), Answer::Refused));
                }
                Err(_) => {}
            }
        }
    }
    found
}

/// A question for the address of `.`: 17 bytes that a name server answers and others ignore.
const QUESTION: &[u8] = b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x00\x01\x00\x01";
