//! `cargo xtask`: the builder.
fn main() {}
