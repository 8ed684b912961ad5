//! Which machine this is: one of the board files of the base, chosen once, before any service starts.
//!
//! PID 1 does it itself, because its table of services depends on the answer and everyone else waits for them: a few
//! small files of the sealed base and three strings of sysfs, no process and no disk. The strings are compared,
//! never interpreted. Whoever reads the board file follows the link that is left in /run.

use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::Path;

use kontor_config::Board;
use kontor_config::board::{self, Dmi};
use kontor_status::paths;

use super::kmsg;

const DMI: &str = "/sys/class/dmi/id";
/// On the kernel command line: the name of the board, whatever the machine says.
const WISH: &str = "kontor.board=";

/// Chooses the board and leaves a link to its file; without any the box has a serial and a VGA console.
pub(super) fn choose() -> Board {
    let (boards, problems) = all(Path::new(paths::BOARDS));
    problems.iter().for_each(|problem| kmsg::error(problem));
    let command_line = fs::read_to_string("/proc/cmdline").unwrap_or_default();
    let wish = command_line.split_whitespace().find_map(|word| word.strip_prefix(WISH));
    if let Some(name) = wish.filter(|name| !boards.iter().any(|board| board.name == *name)) {
        kmsg::error(&format!("there is no board `{name}`; going by what the machine says"));
    }
    let Some(board) = board::choose(&boards, &dmi(Path::new(DMI)), wish) else {
        kmsg::error("no board file is for this machine");
        let console_devices = vec!["ttyS0".to_owned(), "tty0".to_owned()];
        return Board { name: "unknown".to_owned(), console_devices, ..Board::default() };
    };
    if let Err(error) = link(&board.name, Path::new(paths::BOARDS), Path::new(paths::BOARD)) {
        kmsg::error(&format!("{}: {error}", paths::BOARD));
    }
    board.clone()
}

/// Every valid board file, and what is wrong with the others.
fn all(directory: &Path) -> (Vec<Board>, Vec<String>) {
    let (mut boards, mut problems) = (Vec::new(), Vec::new());
    for path in fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path()) {
        match fs::read_to_string(&path).map(|text| Board::parse(&path.display().to_string(), &text)) {
            Ok(Ok(board)) => boards.push(board),
            Ok(Err(report)) => problems.push(format!("board file: {report}")),
            Err(error) => problems.push(format!("{}: {error}", path.display())),
        }
    }
    (boards, problems)
}

/// A machine without SMBIOS has none of these files.
fn dmi(directory: &Path) -> Dmi {
    let read = |name: &str| {
        fs::read(directory.join(name)).map(|text| String::from_utf8_lossy(&text).trim().to_owned())
    };
    Dmi {
        vendor: read("sys_vendor").unwrap_or_default(),
        product: read("product_name").unwrap_or_default(),
        board: read("board_name").unwrap_or_default(),
    }
}

/// Nothing is there yet: a link appears at once or not at all.
fn link(name: &str, boards: &Path, link: &Path) -> io::Result<()> {
    symlink(boards.join(format!("{name}.toml")), link)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_of_the_machine_are_read_without_their_line_ends() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("sys_vendor"), "PC Engines\n").unwrap();
        fs::write(directory.path().join("product_name"), [b'a', 0xff, b' ', b'\n']).unwrap();
        let dmi = dmi(directory.path());
        assert_eq!((dmi.vendor.as_str(), dmi.product.as_str()), ("PC Engines", "a\u{fffd}"));
        assert_eq!(dmi.board, "");
    }

    #[test]
    fn a_damaged_board_file_costs_that_board_only() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("a.toml"), "schema = 1\nname = \"a\"\n").unwrap();
        fs::write(directory.path().join("b.toml"), [0xff, 0xfe]).unwrap();
        fs::write(directory.path().join("c.toml"), "schema = 1\nname = ").unwrap();
        let (boards, problems) = all(directory.path());
        assert_eq!(boards.iter().map(|board| board.name.as_str()).collect::<Vec<_>>(), ["a"]);
        assert_eq!(problems.len(), 2);
    }

    #[test]
    fn readers_follow_the_link() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("a.toml"), "text").unwrap();
        let path = directory.path().join("board.toml");
        link("a", directory.path(), &path).unwrap();
        assert_eq!(fs::read_to_string(path).unwrap(), "text");
    }
}
