//! The `hardtack` program. Everything it does is in the library; `cli::main` is the table of commands.

use std::process::ExitCode;

fn main() -> ExitCode {
    // First of all, while there is one thread: this may be the sandbox's child.
    #[cfg(target_os = "linux")]
    if let Some(code) = hardtack::sandbox::child_main() {
        return code;
    }
    hardtack::cli::main()
}
