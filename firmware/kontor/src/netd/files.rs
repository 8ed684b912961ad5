//! The files netd reads and writes at once: board, site, status and kernel settings. What is durable is in
//! [`super::store`].

use std::path::{Path, PathBuf};

use kontor_config::{Board, Site};
use kontor_status::NetStatus;

pub(super) fn accept_ra(proc_sys: &Path, interface: &str) -> PathBuf {
    proc_sys.join("net/ipv6/conf").join(interface).join("accept_ra")
}

pub(super) fn is_forwarding(proc_sys: &Path) -> bool {
    std::fs::read_to_string(proc_sys.join("net/ipv4/ip_forward")).is_ok_and(|value| value.trim() == "1")
}

pub(super) fn write_status(path: &Path, status: &NetStatus) -> std::io::Result<()> {
    let text = serde_json::to_vec(status).map_err(std::io::Error::from)?;
    kontor_sys::file::write_atomic(path, &text)
}

/// The board; without a readable board file there are no ports, and people are told why.
pub(super) fn read_board(path: &Path) -> (Board, Option<String>) {
    let parsed = std::fs::read_to_string(path)
        .map_err(|error| error.to_string())
        .and_then(|text| Board::parse("board.toml", &text).map_err(|report| report.to_string()));
    match parsed {
        Ok(board) => (board, None),
        Err(error) => {
            let problem = format!("board file {} is not usable: {error}", path.display());
            eprintln!("{problem}");
            (Board::default(), Some(problem))
        }
    }
}

pub(super) fn read_site(path: &Path, board: &Board) -> Result<Option<Site>, String> {
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(format!("{}: {error}", path.display())),
    };
    let name = path.display().to_string();
    Site::parse_bytes(&name, &bytes, board).map(Some).map_err(|report| report.to_string())
}
