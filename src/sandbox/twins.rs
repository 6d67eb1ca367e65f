//! Twins: the programs of the target, in the same version, built for this computer.
//!
//! Under QEMU almost all time goes into starting `sh`, `sed`, `grep`, `perl`. Debian builds every version for every
//! architecture, so the host's build of the same package can *run* in place of the target's. The [dispatcher] does that at
//! `execve` and leaves the files alone.

use super::dispatch::TOOLS;
use crate::tree::{Tree, TreeError, TreePath};

/// e_machine of this computer's programs (elf.h).
pub(super) const HOST_MACHINE: u16 = if cfg!(target_arch = "x86_64") { 62 } else { 183 };

/// The machine of an ELF file, from its first 20 bytes.
pub(super) fn machine(head: &[u8; 20]) -> Option<u16> {
    head.starts_with(b"\x7fELF").then(|| u16::from_le_bytes([head[18], head[19]]))
}

/// Native programs for a target, and what they need.
#[derive(Clone, Debug)]
pub struct Twins {
    tree: Tree,
    links: Vec<(TreePath, Vec<u8>)>,
}

impl Twins {
    pub(super) fn links(&self) -> &[(TreePath, Vec<u8>)] {
        &self.links
    }

    pub(super) fn put_into(&self, tools: &mut Tree, below: &TreePath) -> Result<(), TreeError> {
        for (path, id) in self.tree.walk() {
            let node = self.tree.node(id);
            let place = TreePath::new([below.as_bytes(), path.as_bytes()].join(&b'/'))?;
            let kind = match &node.kind {
                crate::tree::Kind::Directory(_) => crate::tree::Kind::Directory(Default::default()),
                kind => kind.clone(),
            };
            tools.put(&place, node.meta.clone(), kind)?;
        }
        Ok(())
    }
}
const _: &str = TOOLS;
