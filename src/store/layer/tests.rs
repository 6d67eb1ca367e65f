use super::*;
use crate::content::Content;
use crate::format::entry::Device;
use crate::meta::{Meta, Timestamp};
use crate::tree::{Kind, TreePath, dump};
use proptest::prelude::*;
use std::collections::BTreeMap;

fn at(text: &str) -> TreePath {
    TreePath::new(text).unwrap()
}

fn sample() -> Tree {
    let mut tree = Tree::new(Timestamp::seconds(5));
    tree.put_file(&at("etc/hostname"), 0o644, Timestamp { seconds: -3, nanoseconds: 999_999_999 }, "pi\n")
        .unwrap();
    tree.put_file(&at("etc/empty"), 0o600, Timestamp::seconds(i64::MAX), "").unwrap();
    tree.set_layer(7);
    tree.put_file(&at("usr/bin/a"), 0o4755, Timestamp::seconds(0), vec![9; 3 << 20]).unwrap();
    tree.link(&at("usr/bin/b"), &at("usr/bin/a")).unwrap();
    tree.meta_mut(&at("usr/bin/a")).unwrap().xattrs.insert(b"security.capability".to_vec(), vec![1, 0, 255]);
    let meta = Meta { uid: u32::MAX, gid: 42, ..Meta::root(0o777, Timestamp::seconds(1)) };
    tree.put(&at("lib"), meta.clone(), Kind::Symlink(b"usr/lib\xff".to_vec())).unwrap();
    tree.put(&at("dev/null"), meta.clone(), Kind::CharDevice(Device { major: 1, minor: 1 << 20 })).unwrap();
    tree.put(&at("dev/sda"), meta.clone(), Kind::BlockDevice(Device { major: 8, minor: 0 })).unwrap();
    tree.put(&at("run/p"), meta.clone(), Kind::Fifo).unwrap();
    tree.put(&at("run/s"), meta.clone(), Kind::Socket).unwrap();
    let source: Arc<dyn crate::content::ReadAt> = Arc::new(b"0123456789".to_vec());
    let piece = |at, len, offset| Piece { at, len, source: source.clone(), offset };
    let sparse = Content::sparse(1 << 40, vec![piece(4096, 3, 4), piece(1 << 39, 2, 0)]).unwrap();
    tree.put(&at("var/log/lastlog"), meta, Kind::File(sparse)).unwrap();
    tree
}

/// A dump without reading a terabyte of holes.
fn text(tree: &Tree) -> String {
    let mut tree = tree.clone();
    tree.remove(&at("var/log/lastlog"));
    dump::dump(&tree).unwrap()
}

fn layers(tree: &Tree) -> Vec<u16> {
    tree.walk().map(|(_, id)| tree.node(id).layer).collect()
}

#[test]
fn a_layer_gives_back_the_tree_that_was_saved() {
    let directory = tempfile::tempdir().unwrap();
    let key = Sha256::of(b"key");
    let tree = sample();
    assert!(load(directory.path(), &key).unwrap().is_none());
    let saved = save(directory.path(), &key, &tree).unwrap();
    let loaded = load(directory.path(), &key).unwrap().unwrap();
    for again in [&saved, &loaded] {
        assert_eq!(text(again), text(&tree));
        assert_eq!(layers(again), layers(&tree));
        let sparse = again.file(&at("var/log/lastlog")).unwrap();
        assert_eq!((sparse.len(), sparse.pieces().len()), (1 << 40, 2));
        let mut bytes = [7; 4];
        sparse.read_exact_at(&mut bytes, 4095).unwrap();
        assert_eq!(&bytes, b"\x00456");
    }
    assert_eq!(verify(directory.path(), &key).unwrap(), Some((3 << 20) + 3 + 5));
    let names: Vec<_> =
        fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, [format!("{key}.layer").as_str()], "nothing else is left");
}

#[test]
fn contents_lie_in_the_order_of_a_walk_and_once() {
    let directory = tempfile::tempdir().unwrap();
    let saved = save(directory.path(), &Sha256::of(b""), &sample()).unwrap();
    let mut end = 0;
    for entry in saved.entries() {
        for piece in index::pieces(&entry) {
            assert_eq!(piece.offset, end);
            end += piece.len;
        }
    }
    assert_eq!(end, (3 << 20) + 3 + 5);
}

#[test]
fn the_same_tree_is_the_same_bytes() {
    let directory = tempfile::tempdir().unwrap();
    let (one, two) = (Sha256::of(b"1"), Sha256::of(b"2"));
    let saved = save(directory.path(), &one, &sample()).unwrap();
    save(directory.path(), &two, &saved).unwrap();
    let bytes = |key| fs::read(path(directory.path(), key)).unwrap();
    assert!(bytes(&one) == bytes(&two));
}

#[test]
fn whoever_has_a_layer_open_keeps_it_when_it_is_replaced() {
    let directory = tempfile::tempdir().unwrap();
    let key = Sha256::of(b"key");
    let first = save(directory.path(), &key, &sample()).unwrap();
    let mut other = sample();
    other.put_file(&at("etc/hostname"), 0o644, Timestamp::seconds(0), "other").unwrap();
    save(directory.path(), &key, &other).unwrap();
    assert_eq!(text(&first), text(&sample()));
    assert_eq!(text(&load(directory.path(), &key).unwrap().unwrap()), text(&other));
}

#[test]
fn several_at_once_do_not_disturb_each_other() {
    let directory = tempfile::tempdir().unwrap();
    let key = Sha256::of(b"key");
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..3 {
                    let saved = save(directory.path(), &key, &sample()).unwrap();
                    let loaded = load(directory.path(), &key).unwrap().unwrap();
                    assert_eq!(text(&saved), text(&loaded));
                }
            });
        }
    });
}

#[test]
fn a_directory_that_is_not_there_is_named() {
    let error = save(Path::new("/nonexistent/place"), &Sha256::of(b""), &sample()).err().unwrap();
    assert!(error.to_string().starts_with("cannot write the layer `/nonexistent/place/e3b0c4"), "{error}");
}

#[test]
fn a_damaged_layer_is_an_error_that_names_it() {
    let directory = tempfile::tempdir().unwrap();
    let key = Sha256::of(b"key");
    save(directory.path(), &key, &sample()).unwrap();
    let file = path(directory.path(), &key);
    let bytes = fs::read(&file).unwrap();
    let contents = (3 << 20) + 3 + 5;
    for cut in [0, 1, FOOTER, 1000, contents, contents + 10, bytes.len() - 1] {
        fs::write(&file, &bytes[..cut]).unwrap();
        assert!(matches!(load(directory.path(), &key), Err(LayerError::Damaged { .. })), "cut at {cut}");
    }
    for place in contents..bytes.len() {
        let mut broken = bytes.clone();
        broken[place] ^= 0x10;
        fs::write(&file, &broken).unwrap();
        let is_contents_digest = (bytes.len() - 64..bytes.len() - 32).contains(&place);
        assert_eq!(load(directory.path(), &key).is_ok(), is_contents_digest, "byte {place}");
        assert!(verify(directory.path(), &key).is_err(), "byte {place}");
    }
    let mut broken = bytes.clone();
    broken[contents / 2] ^= 1;
    fs::write(&file, &broken).unwrap();
    assert!(load(directory.path(), &key).is_ok());
    assert!(matches!(verify(directory.path(), &key), Err(LayerError::Damaged { .. })));
}

/// Decodes an index as if its digest were right.
fn decode(bytes: &[u8], length: u64) -> Result<Tree, String> {
    let file = Arc::new(tempfile::tempfile().unwrap());
    let entries = index::decode(bytes, &file, length)?;
    Tree::from_entries(entries).map_err(|error| error.to_string())
}

#[test]
fn an_index_cannot_name_what_is_not_its_own() {
    let index = |names: &[&[u8]]| {
        let entry = |name: &[u8], kind| crate::format::entry::Entry {
            path: name.to_vec(),
            meta: Meta::default(),
            kind,
            layer: 0,
        };
        let mut entries = vec![entry(b"", crate::format::entry::EntryKind::Directory)];
        entries.extend(names.iter().map(|name| entry(name, crate::format::entry::EntryKind::Fifo)));
        index::encode(&entries)
    };
    assert!(decode(&index(&[b"a", b"b"]), 0).is_ok());
    for names in [&[&b".."[..]][..], &[b"."], &[b""], &[b"a", b"a"], &[b"nul\0"], &[&[b'x'; 256]]] {
        assert!(decode(&index(names), 0).is_err(), "{names:?}");
    }
    assert!(decode(&index(&[b"a"]), 1).is_err(), "contents that no file has");
    assert!(decode(&[0xff; 20], 0).is_err());
    assert!(decode(&[0xff, 0xff, 0xff, 0xff, 0x7f], 0).is_err(), "more files than bytes");
}

proptest! {
    #[test]
    fn a_changed_index_never_panics(changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..5)) {
        let mut bytes = index::encode(&sample().entries());
        for (index, value) in changes {
            let at = index.index(bytes.len());
            bytes[at] = value;
        }
        let _ = decode(&bytes, (3 << 20) + 8);
    }

    #[test]
    fn any_tree_survives(files in prop::collection::btree_map("[a-c]{1,2}(/[a-c]{1,2}){0,3}", (any::<i64>(), 0u32..1_000_000_000, 0u16..0o10000, prop::collection::vec(any::<u8>(), 0..50)), 0..20)) {
        let mut tree = Tree::new(Timestamp::default());
        for (path, (seconds, nanoseconds, mode, bytes)) in files {
            let meta = Meta::root(mode, Timestamp { seconds, nanoseconds });
            // What stands in the way of another path stays out.
            let _ = tree.put(&at(&path), meta, Kind::File(Content::inline(bytes)));
        }
        let directory = tempfile::tempdir().unwrap();
        let saved = save(directory.path(), &Sha256::of(b""), &tree).unwrap();
        prop_assert_eq!(dump::dump(&saved).unwrap(), dump::dump(&tree).unwrap());
    }

    #[test]
    fn directories_keep_their_metadata(modes in prop::collection::vec(0u16..0o10000, 1..6)) {
        let mut tree = Tree::new(Timestamp::default());
        let mut path = String::new();
        for mode in modes {
            path.push_str("d/");
            tree.put(&at(&path), Meta::root(mode, Timestamp::seconds(1)), Kind::Directory(BTreeMap::new())).unwrap();
        }
        let directory = tempfile::tempdir().unwrap();
        let saved = save(directory.path(), &Sha256::of(b""), &tree).unwrap();
        prop_assert_eq!(dump::dump(&saved).unwrap(), dump::dump(&tree).unwrap());
    }
}
