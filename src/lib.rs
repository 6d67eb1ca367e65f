//! hardtack builds hardened appliance images for the Raspberry Pi.
//!
//! **An image is a value.** Everything between the inputs and the bytes is a function over one in-memory file tree.
//! Reading this file from top to bottom is reading the way data flows:
//!
//! ```text
//! profile ─► plan(lock) ─► store ─► base ─► tree ─► transform ─► image ─► artifact
//!              │                     ▲         │  ▲
//!      debian (indexes, solve) ──────┘         ▼  │
//!                                             sandbox           inspect   reads what was written
//! ```
//!
//! What never happens: `format` knows no tree, no profile and no file system of the host; `tree` knows no disk format;
//! `plan` and `transform` do no I/O; nothing but `store` opens a socket; nothing but `sandbox` starts a process.

// The floor: values.
pub mod units;
pub mod digest;
pub mod meta;
pub mod content;
pub mod pack;
pub mod progress;

// Bytes ⇄ values.
pub mod format;

// The filesystem in memory.
pub mod tree;

// What the user wants.
pub mod profile;

// Debian's language, offline.
pub mod debian;

// What will be used, exactly.
pub mod plan;

// The network, and what came from it.
pub mod store;

// Where the tree starts.
pub mod base;

// The one place where something runs.
#[cfg(target_os = "linux")]
pub mod sandbox;

// Tree → Tree.
pub mod transform;

// Trees → disk.
pub mod image;

// What lies beside the image.
pub mod artifact;

// Where the rooms meet.
#[cfg(target_os = "linux")]
pub mod pipeline;

// The command line; nothing else uses it.
pub mod cli;
