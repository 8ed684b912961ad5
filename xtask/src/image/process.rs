//! Running a build tool: silent when it succeeds, its whole output in the error when it does not.

use std::io::{BufWriter, Write};
use std::process::{ChildStdin, Command, Output, Stdio};

use anyhow::{Context, Result, anyhow, bail};

/// Runs to the end and returns standard output.
///
/// # Errors
/// When the program cannot be started or fails.
pub fn run(mut command: Command) -> Result<Vec<u8>> {
    let output = command.output().with_context(|| format!("cannot run {}", name(&command)))?;
    checked(&command, output)
}

/// As [`run`], of a program whose standard input is what `feed` writes, as it is written.
///
/// # Errors
/// Those of [`run`] and of `feed`.
pub fn run_fed(
    mut command: Command,
    feed: impl FnOnce(&mut BufWriter<ChildStdin>) -> Result<()> + Send,
) -> Result<Vec<u8>> {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().with_context(|| format!("cannot run {}", name(&command)))?;
    let input = child.stdin.take().context("a child without standard input")?;
    // By another thread: the program may have much to say before it has read everything.
    let (output, fed) = std::thread::scope(|scope| {
        let fed = scope.spawn(move || {
            let mut input = BufWriter::with_capacity(1 << 17, input);
            feed(&mut input)?;
            Ok(input.flush()?)
        });
        let output = child.wait_with_output();
        (output, fed.join().unwrap_or_else(|_| Err(anyhow!("feeding a program panicked"))))
    });
    let output = output.with_context(|| format!("cannot run {}", name(&command)))?;
    // A program that fails does not read on; why it failed says more.
    let said = checked(&command, output)?;
    fed.with_context(|| format!("feeding {}", name(&command)))?;
    Ok(said)
}

fn name(command: &Command) -> String {
    command.get_program().to_string_lossy().into_owned()
}

fn checked(command: &Command, output: Output) -> Result<Vec<u8>> {
    if !output.status.success() {
        let arguments: Vec<_> = command.get_args().map(|argument| argument.to_string_lossy()).collect();
        let text =
            [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
        bail!("{} {}: {}\n{}", name(command), arguments.join(" "), output.status, text.trim_end());
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
    fn what_is_fed_is_read() {
        let much = vec![b'x'; 1 << 20];
        let feed = |input: &mut BufWriter<ChildStdin>| Ok(input.write_all(&much)?);
        assert_eq!(run_fed(shell("cat"), feed).unwrap(), much);
        let error = run_fed(shell("echo full >&2; exit 3"), feed).unwrap_err().to_string();
        assert!(error.ends_with("\nfull"), "{error}");
        let unread = format!("{:#}", run_fed(shell("exec <&-"), feed).unwrap_err());
        assert!(unread.starts_with("feeding sh: "), "{unread}");
        let error = run_fed(shell("cat"), |_| bail!("no tree")).unwrap_err();
        assert_eq!(format!("{error:#}"), "feeding sh: no tree");
    }

    #[test]
    fn output_is_returned_or_shown() {
        assert_eq!(run(shell("echo yes")).unwrap(), b"yes\n");
        let error = run(shell("echo no >&2; exit 3")).unwrap_err().to_string();
        assert!(error.contains("exit status: 3") && error.ends_with("\nno"), "{error}");
    }
}
