//! Releases and updates: what is published, what a box decides, and what it remembers of an update.
//!
//! Documents ([`Release`], [`Channel`]) are read after their signatures have been checked, by who holds the keys' trust; here
//! they are data. It opens no file and no socket; time is an argument, in seconds since 1970.

pub mod channel;
pub mod check_in;
pub mod decision;
pub mod digest;
pub mod health;
pub mod journal;
pub mod release;
pub mod schedule;
pub mod version;

pub use channel::Channel;
pub use decision::{Choice, Facts, Refusal, Wish, accept, choose};
pub use digest::Sha256Hex;
pub use health::{Health, Looks, Sentence, Verdict, judge};
pub use journal::Journal;
pub use kontor_migrate::Span;
pub use release::Release;
pub use schedule::Schedule;
pub use version::Version;
