//! The program `tillwatch`; everything is in the library.

fn main() -> std::process::ExitCode {
    tillwatch_agent::cli::main()
}
