//! What Debian says, offline: control data, versions, relations, archive indexes and the choice of packages.
//!
//! Nothing here opens a file, asks the clock or touches the network: bytes come in, values go out.

pub mod control;
pub mod version;
pub mod relation;
pub mod index;
pub mod solve;
pub mod deb;
pub mod dpkg;
