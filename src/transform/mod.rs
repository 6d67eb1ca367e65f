//! Tree → Tree: each step a function with named inputs. Nothing here does I/O beyond reading file contents by reference,
//! knows the time, or knows a disk format.

pub mod accounts;
pub mod firewall;
pub mod network;
pub mod overlay;
pub mod seal;
pub mod services;
pub mod system;
pub mod updates;
