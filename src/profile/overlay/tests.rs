//! Overlays: what a directory may hold, and what the manifest says about it.

use super::*;
use std::os::unix::fs::symlink;
use tempfile::TempDir;

/// An overlay directory with this manifest and these files.
fn overlay(manifest: &str, files: &[(&str, &[u8])]) -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("overlay.toml"), manifest).unwrap();
    for (name, bytes) in files {
        let path = directory.path().join("files").join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
    directory
}

fn entries(overlay: &Overlay) -> Vec<String> {
    overlay.entries().iter().map(|one| format!("{} {:?}", one.path, one.kind)).collect()
}

const PLAIN: &str = "description = 'x'\n";

#[test]
fn the_binary_holds_what_the_directory_holds() {
    for shipped in shipped::OVERLAYS {
        let inside = Overlay::shipped(shipped.name).unwrap_or_else(|found| panic!("{found}"));
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("overlays").join(shipped.name);
        let outside = Overlay::from_directory(&path).unwrap_or_else(|found| panic!("{found}"));
        assert_eq!(entries(&inside), entries(&outside));
        assert_eq!(inside.digest().unwrap(), outside.digest().unwrap());
    }
    assert!(!shipped::OVERLAYS.is_empty());
}

#[test]
fn only_the_owners_executable_bit_reaches_the_image() {
    let directory = overlay(PLAIN, &[("a", b""), ("b", b""), ("c", b"")]);
    for (name, mode) in [("a", 0o666), ("b", 0o4700), ("c", 0o655)] {
        fs::set_permissions(directory.path().join("files").join(name), fs::Permissions::from_mode(mode))
            .unwrap();
    }
    let overlay = Overlay::from_directory(directory.path()).unwrap();
    assert_eq!(
        entries(&overlay),
        [
            "/a File(0 bytes, root:root 0644)",
            "/b File(0 bytes, root:root 0755)",
            "/c File(0 bytes, root:root 0644)"
        ]
    );
}

#[test]
fn links_are_taken_as_they_are_and_never_followed() {
    let secret = tempfile::NamedTempFile::new().unwrap();
    fs::write(secret.path(), "secret").unwrap();
    let directory = overlay(PLAIN, &[("a/real", b"1")]);
    let files = directory.path().join("files");
    symlink(secret.path(), files.join("out")).unwrap();
    symlink("../../../..", files.join("up")).unwrap();
    symlink("/lib", files.join("dir")).unwrap();
    let overlay = Overlay::from_directory(directory.path()).unwrap();
    let found = entries(&overlay);
    assert_eq!(found.len(), 5, "{found:?}");
    assert!(found.contains(&format!("/out Symlink({})", secret.path().display())));
    assert!(found.contains(&"/up Symlink(../../../..)".to_owned()));
}

#[test]
fn what_is_no_file_is_refused() {
    let directory = overlay(PLAIN, &[("a", b"")]);
    rustix::fs::mknodat(
        rustix::fs::CWD,
        directory.path().join("files/pipe"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RWXU,
        0,
    )
    .unwrap();
    let found = Overlay::from_directory(directory.path()).unwrap_err().to_string();
    assert!(found.contains("files/pipe is neither a file nor a directory nor a link"), "{found}");

    let directory = overlay(PLAIN, &[]);
    symlink("/etc", directory.path().join("files")).unwrap();
    let found = Overlay::from_directory(directory.path()).unwrap_err().to_string();
    assert!(found.contains("files must be a directory"), "{found}");

    let found = Overlay::from_directory(Path::new("/nonexistent")).unwrap_err().to_string();
    assert!(found.contains("cannot read /nonexistent/overlay.toml: No such file or directory"), "{found}");
}

#[test]
fn a_directory_of_directories_has_an_end() {
    let directory = overlay(PLAIN, &[]);
    let mut path = directory.path().join("files");
    for _ in 0..=MAX_DEPTH + 1 {
        path.push("d");
    }
    fs::create_dir_all(&path).unwrap();
    let found = Overlay::from_directory(directory.path()).unwrap_err().to_string();
    assert!(found.contains("more than 100 deep"), "{found}");
}

#[test]
fn long_files_stay_where_they_are_until_they_are_read() {
    let long = vec![7; usize::try_from(INLINE).unwrap() + 1];
    let directory = overlay(PLAIN, &[("long", &long), ("short", &long[1..])]);
    let overlay = Overlay::from_directory(directory.path()).unwrap();
    let held: Vec<bool> = overlay
        .entries()
        .iter()
        .map(|entry| match &entry.kind {
            OverlayKind::File(content, _) => content.pieces()[0].source.as_file().is_some(),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(held, [true, false]);
    let OverlayKind::File(content, _) = &overlay.entries()[0].kind else { panic!("not a file") };
    assert_eq!(content.read_to_vec(INLINE + 1).unwrap(), long);
}

#[test]
fn everything_that_reaches_the_image_is_in_the_digest() {
    let digest = |manifest: &str, bytes: &[u8]| {
        Overlay::from_directory(overlay(manifest, &[("etc/a", bytes)]).path()).map(|mut overlay| {
            // Each directory has a name of its own here.
            overlay.name = "x".into();
            overlay.digest().unwrap()
        })
    };
    let plain = digest(PLAIN, b"1").unwrap();
    assert_eq!(plain, digest("description = 'another'\n", b"1").unwrap(), "a description does not reach it");
    for (manifest, bytes) in [
        (PLAIN, &b"2"[..]),
        ("description = 'x'\nfiles.'/etc/a'.mode = '0600'\n", b"1"),
        ("description = 'x'\nfiles.'/etc/a'.group = 'adm'\n", b"1"),
        ("description = 'x'\nsymlinks.'/etc/b' = 'a'\n", b"1"),
        ("description = 'x'\ndirectories.'/etc/b' = {}\n", b"1"),
        ("description = 'x'\nunits.mask = ['a.service']\n", b"1"),
        ("description = 'x'\nunits.enable = ['a.service']\n", b"1"),
    ] {
        assert_ne!(plain, digest(manifest, bytes).unwrap(), "{manifest}");
    }
}

#[test]
fn a_file_says_itself_why_it_is_there() {
    let reason = |text: &str| own_reason(&Content::inline(text));
    assert_eq!(reason("# Reason: no shell. More\n").as_deref(), Some("no shell"));
    assert_eq!(reason("#!/bin/sh\n# Reason: two\n# lines.\nset -e\n").as_deref(), Some("two lines"));
    assert_eq!(reason("// Reason: apt\nAPT::X \"1\";\n").as_deref(), Some("apt"));
    assert_eq!(reason("\u{7f}ELF\0Reason: no\n"), None);
    assert_eq!(reason("a\n\n\n\n\n\n\n# Reason: too late\n"), None);
}

#[test]
fn a_wrong_manifest_is_shown_with_its_lines() {
    let manifest = "\
descripton = 'x'
ports.web = 5
packages = ['x']

[files]
'/etc/b' = { mode = '0644' }
'etc/a' = { mode = '0999', color = 1 }
'/etc' = {}

[symlinks]
'/etc/a' = '/dev/null'
'/etc/c' = { reason = 'no target' }
'/etc/d' = 5
'/etc/../e' = ''
'/etc/f' = ''

[directories]
'/etc/a' = {}
'/' = {}

[units]
enable = ['a']
";
    let directory = overlay(manifest, &[("etc/a", b"")]);
    let found = Overlay::from_directory(directory.path()).unwrap_err();
    let titles: Vec<&str> = found.iter().map(Diagnostic::title).collect();
    assert_eq!(
        titles,
        [
            "unknown key `descripton` at the top of a file",
            "an overlay opens no port",
            "an overlay names no package",
            "there is no `files/etc/b` in the overlay",
            "bad path `etc/a`",
            "bad value for `files.\"etc/a\".mode`",
            "unknown key `color` in `[files.\"etc/a\"]`",
            "`files/etc` is not a regular file",
            "`/etc/a` is there twice",
            "`[symlinks.\"/etc/c\"]` has no `target`",
            "a link is a text or a table with a `target`",
            "bad path `/etc/../e`",
            "a link that leads nowhere",
            "`/etc/a` is there twice",
            "bad path `/`",
            "bad value for `units.enable`",
        ]
    );
    let text = found.render(false);
    for paragraph in text.split("\n\n") {
        assert!(paragraph.contains("overlay.toml:") && paragraph.contains('^'), "no place:\n{paragraph}");
    }
}
