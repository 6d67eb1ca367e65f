//! The indexes of an archive: `Release` (what exists, with digests) and `Packages` (one stanza a package).
//!
//! Both are hostile until a signature or a digest has said otherwise, and even then only as honest as their maker.

mod packages;
mod release;

pub use packages::{MultiArch, Package, PackagesError, Priority, parse_packages};
pub use release::{Entry, Release, ReleaseError};

/// Whether a path of an index may be joined to the address of a mirror: relative, and without any step upwards.
fn is_relative_path(path: &str) -> bool {
    !path.is_empty()
        && path.split('/').all(|part| !part.is_empty() && part != "." && part != "..")
        && path.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\' && byte != b'?' && byte != b'#')
}
