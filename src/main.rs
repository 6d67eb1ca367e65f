//! The `hardtack` program. Everything it does is in the library; see `hardtack::cli`.

use std::process::ExitCode;

fn main() -> ExitCode {
    hardtack::cli::main()
}
