//! What lies beside an image when a build is done.

pub mod manifest;
