//! hardtack
fn main() {}
