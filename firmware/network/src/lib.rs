//! Desired and observed network state, and the steps between them.
//!
//! Three pure decisions, in the order netd takes them: [`ports`] says which card is which board port,
//! [`desired`] turns the site file into links, addresses and routes, [`diff`] compares that with what the
//! kernel has and names the fewest steps between the two. Beside them, [`collision`] says whether the outside has
//! the office's numbers, and [`loops`] whether two ports are plugged into one switch. This crate never touches a socket, a file or the
//! clock, so every order of events can be written down as a test.

pub mod collision;
pub mod desired;
pub mod diff;
pub mod loops;
pub mod ports;

mod mac;
mod observed;

pub use collision::Collision;
pub use desired::{Desired, Inputs, Uplink, desired};
pub use diff::{Step, diff};
pub use mac::Mac;
pub use observed::{Link, LinkKind, Observed, Route, RouteOrigin};
pub use ports::{Assignment, Nic, Pin, assign};
