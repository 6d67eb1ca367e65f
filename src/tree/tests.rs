use super::*;

fn path(text: &str) -> TreePath {
    TreePath::new(text).unwrap()
}

fn dir() -> (Meta, Kind) {
    (Meta::root(0o755, Timestamp::seconds(7)), Kind::Directory(BTreeMap::new()))
}

fn link(target: &str) -> (Meta, Kind) {
    (Meta::root(0o777, Timestamp::seconds(7)), Kind::Symlink(target.into()))
}

fn merged_usr() -> Tree {
    let mut tree = Tree::new(Timestamp::seconds(7));
    let (meta, kind) = dir();
    tree.put(&path("usr/lib"), meta, kind).unwrap();
    let (meta, kind) = link("usr/lib");
    tree.put(&path("lib"), meta, kind).unwrap();
    tree
}

fn put(tree: &mut Tree, at: &str, bytes: &str) -> Result<TreePath, TreeError> {
    tree.put_file(&path(at), 0o644, Timestamp::seconds(7), bytes)
}

#[test]
fn files_land_where_directory_links_lead() {
    let mut tree = merged_usr();
    assert_eq!(put(&mut tree, "lib/modules/a", "x").unwrap(), path("usr/lib/modules/a"));
    assert!(matches!(tree.get(&path("lib")).unwrap().kind, Kind::Symlink(_)));
    let (meta, kind) = dir();
    assert_eq!(tree.put(&path("lib"), meta, kind).unwrap(), path("usr/lib"));
    assert_eq!(tree.file(&path("lib/modules/a")).unwrap().len(), 1);
}

#[test]
fn links_are_followed_inside_the_tree_only() {
    let mut tree = merged_usr();
    for (at, target) in
        [("up", "../../../usr"), ("abs", "/lib"), ("a", "b"), ("b", "a"), ("gone", "nowhere/x")]
    {
        let (meta, kind) = link(target);
        tree.put(&path(at), meta, kind).unwrap();
    }
    assert_eq!(tree.resolve(&path("up/lib")).unwrap(), path("usr/lib"));
    assert_eq!(tree.resolve(&path("abs/x")).unwrap(), path("usr/lib/x"));
    assert_eq!(tree.resolve(&path("gone/y")).unwrap(), path("nowhere/x/y"));
    assert_eq!(tree.resolve(&path("a/x")), Err(TreeError::TooManyLinks(path("a/x"))));
    assert_eq!(tree.resolve_parent(&path("a")).unwrap(), path("a"));
}

#[test]
fn a_directory_never_silently_becomes_a_file_or_the_reverse() {
    let mut tree = merged_usr();
    put(&mut tree, "etc/hostname", "pi").unwrap();
    assert!(matches!(put(&mut tree, "etc", "x"), Err(TreeError::InTheWay { .. })));
    assert!(matches!(put(&mut tree, "etc/hostname/x", "x"), Err(TreeError::NotADirectory { .. })));
    let (meta, kind) = dir();
    assert!(matches!(tree.put(&path("etc/hostname"), meta, kind), Err(TreeError::InTheWay { .. })));
    assert!(matches!(put(&mut tree, "", "x"), Err(TreeError::InTheWay { .. })));
}

#[test]
fn hard_links_are_one_node() {
    let mut tree = merged_usr();
    put(&mut tree, "usr/bin/perl", "x").unwrap();
    tree.link(&path("usr/bin/perl5"), &path("usr/bin/perl")).unwrap();
    tree.meta_mut(&path("usr/bin/perl5")).unwrap().mode = 0o755;
    assert_eq!(tree.get(&path("usr/bin/perl")).unwrap().meta.mode, 0o755);
    assert!(matches!(tree.link(&path("x"), &path("usr")), Err(TreeError::LinkToDirectory(_))));
    let entries = tree.entries();
    let index = entries.iter().position(|entry| entry.path == b"usr/bin/perl").unwrap();
    let second = entries.iter().find(|entry| entry.path == b"usr/bin/perl5").unwrap();
    assert!(matches!(second.kind, EntryKind::HardLink(at) if at == index));
}

#[test]
fn a_tree_survives_the_way_through_entries() {
    let mut tree = merged_usr();
    put(&mut tree, "usr/bin/a", "x").unwrap();
    tree.link(&path("usr/bin/b"), &path("usr/bin/a")).unwrap();
    let device = Kind::CharDevice(Device { major: 1, minor: 3 });
    tree.put(&path("dev/null"), Meta::root(0o666, Timestamp { seconds: -1, nanoseconds: 5 }), device)
        .unwrap();
    tree.meta_mut(&path("usr/bin/a")).unwrap().xattrs.insert(b"user.x".to_vec(), vec![0, 255]);
    let again = Tree::from_entries(tree.entries()).unwrap();
    let text = dump::dump(&tree).unwrap();
    assert_eq!(text, dump::dump(&again).unwrap());
    assert!(text.contains("/dev/null character-device 0666 0 0 -1.000000005 1:3\n"), "{text}");
    assert!(text.contains("/usr/bin/b hardlink /usr/bin/a\n"), "{text}");
    assert!(text.contains(" user.x=00ff\n"), "{text}");
}

#[test]
fn lists_that_break_the_rules_are_refused() {
    let entry = |at: &str, kind| Entry { path: at.into(), meta: Meta::default(), kind, layer: 0 };
    let root = || entry("", EntryKind::Directory);
    for list in [
        vec![root(), entry("a/b", EntryKind::Fifo)],
        vec![root(), entry("a", EntryKind::Fifo), entry("a", EntryKind::Fifo)],
        vec![root(), entry("a", EntryKind::Fifo), entry("a/b", EntryKind::Fifo)],
        vec![root(), entry("a", EntryKind::HardLink(0))],
        vec![root(), entry("a", EntryKind::HardLink(9))],
        vec![root(), root()],
        vec![root(), entry("../x", EntryKind::Fifo)],
    ] {
        assert!(Tree::from_entries(list).is_err());
    }
}

#[test]
fn changes_carry_the_layer_that_made_them() {
    let mut tree = merged_usr();
    tree.set_layer(3);
    put(&mut tree, "usr/lib/x", "x").unwrap();
    assert_eq!(tree.get(&path("usr/lib/x")).unwrap().layer, 3);
    assert_eq!(tree.get(&path("usr/lib")).unwrap().layer, 3);
    assert_eq!(tree.get(&path("usr")).unwrap().layer, 0);
}

#[test]
fn a_directory_becomes_a_tree_of_its_own() {
    let mut tree = merged_usr();
    put(&mut tree, "boot/firmware/overlays/a.dtbo", "x").unwrap();
    put(&mut tree, "boot/firmware/config.txt", "y").unwrap();
    put(&mut tree, "boot/vmlinuz", "z").unwrap();
    let split = tree.split_off(&path("boot/firmware")).unwrap();
    let names = |tree: &Tree| tree.walk().map(|(path, _)| path.to_string()).collect::<Vec<_>>().join(" ");
    assert_eq!(names(&split), "/ /config.txt /overlays /overlays/a.dtbo");
    assert_eq!(names(&tree), "/ /boot /boot/firmware /boot/vmlinuz /lib /usr /usr/lib");
    assert!(matches!(tree.split_off(&path("boot/vmlinuz")), Err(TreeError::InTheWay { .. })));
}
