//! What will be done: the lock and what follows from it. Nothing here reads a file, asks the network or knows the time.

pub mod identity;
pub mod lock;
pub mod request;
pub mod resolve;

pub use identity::Identity;
pub use lock::Lock;
