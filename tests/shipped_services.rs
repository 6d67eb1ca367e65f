//! The configuration of shipped services, judged by the programs that will read it.

#![expect(clippy::disallowed_methods, reason = "tests start the programs that judge")]

use std::path::Path;
use std::process::{Command, Output};

fn judge(program: &str, arguments: &[&str], package: &str) -> Output {
    let output = Command::new(program).args(arguments).output();
    output.unwrap_or_else(|error| panic!("{program}: {error}: install {package}"))
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&[output.stdout.as_slice(), &output.stderr].concat()).into_owned()
}

/// Whether Samba accepts it, and what it takes from it.
fn samba(path: &Path) -> (bool, String) {
    let output = judge("testparm", &["-s", path.to_str().unwrap()], "samba-common-bin");
    let text = text(&output);
    (output.status.success() && !text.contains("Unknown parameter") && !text.contains("WARNING"), text)
}

#[test]
fn samba_reads_its_configuration_as_it_is_meant() {
    let path = Path::new("overlays/files/files/etc/samba/smb.conf");
    let (good, said) = samba(path);
    assert!(good, "{said}");
    for line in [
        "server min protocol = SMB3_00",
        "smb ports = 445",
        "disable netbios = Yes",
        "server signing = required",
        "restrict anonymous = 2",
        "hosts deny = ALL",
        "valid users = @files",
    ] {
        assert!(said.contains(line), "`{line}` is not in what Samba understood:\n{said}");
    }
    assert!(!said.contains("guest ok = Yes") && !said.contains("map to guest"), "{said}");

    let directory = tempfile::tempdir().unwrap();
    let broken = directory.path().join("smb.conf");
    let text = std::fs::read_to_string(path).unwrap().replace("disable netbios", "disable netboos");
    std::fs::write(&broken, text).unwrap();
    assert!(!samba(&broken).0, "the check does not notice a misspelt setting");
}

#[test]
fn unbound_reads_its_configuration() {
    let path = Path::new("overlays/dns/files/etc/unbound/unbound.conf.d/hardtack.conf");
    let check = |path: &Path| judge("unbound-checkconf", &[path.to_str().unwrap()], "unbound");
    let output = check(path);
    assert!(output.status.success(), "{}", text(&output));
    let value = |name: &str| {
        let output = judge("unbound-checkconf", &["-o", name, path.to_str().unwrap()], "unbound");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    };
    assert_eq!(value("interface"), "127.0.0.1@5335", "it listens where nobody else can ask");
    assert_eq!(value("harden-dnssec-stripped"), "yes");

    let directory = tempfile::tempdir().unwrap();
    let broken = directory.path().join("unbound.conf");
    std::fs::write(&broken, std::fs::read_to_string(path).unwrap().replace("prefetch", "perfetch")).unwrap();
    assert!(!check(&broken).status.success(), "the check does not notice a misspelt setting");
}

#[test]
fn dnsmasq_reads_its_configuration() {
    let path = Path::new("overlays/dns/files/etc/dnsmasq.d/hardtack.conf");
    let check = |path: &Path| judge("dnsmasq", &["--test", "-C", path.to_str().unwrap()], "dnsmasq-base");
    let output = check(path);
    assert!(output.status.success(), "{}", text(&output));
    let words = std::fs::read_to_string(path).unwrap();
    let settings = |word: &str| words.lines().any(|line| !line.starts_with('#') && line.starts_with(word));
    assert!(!settings("dhcp"), "addresses are given out unasked");
    assert!(settings("server=127.0.0.1#5335"), "it does not ask unbound");

    let directory = tempfile::tempdir().unwrap();
    let broken = directory.path().join("dnsmasq.conf");
    std::fs::write(&broken, words.replace("bind-dynamic", "bind-dynamics")).unwrap();
    assert!(!check(&broken).status.success(), "the check does not notice a misspelt setting");
}
