//! The board file: what a machine type has.
//!
//! The same file serves the builder (which kernel modules and firmware go into the image) and the box
//! (which machine it is, ports, console, watchdog). Every key is known here, so that a mistyped one is an error in
//! both; only `[machine]`, how QEMU mimics the board, is the builder's own and never reaches the box.

mod matching;

use serde::Deserialize;

pub use matching::{BoardMatch, Dmi, choose};

use crate::report::{Findings, Report};

/// A validated board description.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Board {
    /// Name of the board, the file's stem.
    pub name: String,
    /// Which machines it is for.
    pub matching: BoardMatch,
    /// Network ports in the order printed on the case.
    pub ports: Vec<BoardPort>,
    /// Boot firmware the image supports on this board.
    pub firmware: Vec<BoardFirmware>,
    /// Kernel modules that go into the image (with their dependencies).
    pub kernel_modules: Vec<String>,
    /// Kernel modules loaded at every boot because nothing asks for them by modalias (`nf_tables`, …).
    pub kernel_load: Vec<String>,
    /// Board-specific words of the kernel command line.
    pub kernel_cmdline: Vec<String>,
    /// Terminals that show the console, below /dev (`ttyS0`, `tty0`).
    pub console_devices: Vec<String>,
    /// Candidates for the hardware watchdog's module, tried in order.
    pub watchdog_modules: Vec<String>,
}

/// One network port of a board.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BoardPort {
    /// `port1`, `port2`, …
    pub name: String,
    /// PCI path (`0000:00:02.0`) when the board fixes it; otherwise ports are assigned in PCI order
    /// at first boot and then pinned.
    pub pci: Option<String>,
}

/// A kind of boot firmware.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BoardFirmware {
    /// PC BIOS.
    Bios,
    /// UEFI.
    Uefi,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct RawBoard {
    schema: toml::Spanned<u32>,
    name: String,
    #[serde(default, rename = "match")]
    matching: RawMatch,
    #[serde(default)]
    firmware: Vec<BoardFirmware>,
    #[serde(default)]
    port: Vec<toml::Spanned<RawPort>>,
    #[serde(default)]
    kernel: RawKernel,
    #[serde(default)]
    console: RawConsole,
    #[serde(default)]
    watchdog: RawWatchdog,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct RawMatch {
    #[serde(default)]
    dmi_vendor: Words,
    #[serde(default)]
    dmi_product: Words,
    #[serde(default)]
    dmi_board: Words,
}

/// One string or several.
#[derive(Deserialize)]
#[serde(untagged, expecting = "expected a string or a list of strings")]
enum Words {
    One(String),
    Several(Vec<String>),
}

impl Default for Words {
    fn default() -> Self {
        Self::Several(Vec::new())
    }
}

impl From<Words> for Vec<String> {
    fn from(words: Words) -> Self {
        match words {
            Words::One(word) => vec![word],
            Words::Several(words) => words,
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct RawPort {
    name: toml::Spanned<String>,
    pci: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct RawKernel {
    #[serde(default)]
    modules: Vec<String>,
    #[serde(default)]
    load: Vec<String>,
    #[serde(default)]
    cmdline: Vec<String>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct RawConsole {
    #[serde(default)]
    devices: Vec<String>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct RawWatchdog {
    #[serde(default)]
    modules: Vec<String>,
}

impl Board {
    /// Parses and validates a board file.
    ///
    /// # Errors
    /// A [`Report`] of what is wrong: the first type error alone, or every semantic mistake.
    pub fn parse(file_name: &str, text: &str) -> Result<Self, Report> {
        let mut findings = Findings::new(file_name, text);
        let raw = match toml::from_str::<RawBoard>(text) {
            Ok(raw) => Some(raw),
            Err(error) => {
                findings.add(&error.span().unwrap_or(0..0), error.message(), "");
                None
            }
        };
        let board = raw.map(|raw| raw.validate(&mut findings));
        match (findings.into_report(), board) {
            (None, Some(board)) => Ok(board),
            (report, _) => Err(report.unwrap_or_else(|| Report::about_file(file_name, "empty", ""))),
        }
    }

    /// Names of the ports, in board order.
    pub fn port_names(&self) -> impl Iterator<Item = &str> {
        self.ports.iter().map(|port| port.name.as_str())
    }
}

impl RawBoard {
    fn validate(self, findings: &mut Findings) -> Board {
        if *self.schema.get_ref() != 1 {
            let message = format!("unknown schema {}", self.schema.get_ref());
            findings.add(&self.schema.span(), message, "this firmware knows schema 1");
        }
        let mut ports: Vec<BoardPort> = Vec::new();
        for port in self.port {
            let RawPort { name, pci } = port.into_inner();
            let (span, name) = (name.span(), name.into_inner());
            if !is_port_name(&name) {
                findings.add(&span, format!("`{name}` is not a port name"), "port1, port2, …");
            }
            if ports.iter().any(|other| other.name == name) {
                findings.add(&span, format!("port `{name}` is there twice"), "");
            }
            ports.push(BoardPort { name, pci });
        }
        let RawMatch { dmi_vendor, dmi_product, dmi_board } = self.matching;
        let matching = BoardMatch {
            dmi_vendor: dmi_vendor.into(),
            dmi_product: dmi_product.into(),
            dmi_board: dmi_board.into(),
        };
        Board {
            name: self.name,
            matching,
            ports,
            firmware: self.firmware,
            kernel_modules: self.kernel.modules,
            kernel_load: self.kernel.load,
            kernel_cmdline: self.kernel.cmdline,
            console_devices: self.console.devices,
            watchdog_modules: self.watchdog.modules,
        }
    }
}

/// Port names become interface names (at most 15 characters, of which VLAN numbers need five).
fn is_port_name(name: &str) -> bool {
    let number = name.strip_prefix("port");
    number.is_some_and(|n| !n.is_empty() && n.len() <= 3 && n.bytes().all(|b| b.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expect: &str) {
        assert_eq!(Board::parse("board.toml", text).unwrap_err().to_string(), expect);
    }

    /// Boards that inherit are merged (and tested) by the builder; the box never sees them unmerged.
    #[test]
    fn reads_the_generic_board() {
        let file = include_str!("../../../board/generic-x86-64.toml");
        // What QEMU mimics it with is the builder's, which takes it out.
        let text = file.split("[machine]").next().unwrap_or(file);
        let board = Board::parse("generic-x86-64.toml", text).unwrap_or_else(|report| panic!("{report}"));
        assert_eq!(board.name, "generic-x86-64");
        assert_eq!(board.firmware, [BoardFirmware::Bios, BoardFirmware::Uefi]);
        assert!(board.ports.len() >= 2, "no gateway");
    }

    #[test]
    fn a_match_is_one_string_or_several() {
        let text = "schema = 1\nname = \"x\"\n[match]\ndmi-vendor = \"A\"\ndmi-board = [\"B\", \"C\"]\n";
        let board = Board::parse("x.toml", text).unwrap();
        assert_eq!(board.matching.dmi_vendor, ["A"]);
        assert_eq!(board.matching.dmi_board, ["B", "C"]);
        let report = Board::parse("x.toml", &text.replace("\"A\"", "7")).unwrap_err().to_string();
        assert!(report.contains("expected a string or a list of strings"), "{report}");
    }

    #[test]
    fn unknown_key_is_refused() {
        let text = "schema = 1\nname = \"x\"\n[kernel]\nlod = [\"nf_tables\"]\n";
        check(
            text,
            "error: unknown field `lod`, expected one of `modules`, `load`, `cmdline`\n --> board.toml:4:1\n  |\n\
             4 | lod = [\"nf_tables\"]\n  | ^^^\n",
        );
    }

    #[test]
    fn schema_and_ports_are_checked_together() {
        let text = "schema = 2\nname = \"x\"\n[[port]]\nname = \"eth0\"\n";
        let report = Board::parse("board.toml", text).unwrap_err();
        let messages: Vec<_> = report.diagnostics.iter().map(|d| d.message.as_str()).collect();
        assert_eq!(messages, ["unknown schema 2", "`eth0` is not a port name"]);
    }
}
