//! Scripts against the server machine.
