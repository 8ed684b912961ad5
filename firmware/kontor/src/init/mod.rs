//! The `init` applet: PID 1.

use std::process::ExitCode;

pub(crate) fn pid1(_args: &[String]) -> ExitCode {
    ExitCode::FAILURE
}
