//! The schema of what a box keeps on `state`: which ones a release reads, which one is in force, how one becomes another.
//!
//! Programs know the schema of their own release and no other. What lies on the disk has the schema that *every* release the
//! box may boot can read ([`target`]), so whichever runs next, by whatever way it got there, finds all of it. Between the two stand the
//! migrations ([`Table`]): they change whole files when the schema changes ([`bring`]), and everything that is read or written
//! while an older schema is in force.
//!
//! Nothing here touches a disk: [`Directory`] is the caller's.

mod plan;
mod table;
mod transaction;

pub use plan::{Other, Unreadable, target};
pub use table::{Change, Migration, Span, TABLE, Table};
pub use transaction::{Directory, NOTE, Note, STAGING, bring, staged};
