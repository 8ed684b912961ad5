//! The board file: what a machine type has.

/// A validated board description.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Board {
    /// Name of the board, the file's stem.
    pub name: String,
    /// Network ports in the order printed on the case.
    pub ports: Vec<BoardPort>,
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
