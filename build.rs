//! Puts `profiles/` and `overlays/` into the binary, so that shipped profiles work from any directory.
//!
//! The generated table is sorted by name and holds no path of the building machine but through
//! `CARGO_MANIFEST_DIR`, which the compiler resolves: the same sources give the same table.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

#[expect(clippy::disallowed_methods, reason = "cargo says where the table goes in the environment")]
fn main() -> io::Result<()> {
    let mut out = String::new();
    out.push_str("/// Every shipped profile, by name.\npub static PROFILES: &[ShippedProfile] = &[\n");
    for name in names(Path::new("profiles"))? {
        if let Some(stem) = name.strip_suffix(".toml") {
            let _ = writeln!(
                out,
                "    ShippedProfile {{ name: {stem:?}, text: include_str!({}) }},",
                at(&format!("profiles/{name}"))
            );
        }
    }
    out.push_str("];\n\n/// Every shipped overlay, by name.\npub static OVERLAYS: &[ShippedOverlay] = &[\n");
    for name in names(Path::new("overlays"))? {
        let manifest = format!("overlays/{name}/overlay.toml");
        if !Path::new(&manifest).is_file() {
            continue;
        }
        let _ = writeln!(
            out,
            "    ShippedOverlay {{ name: {name:?}, manifest: include_str!({}), files: &[",
            at(&manifest)
        );
        let files = Path::new("overlays").join(&name).join("files");
        if files.is_dir() {
            walk(&files, "", &mut out)?;
        }
        out.push_str("    ] },\n");
    }
    out.push_str("];\n");
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=profiles");
    println!("cargo::rerun-if-changed=overlays");
    let target = std::env::var("OUT_DIR").map_err(io::Error::other)?;
    fs::write(Path::new(&target).join("shipped.rs"), out)
}

fn at(path: &str) -> String {
    format!("concat!(env!(\"CARGO_MANIFEST_DIR\"), {:?})", format!("/{path}"))
}

/// The names in a directory, sorted; none where there is no directory.
fn names(directory: &Path) -> io::Result<Vec<String>> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut names = Vec::new();
    for entry in entries {
        let name = entry?.file_name();
        names.push(name.into_string().map_err(|name| io::Error::other(format!("{name:?} is not UTF-8")))?);
    }
    names.sort();
    Ok(names)
}

fn walk(directory: &Path, under: &str, out: &mut String) -> io::Result<()> {
    for name in names(directory)? {
        let path = directory.join(&name);
        let inside = format!("{under}/{name}");
        let meta = fs::symlink_metadata(&path)?;
        let shown = path.to_str().ok_or_else(|| io::Error::other("a path is not UTF-8"))?;
        if meta.is_dir() {
            let _ = writeln!(out, "        ({inside:?}, ShippedFile::Directory),");
            walk(&path, &inside, out)?;
        } else if meta.is_symlink() {
            let target = fs::read_link(&path)?;
            let _ =
                writeln!(out, "        ({inside:?}, ShippedFile::Symlink({:?})),", target.to_string_lossy());
        } else {
            let executable = meta.permissions().mode() & 0o100 != 0;
            let _ = writeln!(
                out,
                "        ({inside:?}, ShippedFile::File {{ bytes: include_bytes!({}), executable: {executable} }}),",
                at(shown)
            );
        }
    }
    Ok(())
}
