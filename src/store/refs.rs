//! Which object an address without a digest last gave: how release files are found again offline.

use super::error::Error;
use super::{Object, Store};
use crate::digest::Sha256;
use std::fs;
use std::path::PathBuf;

impl Store {
    /// Stores bytes that a signature has vouched for, under the address they came from.
    pub(super) fn remember(&self, address: &str, label: &str, bytes: &[u8]) -> Result<Object, Error> {
        let digest = Sha256::of(bytes);
        let object = match self.object_of_size(&digest, bytes.len() as u64) {
            Some(object) => object,
            None => self.put(bytes, label, &digest, bytes.len() as u64)?,
        };
        // Written aside and renamed, so that a reader finds the old line or the new one.
        let (path, aside) = (self.ref_path(address), self.temporary_path());
        let line = format!("{digest} {} {address}\n", bytes.len());
        let written = fs::write(&aside, &line).and_then(|()| fs::rename(&aside, &path));
        written.map_err(|error| self.write_error(&path, error, line.len() as u64))?;
        Ok(object)
    }

    /// The object an address last gave, if it is still here and whole.
    pub(super) fn remembered(&self, address: &str) -> Option<Object> {
        let (digest, size, of) = parse(&fs::read_to_string(self.ref_path(address)).ok()?)?;
        self.object_of_size(&digest, size).filter(|_| of == address)
    }

    /// Forgets an address that no longer gives anything.
    pub(super) fn forget(&self, address: &str) {
        // What stays is an old file with a good signature, as any mirror may give.
        let _ = fs::remove_file(self.ref_path(address));
    }

    /// Every object an address points at.
    pub(super) fn referenced(&self) -> Result<Vec<Sha256>, Error> {
        let directory = self.root.join("refs");
        let mut digests = Vec::new();
        for entry in fs::read_dir(&directory).map_err(Error::io("list", &directory))? {
            let path = entry.map_err(Error::io("list", &directory))?.path();
            let text = fs::read_to_string(&path).map_err(Error::io("read", &path))?;
            digests.extend(parse(&text).map(|(digest, ..)| digest));
        }
        Ok(digests)
    }

    fn ref_path(&self, address: &str) -> PathBuf {
        self.root.join("refs").join(Sha256::of(address.as_bytes()).to_string())
    }
}

fn parse(line: &str) -> Option<(Sha256, u64, String)> {
    let mut parts = line.trim_end().splitn(3, ' ');
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?, parts.next()?.to_owned()))
}
