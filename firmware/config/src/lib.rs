//! The site file and the board file: schema, validation and error reports.
//!
//! One crate validates `site.toml` everywhere: on the box, in the builder, at the centre and in the
//! portal. It owns the raw (serde) form and the validated form, and turns every mistake into a
//! [`Report`] with file, line, caret and what is allowed. It never touches the file system or the
//! network.

pub mod board;
pub mod site;

mod report;

pub use board::Board;
pub use report::{Diagnostic, Report};
pub use site::Site;
