//! Decisions of the service supervisor, as a sans-IO state machine.
//!
//! [`Supervisor`] is told what happened (time, exits, notifications, commands) and answers with what to do
//! ([`Output`]). Time is an argument: the monotonic time since the kernel started. It owns order, readiness,
//! restarts, deadlines and health; it never starts a process itself.
//!
//! **Invariants**, each a property test: a service never has two processes; nothing waits for ever (whoever
//! is ordered after a service is released when that becomes ready *or fails or runs out of time*); after
//! [`Supervisor::shut_down`] nothing is started and everything ends within the sum of the deadlines.

mod backoff;
mod health;
mod message;
mod service;
mod supervisor;

pub use backoff::LONGEST_PAUSE;
pub use health::{GOOD_AFTER, Health, STARVE_AFTER};
pub use message::Message;
pub use service::{Exit, Kind, Readiness, Spec, State};
pub use supervisor::{Id, Output, SignalKind, SpecError, Supervisor};
