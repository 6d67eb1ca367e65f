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

// Bytes ⇄ values.
pub mod format;

// What Debian says, offline.
pub mod debian;

// Bytes by digest on this machine.
pub mod store;

// The filesystem in memory.
pub mod tree;

// Where a tree starts.
pub mod base;
