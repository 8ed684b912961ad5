//! What a component is to be in this office: its role and the files its services read, from the site file.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::{Context, anyhow, bail};
use kontor_config::{Board, Site};

use super::samba;

/// The site file inside the component, and the board it is for: what runs in there reads them once more.
const SITE: &str = "site.toml";
const BOARD: &str = "board.toml";
/// Where all files are.
pub(super) const DIRECTORY: &str = "/run/kontor";

/// One component in one office.
#[derive(Debug)]
pub(super) struct Office {
    /// Which of the manifest's services run.
    pub(super) role: String,
    /// The box's own.
    pub(super) host_name: String,
    /// Names below /run/kontor, and contents.
    files: Vec<(&'static str, String)>,
}

impl Office {
    /// What the site file says of a component.
    ///
    /// # Errors
    /// When a file is wrong, or says nothing of this component.
    pub(super) fn of(component: &str, site_file: &Path, board_file: &Path) -> anyhow::Result<Self> {
        let (site_text, board_text) = (read(site_file)?, read(board_file)?);
        let site = parse(site_file, &site_text, board_file, &board_text)?;
        let (role, mut files) = match component {
            samba::NAME => samba::office(&site).with_context(|| site_file.display().to_string())?,
            _ => bail!("this firmware knows no component {component:?}"),
        };
        files.extend([(SITE, site_text), (BOARD, board_text)]);
        Ok(Self { role, host_name: site.office.host_name, files })
    }

    /// Writes the files below `directory`, readable for the component's root alone where they may hold secrets.
    ///
    /// # Errors
    /// The kernel's.
    pub(super) fn write_files(&self, directory: &Path) -> anyhow::Result<()> {
        fs::create_dir_all(directory)?;
        for (name, content) in &self.files {
            let path = directory.join(name);
            fs::write(&path, content).with_context(|| path.display().to_string())?;
            let mode = if *name == SITE { 0o600 } else { 0o644 };
            fs::set_permissions(&path, fs::Permissions::from_mode(mode))?;
        }
        Ok(())
    }
}

/// Once the preparation is done nobody reads the site file in there any more, and it holds the operator's password hash.
///
/// # Errors
/// The kernel's.
pub(super) fn forget_site() -> anyhow::Result<()> {
    fs::remove_file(Path::new(DIRECTORY).join(SITE)).context(SITE)
}

/// The site, inside the component.
///
/// # Errors
/// When process 1 has not put the files there.
pub(super) fn site_inside() -> anyhow::Result<Site> {
    let [site, board] = [SITE, BOARD].map(|name| Path::new(DIRECTORY).join(name));
    parse(&site, &read(&site)?, &board, &read(&board)?)
}

fn read(path: &Path) -> anyhow::Result<String> {
    fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}

fn parse(site_file: &Path, site: &str, board_file: &Path, board: &str) -> anyhow::Result<Site> {
    let name = |path: &Path| path.display().to_string();
    let board = Board::parse(&name(board_file), board).map_err(|report| anyhow!("{report}"))?;
    Site::parse(&name(site_file), site, &board).map_err(|report| anyhow!("{report}"))
}
