//! Attacks on the way from the repository to a box, each with the rule that must stop it.
//!
//! The attacker has the server and everything on the line; in some tests also the keys that lie on the server, which are those of
//! snapshot and timestamp.

#![allow(clippy::unwrap_used)]

mod documents;
mod forge;
mod metadata;
mod power;
mod roots;
mod tampering;
mod time;
