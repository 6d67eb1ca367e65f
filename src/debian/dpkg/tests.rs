use super::*;
use crate::meta::Timestamp;
use crate::tree::{Tree, TreePath};
use proptest::prelude::*;

const EPOCH: Timestamp = Timestamp::seconds(7);

fn tree(files: &[(&str, &str)]) -> Tree {
    let mut tree = Tree::new(EPOCH);
    for (name, bytes) in files {
        let path = TreePath::new(format!("{DIRECTORY}/{name}")).unwrap();
        tree.put_file(&path, 0o644, EPOCH, *bytes).unwrap();
    }
    tree
}

const STATUS: &str = "Package: libx\nStatus: install ok installed\nArchitecture: arm64\nMulti-Arch: same\nVersion: 2\nConffiles:\n /etc/x 900150983cd24fb0d6963f7d28e17f72\nDescription: a\n b\n .\n c\nOwn: field\n\nPackage: old\nStatus: deinstall ok config-files\nArchitecture: all\nVersion: 1\n\n";

#[test]
fn a_tree_without_a_database_has_no_packages() {
    assert_eq!(Database::read(&Tree::new(EPOCH)).unwrap().packages.len(), 0);
}

#[test]
fn packages_are_read_with_their_files() {
    let database = Database::read(&tree(&[
        ("status", STATUS),
        ("info/libx:arm64.list", "/.\n/usr\n/usr/lib x\n"),
        ("info/old.list", "/etc/old\n"),
        ("diversions", "/a\n/b\n:\n"),
        ("statoverride", "root #5 2755 /usr/a b\n"),
    ]))
    .unwrap();
    let libx = &database.packages[&("libx".to_owned(), "arm64".to_owned())];
    assert_eq!(libx.files, [&b"/."[..], b"/usr", b"/usr/lib x"]);
    assert_eq!((libx.version.as_str(), libx.field("own")), ("2", "field"));
    assert_eq!(database.present().count(), 1);
    assert_eq!(database.packages.len(), 2);
    assert_eq!(database.diversions[0].package, ":");
    assert_eq!(database.overrides[0].path, b"/usr/a b");
    assert_eq!(database.overrides[0].mode, 0o2755);
}

#[test]
fn what_was_read_is_written_as_it_was() {
    let mut tree = tree(&[
        ("status", STATUS),
        ("info/libx:arm64.list", "/.\n"),
        ("triggers/Unincorp", "word a b\nother -\n"),
    ]);
    Database::read(&tree).unwrap().write(&mut tree, EPOCH).unwrap();
    let text = |name: &str| {
        let content = tree.file(&TreePath::new(format!("{DIRECTORY}/{name}")).unwrap()).unwrap();
        String::from_utf8(content.read_to_vec(1 << 20).unwrap()).unwrap()
    };
    assert_eq!(text("status"), STATUS);
    assert_eq!(text("triggers/Unincorp"), "other -\nword a b\n");
    assert_eq!(text("info/format"), "1\n");
}

#[test]
fn what_is_malformed_is_refused_with_its_line() {
    for (name, text, line) in [
        ("status", "Package: a\nStatus: installed\n", 1),
        ("diversions", "/a\n/b\n", 1),
        ("statoverride", "root root 0644 /a\nroot root 9999 /b\n", 2),
        ("statoverride", "root root 17777 /b\n", 1),
        ("triggers/File", "relative pkg\n", 1),
    ] {
        let error = Database::read(&tree(&[(name, text)])).unwrap_err();
        assert!(
            matches!(&error, DatabaseError::Syntax { path, line: at, .. } if path == name && *at == line),
            "{error}"
        );
    }
    assert!(matches!(Database::read(&tree(&[("status", "no field\n")])), Err(DatabaseError::Status(_))));
}

proptest! {
    #[test]
    fn any_database_is_read_without_a_panic(
        name in prop::sample::select(vec!["status", "diversions", "statoverride", "triggers/File", "triggers/word", "triggers/Unincorp"]),
        text in "([ -~]{0,20}[:/ \n]){0,10}",
    ) {
        if let Ok(database) = Database::read(&tree(&[(name, &text)])) {
            let mut written = Tree::new(EPOCH);
            let _ = database.write(&mut written, EPOCH);
        }
    }
}
