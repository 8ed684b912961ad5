//! Running a build tool: silent when it succeeds, its whole output in the error when it does not.

use std::process::Command;

use anyhow::{Context, Result, bail};

/// Runs to the end and returns standard output.
///
/// # Errors
/// When the program cannot be started or fails.
pub fn run(mut command: Command) -> Result<Vec<u8>> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.output().with_context(|| format!("cannot run {name}"))?;
    if !output.status.success() {
        let arguments: Vec<_> = command.get_args().map(|argument| argument.to_string_lossy()).collect();
        let text =
            [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
        bail!("{name} {}: {}\n{}", arguments.join(" "), output.status, text.trim_end());
    }
    Ok(output.stdout)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn output_is_returned_or_shown() {
        assert_eq!(run(shell("echo yes")).unwrap(), b"yes\n");
        let error = run(shell("echo no >&2; exit 3")).unwrap_err().to_string();
        assert!(error.contains("exit status: 3") && error.ends_with("\nno"), "{error}");
    }
}
