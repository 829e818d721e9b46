//! `rhub`: the command line. See [`command`].

mod command;

fn main() -> std::process::ExitCode {
    command::main()
}
