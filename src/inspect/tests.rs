use super::system::OsRelease;
use super::*;

fn inspect(bytes: Vec<u8>) -> Result<Inspected, InspectError> {
    let len = Bytes(bytes.len() as u64);
    of_source(Path::new("a.img"), Arc::new(bytes), len)
}

#[test]
fn a_release_is_read_as_a_shell_reads_it() {
    let release = OsRelease::parse(
        "# comment\nPRETTY_NAME=\"Debian \\\"x\\\" 13\"\nID=debian\nVERSION_ID='13'\nNAME=other\nVERSION_CODENAME=\n",
    );
    assert_eq!(release.pretty_name, "Debian \"x\" 13");
    assert_eq!((&*release.id, &*release.version_id, &*release.codename), ("debian", "13", ""));
    // os-release(5) names the defaults.
    assert_eq!((OsRelease::parse("").pretty_name, OsRelease::parse("").id), ("Linux".into(), "linux".into()));
    for odd in ["ID=\"", "ID='", "ID=\\", "=", "ID"] {
        let _ = OsRelease::parse(odd);
    }
}

#[test]
fn what_is_no_image_is_said_to_be_none() {
    assert!(matches!(inspect(vec![0; 4096]), Err(InspectError::NotAnImage(_))));
    assert!(matches!(inspect(b"hello".to_vec()), Err(InspectError::Disk { .. })));
}

#[test]
fn filesystems_that_are_not_read_are_named() {
    let mut btrfs = vec![0; 1 << 20];
    btrfs[0x10040..0x10048].copy_from_slice(b"_BHRfS_M");
    let image = inspect(btrfs).unwrap();
    let said = image.files(Part::System).unwrap_err().to_string();
    assert!(said.contains("btrfs, which hardtack recognises but does not read"), "{said}");
    assert!(!image.volumes[0].contents.as_ref().unwrap_err().is_damage());
    assert!(matches!(image.files(Part::Partition(0)), Err(InspectError::Volume { number: 0, .. })));
    assert!(matches!(image.files(Part::Partition(7)), Err(InspectError::NoPartition { number: 7, .. })));
}

#[test]
fn a_partition_past_the_end_is_an_image_cut_off() {
    let one = crate::format::mbr::Partition { number: 1, kind: 0x83, bootable: false, sectors: 10..2000 };
    let mut bytes = crate::format::mbr::write(1, &[one], 2000).unwrap().to_vec();
    bytes.resize(1000 * 512, 0);
    let error = inspect(bytes).unwrap_err();
    assert!(matches!(error, InspectError::Truncated { number: 1, .. }), "{error}");
}
