//! `cargo xtask serve`: a repository over HTTP, for trying.

use anyhow::Result;
use camino::Utf8PathBuf;

use crate::publish::serve::Server;
use crate::workspace::Workspace;

const EXAMPLES: &str = "\
Examples:
  cargo xtask serve                                  what `publish` has put into target/repository, on 127.0.0.1:8080
  cargo xtask serve --dir /srv/kontor --listen 192.0.2.1:80";

/// Serve a repository over HTTP, for trying; for real use any web server will do
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The repository [default: target/repository]
    #[arg(long, value_name = "DIR")]
    pub dir: Option<Utf8PathBuf>,
    /// Where to listen; this machine alone unless it is said otherwise
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:8080")]
    pub listen: String,
}

/// Runs the command.
///
/// # Errors
/// When it cannot listen.
pub fn run(args: &Args) -> Result<()> {
    let folder = args.dir.clone().unwrap_or_else(|| Workspace::locate().target().join("repository"));
    let server = Server::bind(&folder, &args.listen)?;
    super::print(format_args!("http://{}/ serves {folder}; Ctrl-C ends it\n", server.address()?))?;
    server.run(|line| eprintln!("{line}"))
}
