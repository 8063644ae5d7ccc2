use std::process::ExitCode;

fn main() -> ExitCode {
    keywright_app::main()
}
