//! What a component is to be in this office: its role and the files its services read, from the site file.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::{Context, anyhow, bail};
use kontor_config::{Board, Site};

use super::{Places, samba};

/// The site file inside the component, and the board it is for: what runs in there reads them once more.
pub(super) const SITE: &str = "site.toml";
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
    /// Shares that snapshots are taken of.
    pub(super) snapshots: Vec<String>,
    /// Every share, and how many bytes it may take.
    pub(super) quotas: Vec<(String, Option<u64>)>,
    /// What all that was made from.
    texts: Texts,
}

/// The site file and the board file.
#[derive(Debug)]
struct Texts {
    site: String,
    board: String,
}

impl Office {
    /// What the site file says of a component; nothing when it has no table for it.
    ///
    /// # Errors
    /// When a file is wrong.
    pub(super) fn of(places: &Places) -> anyhow::Result<Option<Self>> {
        let texts = Texts { site: read(&places.site)?, board: read(&places.board)? };
        let site = parse(&places.site, &texts.site, &places.board, &texts.board)?;
        let told = match places.name.as_str() {
            samba::NAME => samba::office(&site),
            name => bail!("this firmware knows no component {name:?}"),
        };
        let (snapshots, quotas) = (samba::snapshots(&site), samba::quotas(&site));
        let host_name = site.office.host_name;
        Ok(told.map(|(role, files)| Self { role, host_name, files, snapshots, quotas, texts }))
    }

    /// Whether a component that has been told this has nothing new to hear from `other`: of a site file, most is none of
    /// its business.
    pub(super) fn says_the_same(&self, other: &Self) -> bool {
        let told = |office: &Self| (office.role.clone(), office.host_name.clone(), office.files.clone());
        told(self) == told(other)
    }

    /// Writes the files below `directory`, readable for the component's root alone where they may hold secrets.
    ///
    /// # Errors
    /// The kernel's.
    pub(super) fn write_files(&self, directory: &Path) -> anyhow::Result<()> {
        fs::create_dir_all(directory)?;
        let rendered = self.files.iter().map(|(name, content)| (*name, content));
        for (name, content) in rendered.chain([(SITE, &self.texts.site), (BOARD, &self.texts.board)]) {
            let path = directory.join(name);
            fs::write(&path, content).with_context(|| path.display().to_string())?;
            let mode = if name == SITE { 0o600 } else { 0o644 };
            fs::set_permissions(&path, fs::Permissions::from_mode(mode))?;
        }
        Ok(())
    }
}

/// The role that a site gives a component; nothing when it has no table for it.
pub(crate) fn role(site: &Site, component: &str) -> Option<&'static str> {
    match component {
        samba::NAME => site.samba.as_ref().map(|table| samba::role(table.role)),
        _ => None,
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
