//! `loadtest`: plays callers, agents and media servers towards a SIP system, and reports what it saw.

mod cli;

fn main() -> std::process::ExitCode {
    cli::main()
}
