//! Boots finished images in QEMU, unchanged, and asks them from outside what they are.
//!
//! A boot takes minutes, so these tests are ignored by default; `./ci/check` runs them. `HARDTACK_TEST_IMAGE` names
//! images to boot, separated by colons; without it the shipped profiles are built first. `HARDTACK_BOOT_LOGS` names a
//! directory for the consoles of devices that failed.

#![expect(clippy::disallowed_methods, reason = "the judges are programs, QEMU among them")]

#[path = "support/lan.rs"]
mod lan;
#[path = "support/qemu.rs"]
mod qemu;

use lan::{Answer, Lan, Port, Side};
use qemu::{Boot, Machine, Options, Partition, output, run};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::{IpAddr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// How long a device may take to start up: emulated, on a busy machine.
const VIRT: Duration = Duration::from_secs(900);
const RASPI: Duration = Duration::from_secs(1800);

/// UDP ports that devices of this kind are wont to leave open.
const COMMON_UDP: [u16; 30] = [
    19, 53, 67, 68, 69, 111, 123, 137, 138, 161, 500, 514, 520, 546, 547, 631, 1194, 1701, 1900, 3702, 4500,
    5000, 5060, 5353, 5355, 11211, 32768, 33434, 49152, 51820,
];

/// The images to look at, by name.
fn images() -> Vec<PathBuf> {
    if let Some(named) = std::env::var_os("HARDTACK_TEST_IMAGE") {
        return std::env::split_paths(&named).collect();
    }
    let profiles = ["minimal", "files", "dns"];
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("boot-images");
    let built = output(
        "cargo",
        Command::new(env!("CARGO_BIN_EXE_hardtack")).arg("build").args(profiles).arg("-o").arg(&directory),
    );
    assert!(built.status.success(), "hardtack build: {}", String::from_utf8_lossy(&built.stderr));
    profiles.iter().map(|name| directory.join(format!("{name}.img"))).collect()
}

fn digest(image: &Path) -> String {
    run("coreutils", Command::new("sha256sum").arg("--").arg(image))
}

/// What is wrong with a device: everything is looked at before the test fails, because looking takes minutes.
#[derive(Default)]
struct Findings(Vec<String>);

impl Findings {
    fn check(&mut self, right: bool, wrong: impl FnOnce() -> String) {
        if !right {
            self.0.push(wrong());
        }
    }

    fn same<T: PartialEq + std::fmt::Debug>(&mut self, what: &str, found: &T, expected: &T) {
        self.check(found == expected, || format!("{what}: found {found:?}, expected {expected:?}"));
    }

    fn none_in(self, image: &Path) {
        assert!(self.0.is_empty(), "{}:\n- {}", image.display(), self.0.join("\n- "));
    }
}

#[test]
#[ignore = "boots an image for many minutes; ./ci/check runs it"]
fn the_first_image_boots_on_a_pi_3_with_its_own_kernel_initramfs_and_device_tree() {
    let images = images();
    let image = images.first().expect("an image");
    let before = digest(image);
    let mut findings = Findings::default();

    let mut boot = Boot::start(image, Machine::Raspi3b, &Options::default());
    let state = boot.wait_until_started(RASPI);
    findings.same("state", &state, &"running".to_owned());
    findings.same("failed units", &boot.shell("systemctl --failed --no-legend"), &String::new());
    let model = boot.shell("tr -d '\\0' </proc/device-tree/model");
    findings.check(model.contains("Raspberry Pi 3"), || format!("this is a {model:?}"));
    check_identity(&mut boot, &mut findings);
    check_growth(&mut boot, &mut findings);
    check_boot_files(&mut boot, &mut findings);
    let cmdline = boot.shell("cat /proc/cmdline");
    findings.check(cmdline.contains("root=PARTUUID="), || format!("the root was found otherwise: {cmdline}"));
    drop(boot);

    findings.same("the image's digest", &digest(image), &before);
    findings.none_in(image);
}

#[test]
#[ignore = "boots images for many minutes; ./ci/check runs it"]
fn every_image_boots_twice_and_answers_on_its_declared_ports_only() {
    for image in images() {
        let before = digest(&image);
        let mut findings = Findings::default();
        look_at(&image, &mut findings);
        findings.same("the image's digest", &digest(&image), &before);
        findings.none_in(&image);
    }
}

fn look_at(image: &Path, findings: &mut Findings) {
    let lan = Lan::new();
    let mut boot = Boot::start(image, Machine::Virt, &Options { lan: Some(&lan), cmdline: "" });
    let state = boot.wait_until_started(VIRT);
    findings.same("state", &state, &"running".to_owned());
    findings.same("failed units", &boot.shell("systemctl --failed --no-legend"), &String::new());

    let (machine_id, name) = check_identity(&mut boot, findings);
    check_growth(&mut boot, findings);
    check_boot_files(&mut boot, findings);
    check_firewall_order(&mut boot, findings);
    check_settings(&mut boot, findings);
    check_units(&mut boot, image, findings);
    check_updates(&mut boot, findings);
    check_ports(&mut boot, &lan, findings);

    let state = boot.reboot(VIRT);
    findings.same("state after the second boot", &state, &"running".to_owned());
    findings.same("machine-id after the second boot", &boot.shell("cat /etc/machine-id"), &machine_id);
    findings.same("name after the second boot", &boot.shell("hostname"), &name);
    let again = boot.shell("systemctl show -p ConditionResult --value hardtack-firstboot.service");
    findings.same("the first boot's work is done again", &again.trim().to_owned(), &"no".to_owned());
    let errors = boot.shell("journalctl -b -q -p err -o cat");
    findings.same("errors in the second boot's journal", &errors.trim().to_owned(), &String::new());

    let card = boot.power_off(Duration::from_secs(300));
    for (number, package, check) in [(1, "dosfstools", "fsck.vfat"), (2, "e2fsprogs", "e2fsck")] {
        let partition = card.with_extension(number.to_string());
        Partition::of(&card, number).extract(&partition);
        let mut command = Command::new(check);
        command
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .arg(if number == 1 { "-n" } else { "-fn" })
            .arg(&partition);
        let said = output(package, &mut command);
        let text =
            String::from_utf8_lossy(&said.stdout).into_owned() + &String::from_utf8_lossy(&said.stderr);
        findings.check(said.status.success(), || format!("{check} after two boots: {}\n{text}", said.status));
        drop(fs::remove_file(partition));
    }
}

/// The device has drawn what makes it one of a kind, and knows roughly what day it is. Returns machine-id and name.
fn check_identity(boot: &mut Boot, findings: &mut Findings) -> (String, String) {
    let machine_id = boot.shell("cat /etc/machine-id");
    let good =
        machine_id.trim().len() == 32 && machine_id.trim().bytes().all(|byte| byte.is_ascii_hexdigit());
    findings.check(good, || format!("machine-id is {machine_id:?}"));
    let name = boot.shell("hostname");
    findings.same("the name in /etc/hostname", &boot.shell("cat /etc/hostname"), &name);
    findings.check(!name.contains('%'), || format!("the device is called {name:?}"));
    let (status, _) =
        boot.ask("grep -q \"^127.0.1.1[[:space:]]$(hostname)$\" /etc/hosts", Duration::from_secs(60));
    findings.check(status == 0, || "/etc/hosts does not know the device's name".to_owned());
    let (status, _) = boot.ask("[ -s /var/lib/systemd/random-seed ]", Duration::from_secs(60));
    findings.check(status == 0, || "there is no random seed for the next boot".to_owned());
    let (status, said) =
        boot.ask("[ $(date +%s) -ge $(stat -c %Y /usr/lib/clock-epoch) ]; date", Duration::from_secs(60));
    findings.check(status == 0 && !said.contains("1980"), || format!("the clock says {said}"));
    (machine_id, name)
}

/// The root file system reaches to the end of the card.
fn check_growth(boot: &mut Boot, findings: &mut Findings) {
    let said = boot.shell(
        "root=$(basename $(findmnt -no SOURCE /)); disk=$(basename $(dirname $(readlink -f /sys/class/block/$root))); \
         echo $(cat /sys/class/block/$disk/size) $(cat /sys/class/block/$root/start) $(cat /sys/class/block/$root/size) \
         $(findmnt -bno SIZE /)",
    );
    let numbers: Vec<u64> = said.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    let [disk, start, partition, filesystem] = numbers[..] else { panic!("four numbers, not {said:?}") };
    findings.check(disk - (start + partition) <= 4096, || format!("the partition ends {said}"));
    // What ext4 keeps for itself is not in the number: inode tables and journal, a few per cent.
    findings
        .check(filesystem > partition * 512 / 100 * 90, || format!("the file system did not grow: {said}"));
}

/// Debian's own hooks, run on the device, write the boot files that the image came with, and two kernels more would fit.
fn check_boot_files(boot: &mut Boot, findings: &mut Findings) {
    let (status, said) = boot.ask(
        "set -e; cd /boot/firmware; rm -rf /run/before; mkdir /run/before; cp cmdline.txt config.txt /run/before/; \
         (ls; cat vmlinuz-* initrd.img-* *.dtb | cksum) >/run/before/list; \
         DEB_MAINT_PARAMS=configure /etc/kernel/postinst.d/z50-raspi-firmware; \
         (ls; cat vmlinuz-* initrd.img-* *.dtb | cksum) >/run/before/list2; \
         diff /run/before/list /run/before/list2; diff /run/before/cmdline.txt cmdline.txt; diff /run/before/config.txt config.txt",
        Duration::from_secs(600),
    );
    findings.check(status == 0, || format!("the kernel's hook writes another boot configuration:\n{said}"));
    let said = boot.shell(
        "cd /boot/firmware; echo $(($(stat -f -c '%a * %S' .) / 1024)) $(cat vmlinuz-* initrd.img-* | wc -c | awk '{print int($1/1024)}')",
    );
    let numbers: Vec<u64> = said.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    let [free, kernel] = numbers[..] else { panic!("two numbers, not {said:?}") };
    findings.check(free > 2 * kernel, || {
        format!("{free} KiB are free, a kernel takes {kernel}: two more do not fit")
    });
}

/// The firewall was loaded before anything could reach the network.
fn check_firewall_order(boot: &mut Boot, findings: &mut Findings) {
    let mut monotonic = |unit: &str, property: &str| -> u64 {
        let said = boot.shell(&format!("systemctl show --value -p {property} {unit}"));
        said.trim().parse().unwrap_or_else(|_| panic!("{property} of {unit} is {said:?}"))
    };
    let loaded = monotonic("nftables.service", "ActiveEnterTimestampMonotonic");
    let network = monotonic("NetworkManager.service", "ExecMainStartTimestampMonotonic");
    let first = monotonic("hardtack-firstboot.service", "ActiveEnterTimestampMonotonic");
    findings.check(0 < loaded && loaded < network, || {
        format!("firewall at {loaded} µs, network at {network} µs")
    });
    findings.check(0 < first && first < network, || {
        format!("first boot done at {first} µs, network at {network} µs")
    });
    // The ruleset must outlive its service, which an upgrade may restart.
    let rules = boot.shell("nft list chain inet hardtack input; nft list chain inet hardtack forward");
    findings.same("default-drop chains", &rules.matches("policy drop;").count(), &2);
    let rules = boot.shell("nft list ruleset | wc -l; systemctl stop nftables; nft list ruleset | wc -l; systemctl start NetworkManager");
    let counts: Vec<_> = rules.split_whitespace().collect();
    findings.check(counts.len() == 2 && counts[0] == counts[1], || {
        format!("rules before and after a stop: {counts:?}")
    });
}

/// What the overlay says about the kernel is what the kernel does.
fn check_settings(boot: &mut Boot, findings: &mut Findings) {
    let wrong = boot.shell(
        "sed -n 's/^-\\?\\([a-z][^ ]*\\) = \\(.*\\)$/\\1 \\2/p' /etc/sysctl.d/99-hardtack.conf | while read -r name value; do \
         now=$(sysctl -n \"$name\" 2>/dev/null) || continue; [ \"$now\" = \"$value\" ] || echo \"$name is $now, not $value\"; done",
    );
    findings.same("kernel settings that did not take", &wrong.trim().to_owned(), &String::new());
    let modules = boot.shell("cat /sys/kernel/security/lsm");
    findings.check(modules.contains("apparmor"), || format!("security modules: {modules}"));
    let mounts = boot
        .shell("findmnt -no OPTIONS /tmp; findmnt -no OPTIONS /dev/shm; findmnt -no OPTIONS /boot/firmware");
    for options in mounts.lines() {
        for option in ["noexec", "nosuid", "nodev"] {
            findings.check(options.contains(option), || format!("no {option} in {options}"));
        }
    }
    let auth = boot.shell("cat /etc/pam.d/common-auth");
    findings.check(!auth.contains("nullok"), || "an empty password would be let in".to_owned());
    let swaps = boot.shell("cat /proc/swaps");
    findings.check(swaps.contains("/dev/zram0"), || format!("swap: {swaps}"));
    let open = boot.shell("awk -F: '$2 !~ /^[!*]/ {print $1}' /etc/shadow");
    findings.same("accounts with a usable password", &open.trim().to_owned(), &String::new());
}

/// The first boot's preset has enabled nothing that the image did not have enabled.
fn check_units(boot: &mut Boot, image: &Path, findings: &mut Findings) {
    let partition = Partition::of(image, 2);
    let room = tempfile::tempdir().expect("a temporary directory");
    let device = format!("{}?offset={}", image.display(), partition.start);
    let dump = format!("rdump /etc/systemd/system {}", room.path().display());
    run("e2fsprogs", Command::new("/usr/sbin/debugfs").args(["-R", &dump, &device]));
    let find = ["-c", "find . -type l -printf '%p\\n' | sort"];
    let before = run("dash", Command::new("sh").args(find).current_dir(room.path().join("system")));
    let now = boot.shell("cd /etc/systemd/system && find . -type l -printf '%p\\n' | sort");
    let set =
        |text: &str| text.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect::<BTreeSet<_>>();
    findings.same("links in /etc/systemd/system after the first boot", &set(&now), &set(&before));
}

/// Updates install themselves, from Debian's suites, at a minute of this device.
fn check_updates(boot: &mut Boot, findings: &mut Findings) {
    let (status, said) = boot.ask("unattended-upgrade --dry-run --debug", Duration::from_secs(900));
    findings.check(status == 0, || format!("unattended-upgrade --dry-run: {status}\n{said}"));
    let origins = said.lines().find(|line| line.starts_with("Allowed origins are: ")).unwrap_or_default();
    for origin in
        ["label=Debian-Security", "codename=trixie-updates,label=Debian", "codename=trixie,label=Debian"]
    {
        findings.check(origins.contains(origin), || format!("no {origin} in {origins:?}"));
    }
    let config = boot.shell("apt-config dump Unattended-Upgrade::Automatic-Reboot-Time; systemctl is-enabled apt-daily.timer apt-daily-upgrade.timer");
    findings.same("update timers", &config.matches("enabled").count(), &2);
    let drawn = boot.shell("cat /etc/apt/apt.conf.d/54hardtack-reboot 2>/dev/null || echo none");
    findings.check(drawn.contains("Automatic-Reboot-Time") || drawn.contains("none"), || drawn.clone());
}

/// What answers is what the manifest declares, from the LAN and from anywhere, by IPv4 and by IPv6.
fn check_ports(boot: &mut Boot, lan: &Lan, findings: &mut Findings) {
    let manifest = boot.shell("cat /usr/share/hardtack/manifest.json");
    let declared = declared_ports(&manifest);
    let udp: BTreeSet<u16> = COMMON_UDP
        .into_iter()
        .chain(declared.keys().filter_map(|port| if let Port::Udp(port) = port { Some(*port) } else { None }))
        .collect();

    let four = IpAddr::V4(lan.device4(Duration::from_secs(120)));
    let said = boot.shell("ip -color=never -6 -o addr show dev eth0 scope global");
    let six =
        said.split_whitespace().filter_map(|word| word.split('/').next()?.parse::<Ipv6Addr>().ok()).next();
    findings.check(six.is_some(), || format!("the device took no IPv6 address: {said:?}"));
    for device in [Some(four), six.map(IpAddr::V6)].into_iter().flatten() {
        for side in [Side::Lan, Side::Stranger] {
            let found = lan.scan(device, side, &udp);
            let (mut unasked, mut silent) = (found.clone(), Vec::new());
            for (&port, &any) in &declared {
                if !any && side == Side::Stranger {
                    continue;
                }
                let answer = unasked.remove(&port);
                // A UDP service may well ignore a question it does not understand.
                if answer != Some(Answer::Open) && matches!(port, Port::Tcp(_)) {
                    silent.push((port, answer));
                }
            }
            findings.check(unasked.is_empty(), || {
                format!("{device} answers {side:?} on ports it does not declare: {unasked:?}")
            });
            findings.check(silent.is_empty(), || {
                format!("{device} does not answer {side:?} on declared ports: {silent:?}")
            });
        }
    }
    // The device itself, asked: sockets that no firewall would have to guard, because they are not there.
    let listening = boot.shell("ss -Hltun | awk '{print $1, $5}'");
    for line in listening.lines() {
        let Some((kind, address)) = line.split_once(' ') else { continue };
        let local = address.starts_with("127.") || address.starts_with("[::1]") || address.contains("%lo:");
        let port = address.rsplit(':').next().and_then(|port| port.parse().ok()).unwrap_or(0);
        let port = if kind == "tcp" { Port::Tcp(port) } else { Port::Udp(port) };
        let dhcp = matches!(port, Port::Udp(68 | 546));
        findings
            .check(local || dhcp || declared.contains_key(&port), || format!("listens undeclared: {line}"));
    }
}

/// Port, and whether everybody may ask (`any`) or neighbours only (`lan`).
fn declared_ports(manifest: &str) -> BTreeMap<Port, bool> {
    let manifest: serde_json::Value = serde_json::from_str(manifest).expect("manifest.json is JSON");
    let mut declared = BTreeMap::new();
    for entry in manifest["ports"].as_array().expect("the manifest lists ports") {
        let text = entry["port"].as_str().map_or_else(|| entry["port"].to_string(), str::to_owned);
        let (first, last) = text.split_once('-').unwrap_or((&text, &text));
        let number = |text: &str| text.parse::<u16>().expect("a port number");
        for port in number(first)..=number(last) {
            let port = if entry["protocol"] == "tcp" { Port::Tcp(port) } else { Port::Udp(port) };
            declared.insert(port, entry["scope"] == "any");
        }
    }
    declared
}
