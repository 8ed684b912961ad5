//! `cargo xtask flash`: writes an image to a disk, and makes sure that it is there.

use std::fs::File;
use std::io::{BufRead, IsTerminal, Read, Write};

use anyhow::{Context, Result, ensure};
use camino::{Utf8Path, Utf8PathBuf};
use kontor_boot::Guid;
use kontor_boot::install::Order;
use kontor_config::Site;
use kontor_config::site::SambaRole;

use crate::flash::usage::Kernel;
use crate::flash::{Source, Target, write};
use crate::image::declaration::{BoardFile, Product};
use crate::image::plan::named_board;
use crate::image::seed;
use crate::workspace::Workspace;

const EXAMPLES: &str = "\
Examples:
  cargo xtask flash target/images/branch.img /dev/sdX                     asks before it writes
  cargo xtask flash target/images/branch.img /dev/sdX --site office.toml  with its office in it
  cargo xtask flash target/images/branch.img /dev/sdX --site office.toml --join joiner.txt
                                                                          and joins its domain by itself
  cargo xtask flash target/images/branch.img /dev/sdX --site office.toml --install
                                                                          a stick that puts the office's box on a machine
  cargo xtask flash target/images/branch.img disk.img --size 8192         into a new file, for a virtual machine";

/// Write an image to a disk or a file, read it back, and say whether it is right
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The image, from `cargo xtask image`
    pub image: Utf8PathBuf,
    /// The disk (/dev/sdX) or file; everything on it is lost
    pub target: Utf8PathBuf,
    /// Give the box this site file, which it imports at its first boot, instead of the image's own
    #[arg(long, value_name = "FILE")]
    pub site: Option<Utf8PathBuf>,
    /// Have the box join the domain of the site file by itself, as soon as it reaches headquarters. The file has two lines: a
    /// user who may join computers, and the password; both are wiped on the box when the domain has accepted or refused them
    #[arg(long, value_name = "FILE", requires = "site")]
    pub join: Option<Utf8PathBuf>,
    /// Have a box that boots from this stick install itself to the machine's only internal disk, with the office of --site, and
    /// switch off. It asks nobody, and leaves a disk alone that has something on it
    #[arg(long)]
    pub install: bool,
    /// With --install: also overwrite an internal disk that has something on it, be it another office
    #[arg(long, requires = "install")]
    pub install_over: bool,
    /// Check the site file against this machine's ports: the name of a file in board/ [default: that for any machine]
    #[arg(long, short, value_name = "NAME", requires = "site")]
    pub board: Option<String>,
    /// The product whose boards are meant: the name of a file in images/
    #[arg(long, value_name = "NAME", default_value = "branch", requires = "site")]
    pub product: String,
    /// Make the target as a new file of this size
    #[arg(long, value_name = "MIB", value_parser = clap::value_parser!(u64).range(1..=1 << 30))]
    pub size: Option<u64>,
    /// Do not ask: overwrite the target with everything that is on it
    #[arg(long)]
    pub yes_erase_all_data_on_target: bool,
}

/// Runs the command.
///
/// # Errors
/// When the image or the site file is wrong, the target must not be overwritten, nobody agreed, or the target does
/// not give back what was written.
pub fn run(args: &Args) -> Result<()> {
    let source = Source::open(&args.image)?;
    let seed = read_seed(args)?;
    let created = args.size.map(|mib| create(args, mib, &source)).transpose()?;
    let target = Target::inspect(&args.target, &source, &Kernel::default())?;
    if created.is_none() {
        agree(args, &target)?;
    }
    let layout = source.layout(target.bytes, seed, random_id()?)?;
    let mut medium = target.open()?;
    write::flash(&source, &layout, &mut medium).with_context(|| format!("{} is NOT usable", target.path))?;
    super::print(format_args!("{}: written and verified\n", target.path))
}

/// The seed with the site file, once that is valid, and with the order to install; nothing when there is neither.
fn read_seed(args: &Args) -> Result<Option<Vec<u8>>> {
    if args.site.is_none() && !args.install {
        return Ok(None);
    }
    let workspace = Workspace::locate();
    let product = Product::load(&workspace.product(&args.product))?;
    let epoch_s = product.epoch_s()?;
    let office = args.site.as_ref().map(|path| read_office(path, args, &workspace, &product)).transpose()?;
    let office = office.as_ref().map(|(site, join)| (site.as_str(), join.as_deref()));
    if args.install {
        let order = Order { id: random_id()?, over: args.install_over };
        return seed::installing(office, &order, epoch_s).map(Some);
    }
    office.map(|(site, join)| seed::seed(site, join, epoch_s)).transpose()
}

/// The site file, and who joins its domain.
fn read_office(
    path: &Utf8Path,
    args: &Args,
    workspace: &Workspace,
    product: &Product,
) -> Result<(String, Option<String>)> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {path}"))?;
    let boards = BoardFile::load_all(product, workspace)?;
    let board = named_board(args.board.as_deref(), product, &boards)?;
    let site = Site::parse(path.as_str(), &text, &board.board)
        .map_err(|report| anyhow::anyhow!("{path} has mistakes\n\n{report}"))?;
    let join = args.join.as_ref().map(|file| read_join(file, path, &site)).transpose()?;
    Ok((text, join))
}

/// By which a disk, or what is made of a stick, is told from all others.
fn random_id() -> Result<Guid> {
    let mut bytes = [0; 16];
    File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut bytes)).context("/dev/urandom")?;
    Ok(Guid(bytes))
}

/// Who joins which domain: a mistake is found here, and not in a cupboard far away.
fn read_join(file: &Utf8Path, site_file: &Utf8Path, site: &Site) -> Result<String> {
    let joins = site.samba.as_ref().is_some_and(|samba| samba.role != SambaRole::Dc);
    ensure!(
        joins,
        "--join: {site_file} has no [samba] with role \"rodc\" or \"member\", so there is no domain to join"
    );
    let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {file}"))?;
    let lines: Vec<&str> = text.lines().collect();
    let is_whole = matches!(*lines, [user, password] if !user.trim().is_empty() && !password.is_empty());
    ensure!(
        is_whole,
        "{file} is to have two lines: the name of a user who may join computers, and the password"
    );
    let plain = !lines[0].contains(['%', '\u{feff}']);
    ensure!(plain, "{file}, line 1: {:?} is no name of a user", lines[0]);
    Ok(text)
}

/// A new file has nothing to lose, so nobody is asked.
fn create(args: &Args, mib: u64, source: &Source) -> Result<()> {
    let bytes = mib << 20;
    let needed = source.length().div_ceil(1 << 20);
    ensure!(mib >= needed, "--size {mib} is too small: the image needs {needed}");
    let mut options = std::fs::OpenOptions::new();
    let file = options.write(true).create_new(true).open(&args.target);
    let file = file.with_context(|| format!("--size makes a new file; cannot create {}", args.target))?;
    file.set_len(bytes).with_context(|| format!("cannot make {} that large", args.target))
}

/// Shows what will be lost, and asks.
fn agree(args: &Args, target: &Target) -> Result<()> {
    eprintln!("everything on this target will be lost:\n{target}");
    if args.yes_erase_all_data_on_target {
        return Ok(());
    }
    let stdin = std::io::stdin();
    ensure!(
        stdin.is_terminal() && std::io::stderr().is_terminal(),
        "there is no terminal to ask on; --yes-erase-all-data-on-target overwrites {} without asking",
        target.path
    );
    eprint!("type \"erase\" to go on: ");
    std::io::stderr().flush()?;
    let mut line = String::new();
    stdin.lock().read_line(&mut line).context("reading the answer")?;
    ensure!(line.trim() == "erase", "nothing was written");
    Ok(())
}
