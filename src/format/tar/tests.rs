use super::*;
use proptest::prelude::*;

/// An archive from members and their data, by the crate `tar`.
pub(crate) fn build(members: &[(&str, tar::EntryType, &str, &[u8])]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (path, kind, link, data) in members {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(*kind);
        header.set_mode(if kind.is_dir() { 0o755 } else { 0o644 });
        header.set_size(data.len() as u64);
        header.set_uid(0);
        header.set_gid(42);
        header.set_mtime(1_700_000_000);
        header.set_username("root").unwrap();
        header.set_groupname("shadow").unwrap();
        header.set_device_major(1).unwrap();
        header.set_device_minor(3).unwrap();
        if path.len() >= 100 || link.len() >= 100 {
            if link.is_empty() {
                builder.append_data(&mut header, path, *data).unwrap();
            } else {
                builder.append_link(&mut header, path, link).unwrap();
            }
            continue;
        }
        // Written by hand: the crate refuses the names that hostile archives have.
        header.as_mut_bytes()[..path.len()].copy_from_slice(path.as_bytes());
        header.as_mut_bytes()[157..157 + link.len()].copy_from_slice(link.as_bytes());
        header.set_cksum();
        builder.append(&header, *data).unwrap();
    }
    builder.into_inner().unwrap()
}

fn read(bytes: &[u8]) -> Result<Vec<(Member, Vec<u8>)>, TarError> {
    let mut archive = Archive::new(bytes);
    let mut members = Vec::new();
    while let Some(member) = archive.next_member()? {
        let mut data = Vec::new();
        archive.read_to_end(&mut data).map_err(|source| TarError::Read { at: member.at, source })?;
        members.push((member, data));
    }
    Ok(members)
}

use tar::EntryType as T;

fn sample() -> Vec<u8> {
    build(&[
        ("./", T::Directory, "", b""),
        ("./usr/", T::Directory, "", b""),
        ("./usr/a", T::Regular, "", &[7; 700]),
        ("./usr/b", T::Link, "./usr/a", b""),
        ("./usr/c", T::Symlink, "../etc/x", b""),
        ("./usr/null", T::Char, "", b""),
        ("./usr/pipe", T::Fifo, "", b""),
        (&format!("./usr/{}", "long/".repeat(60)), T::Directory, "", b""),
        (&format!("./usr/{}", "n".repeat(200)), T::Symlink, &"t".repeat(300), b""),
    ])
}

#[test]
fn every_kind_of_member_is_read() {
    let members = read(&sample()).unwrap();
    let kinds: Vec<_> = members.iter().map(|(member, _)| member.kind.clone()).collect();
    let device = Device { major: 1, minor: 3 };
    assert_eq!(
        kinds,
        [
            MemberKind::Directory,
            MemberKind::Directory,
            MemberKind::File,
            MemberKind::HardLink(b"./usr/a".into()),
            MemberKind::Symlink(b"../etc/x".into()),
            MemberKind::CharDevice(device),
            MemberKind::Fifo,
            MemberKind::Directory,
            MemberKind::Symlink(vec![b't'; 300]),
        ]
    );
    let (file, data) = &members[2];
    assert_eq!(data, &[7; 700]);
    assert_eq!((file.path.as_slice(), file.size, file.at), (&b"./usr/a"[..], 700, 1024));
    assert_eq!((file.user.as_slice(), file.group.as_slice()), (&b"root"[..], &b"shadow"[..]));
    assert_eq!((file.meta.mode, file.meta.uid, file.meta.gid), (0o644, 0, 42));
    assert_eq!(members[0].0.path, b".");
    assert_eq!(members[7].0.path.len(), 305);
    assert_eq!(members[8].0.path.len(), 206);
}

#[test]
fn data_that_nobody_read_is_skipped() {
    let bytes = sample();
    let mut archive = Archive::new(&bytes[..]);
    let mut count = 0;
    while archive.next_member().unwrap().is_some() {
        count += 1;
    }
    assert_eq!(count, 9);
}

/// A PAX header with these records before an empty file `plain`.
fn with_pax(kind: T, records: &[(&str, &[u8])]) -> Vec<u8> {
    let mut data = Vec::new();
    for (key, value) in records {
        let rest = key.len() + value.len() + 3;
        let len = (1..).find(|digits| (rest + digits).to_string().len() == *digits).unwrap() + rest;
        data.extend_from_slice(format!("{len} {key}=").as_bytes());
        data.extend_from_slice(value);
        data.push(b'\n');
    }
    build(&[("pax", kind, "", &data), ("plain", T::Regular, "", b"")])
}

#[test]
fn pax_headers_say_what_the_plain_header_cannot() {
    let long = format!("{}/name", "d".repeat(300));
    let bytes = with_pax(
        T::XHeader,
        &[
            ("path", long.as_bytes()),
            ("mtime", b"-1.5"),
            ("uid", b"3000000"),
            ("uname", b"someone"),
            ("SCHILY.xattr.security.capability", b"\x01\0\0\x02\n="),
            ("comment", b"ignored"),
        ],
    );
    let (member, _) = read(&bytes).unwrap().remove(0);
    assert_eq!(member.path, long.as_bytes());
    assert_eq!(member.meta.mtime, Timestamp { seconds: -2, nanoseconds: 500_000_000 });
    assert_eq!((member.meta.uid, member.meta.gid), (3_000_000, 42));
    assert_eq!(member.user, b"someone");
    assert_eq!(member.meta.xattrs[&b"security.capability"[..]], b"\x01\0\0\x02\n=");
    let global = with_pax(T::XGlobalHeader, &[("uname", b"everyone"), ("comment", b"0123")]);
    assert_eq!(read(&global).unwrap()[0].0.user, b"everyone");
}

#[test]
fn pax_headers_that_make_no_sense_are_refused() {
    for record in [("uid", &b"-1"[..]), ("uid", b"4294967296"), ("size", b"1x"), ("mtime", b"now")] {
        assert!(matches!(read(&with_pax(T::XHeader, &[record])), Err(TarError::Field { .. })), "{record:?}");
    }
    let sparse = with_pax(T::XHeader, &[("GNU.sparse.major", b"1")]);
    assert!(matches!(read(&sparse), Err(TarError::Kind { .. })));
    let many: Vec<String> = (0..2000).map(|n| format!("k{n}")).collect();
    let many: Vec<(&str, &[u8])> = many.iter().map(|key| (key.as_str(), &b"x"[..])).collect();
    assert!(matches!(read(&with_pax(T::XGlobalHeader, &many)), Err(TarError::Extension { .. })));
}

#[test]
fn what_readers_disagree_about_is_refused() {
    let sized_link = build(&[("a", T::Link, "b", b"data")]);
    assert!(matches!(read(&sized_link), Err(TarError::Field { .. })));
    for kind in [b'S', b'M', b'V', b'D', b'X', b'Z'] {
        let unknown = build(&[("a", T::new(kind), "", b"")]);
        assert!(matches!(read(&unknown), Err(TarError::Kind { .. })), "{kind}");
    }
    let twice = build(&[("x", T::GNULongName, "", b"one\0"), ("x", T::GNULongName, "", b"two\0")]);
    assert!(matches!(read(&twice), Err(TarError::Extension { at: 1024, .. })));
    let alone = build(&[("x", T::GNULongName, "", b"one\0")]);
    assert!(matches!(read(&alone), Err(TarError::Extension { .. })));
    let nameless = build(&[("", T::Regular, "", b"")]);
    assert!(matches!(read(&nameless), Err(TarError::Field { .. })));
    let mut after = build(&[("a", T::Regular, "", b"")]);
    after.extend(build(&[("b", T::Regular, "", b"")]));
    assert!(matches!(read(&after), Err(TarError::Trailing { at: 1536 })));
}

#[test]
fn a_header_with_another_sum_is_refused() {
    let mut bytes = sample();
    bytes[1024] ^= 1;
    assert!(matches!(read(&bytes), Err(TarError::Checksum { at: 1024, .. })));
}

#[test]
fn a_name_that_claims_gigabytes_takes_no_memory() {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(T::GNULongName);
    header.set_size(1 << 40);
    header.set_cksum();
    assert!(matches!(read(header.as_bytes()), Err(TarError::Extension { .. })));
}

#[test]
fn an_archive_cut_anywhere_is_refused() {
    let bytes = sample();
    // One zero block ends an archive; what is cut after it still has one.
    let end = bytes.len() - 1024;
    for cut in (0..bytes.len()).step_by(32) {
        let result = read(&bytes[..cut]);
        assert_eq!(result.is_ok(), cut >= end + 512, "cut at {cut}: {result:?}");
    }
}

proptest! {
    #[test]
    fn flipped_bytes_never_panic(flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4)) {
        let mut bytes = sample();
        for (index, value) in flips {
            let at = index.index(bytes.len());
            bytes[at] = value;
        }
        let _ = read(&bytes);
    }

    #[test]
    fn headers_with_a_right_checksum_and_wild_fields_never_panic(field in 0usize..345, wild in any::<[u8; 12]>(), kind in any::<u8>()) {
        let mut header = tar::Header::new_gnu();
        header.set_size(0);
        header.as_mut_bytes()[0] = b'a';
        header.as_mut_bytes()[156] = kind;
        header.as_mut_bytes()[field..field + 12].copy_from_slice(&wild);
        header.set_cksum();
        let mut bytes = header.as_bytes().to_vec();
        bytes.extend([0; 4096]);
        let _ = read(&bytes);
    }
}
