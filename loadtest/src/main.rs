use std::process::ExitCode;

fn main() -> ExitCode {
    keywright_loadtest::main()
}
