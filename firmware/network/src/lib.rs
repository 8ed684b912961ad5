//! Desired and observed network state, and the steps between them.
