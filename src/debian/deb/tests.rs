use super::*;
use crate::format::ar::tests::build as ar;
use crate::format::codec::tests::pack;
use crate::format::tar::tests::build as tar;
use ::tar::EntryType as T;
use std::io::Read;

pub(crate) const STANZA: &str = "Package: thing\nVersion: 1:2-3\nArchitecture: arm64\nMulti-Arch: same\nInstalled-Size: 12\nDescription: x\n y\n";

/// The bytes of a package with these control files and members.
pub(crate) fn package(control: &[(&str, &str)], data: &[(&str, T, &str, &[u8])]) -> Vec<u8> {
    let control: Vec<(&str, T, &str, &[u8])> = std::iter::once(("./", T::Directory, "", &b""[..]))
        .chain(control.iter().map(|(name, text)| (*name, T::Regular, "", text.as_bytes())))
        .collect();
    ar(&[
        ("debian-binary", b"2.0\n"),
        ("control.tar.gz", &pack(Codec::Gzip, &tar(&control))),
        ("data.tar.xz", &pack(Codec::Xz, &tar(data))),
    ])
}

pub(crate) fn open(bytes: &[u8]) -> Result<Deb, DebError> {
    Deb::open("thing.deb", Arc::new(bytes.to_vec()), bytes.len() as u64)
}

/// Everything a package gives, read to its end.
fn read(bytes: &[u8]) -> Result<(Control, usize), DebError> {
    let deb = open(bytes)?;
    let control = deb.control()?;
    let mut data = deb.data(1 << 20)?;
    let mut count = 0;
    while data.next_member().map_err(|error| deb.error("data.tar", error))?.is_some() {
        std::io::copy(&mut data, &mut std::io::sink())
            .map_err(|error| deb.error("data.tar", DebFault::Read(error)))?;
        count += 1;
    }
    Ok((control, count))
}

fn sample() -> Vec<u8> {
    package(
        &[
            ("./control", STANZA),
            ("./conffiles", "/etc/thing\nremove-on-upgrade /etc/old thing\n\n"),
            ("./triggers", "# why\ninterest-noawait /usr/share/thing\nactivate ldconfig\n"),
            ("./postinst", "#!/bin/sh\n"),
            ("./list", "/evil\n"),
            ("./with.dot", "x"),
        ],
        &[("./", T::Directory, "", b""), ("./etc/thing", T::Regular, "", b"contents")],
    )
}

#[test]
fn a_package_gives_its_control_data_and_its_files() {
    let (control, files) = read(&sample()).unwrap();
    assert_eq!(files, 2);
    assert_eq!((control.name.as_str(), control.version.as_str()), ("thing", "1:2-3"));
    assert_eq!(control.database_name(), "thing:arm64");
    assert_eq!(control.installed_size, Some(12));
    assert_eq!(control.field("description"), "x\n y");
    assert_eq!(control.conffiles[0], Conffile { path: "/etc/thing".into(), remove_on_upgrade: false });
    assert_eq!(control.conffiles[1], Conffile { path: "/etc/old thing".into(), remove_on_upgrade: true });
    assert_eq!(
        control.triggers,
        [
            Trigger { name: "/usr/share/thing".into(), interest: Interest::Interested, awaits: false },
            Trigger { name: "ldconfig".into(), interest: Interest::Activates, awaits: true },
        ]
    );
    assert_eq!(control.files.keys().collect::<Vec<_>>(), ["conffiles", "postinst", "triggers"]);
}

#[test]
fn control_files_that_dpkg_would_refuse_are_refused() {
    for (name, text) in [
        ("./conffiles", "etc/thing\n"),
        ("./conffiles", "unknown-flag /etc/thing\n"),
        ("./triggers", "interest\n"),
        ("./triggers", "watch /usr\n"),
        ("./triggers", "interest ../../../etc/passwd\n"),
        ("./triggers", "interest /usr/../etc\n"),
        ("./triggers", "interest Unincorp\n"),
        ("./control", STANZA),
        ("./../evil", "x"),
        ("./postinst", "again"),
    ] {
        let files = [("./control", STANZA), ("./postinst", "x"), (name, text)];
        let error = read(&package(&files, &[])).unwrap_err();
        assert!(matches!(error.fault, DebFault::ControlFile { .. }), "{name} {text:?}: {error:?}");
        assert!(error.to_string().contains("control.tar of the package file `thing.deb`"), "{error}");
    }
    for stanza in [
        "Package: thing\n",
        "Package: ../x\nVersion: 1\nArchitecture: all\n",
        "Package: x\nVersion: -\nArchitecture: all\n",
        "Package: x\nVersion: 1\nArchitecture: a/b\n",
        "",
    ] {
        assert!(read(&package(&[("./control", stanza)], &[])).is_err(), "{stanza}");
    }
    let link = ar(&[
        ("debian-binary", b"2.0\n"),
        ("control.tar", &tar(&[("./control", T::Symlink, "/etc/passwd", b"")])),
        ("data.tar", &tar(&[])),
    ]);
    assert!(matches!(read(&link).unwrap_err().fault, DebFault::ControlFile { .. }));
}

#[test]
fn the_outer_archive_is_checked() {
    let control = tar(&[("./control", T::Regular, "", STANZA.as_bytes())]);
    let data = tar(&[]);
    let good: [(&str, &[u8]); 5] = [
        ("debian-binary", b"2.0\n"),
        ("_gpgorigin", b"x"),
        ("control.tar", &control),
        ("data.tar", &data),
        ("extra", b"x"),
    ];
    read(&ar(&good)).unwrap();
    let with = |at: usize, member: (&'static str, &'static [u8])| {
        let mut members = good;
        members[at] = member;
        open(&ar(&members)).err().map(|error| error.fault)
    };
    assert!(matches!(with(0, ("debian-binary", b"3.0\n")), Some(DebFault::Version(_))));
    assert!(matches!(
        with(0, ("something", b"2.0\n")),
        Some(DebFault::Member { expected: "debian-binary", .. })
    ));
    assert!(matches!(with(2, ("data.tar", b"")), Some(DebFault::Member { expected: "control.tar", .. })));
    assert!(matches!(with(3, ("data.tar.bz2", b"")), Some(DebFault::Compression(_))));
    assert!(matches!(with(3, ("data.tarx", b"")), Some(DebFault::Compression(_))));
    assert!(matches!(
        open(&ar(&good[..3])).err().map(|error| error.fault),
        Some(DebFault::Member { expected: "data.tar", .. })
    ));
}

#[test]
fn a_control_archive_that_unpacks_to_gigabytes_is_stopped() {
    let zeros = vec![0; (MAX_CONTROL + 1) as usize];
    let bytes = ar(&[
        ("debian-binary", b"2.0\n"),
        ("control.tar.zst", &pack(Codec::Zstd, &tar(&[("./control", T::Regular, "", &zeros)]))),
        ("data.tar", &tar(&[])),
    ]);
    assert!(bytes.len() < 100_000);
    assert!(read(&bytes).is_err());
}

#[test]
fn a_package_cut_or_changed_anywhere_never_panics() {
    let bytes = sample();
    let whole = read(&bytes).unwrap().1;
    for cut in 0..bytes.len() - 1 {
        assert!(read(&bytes[..cut]).is_err(), "cut at {cut}");
    }
    for at in 0..bytes.len() {
        for bit in [0, 3, 7] {
            let mut broken = bytes.clone();
            broken[at] ^= 1 << bit;
            if let Ok((_, files)) = read(&broken) {
                assert_eq!(files, whole, "byte {at} bit {bit}");
            }
        }
    }
}

#[test]
fn data_is_read_by_its_limit() {
    let bytes = sample();
    let deb = open(&bytes).unwrap();
    let mut data = deb.data(100).unwrap();
    assert!(data.next_member().is_err());
    let mut data = deb.data(1 << 20).unwrap();
    data.next_member().unwrap();
    data.next_member().unwrap();
    let mut text = String::new();
    data.read_to_string(&mut text).unwrap();
    assert_eq!(text, "contents");
}
