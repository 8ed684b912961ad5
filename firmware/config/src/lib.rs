//! The site file and the board file: schema, validation and error reports.
//!
//! One crate validates `site.toml` everywhere: on the box, in the builder, at the centre and in the
//! portal. It owns the raw form (values with their places in the file) and the validated form, and turns
//! every mistake into a [`Report`] with file, line, caret and what is allowed. It never touches the file
//! system or the network, and never panics, whatever the text.
//!
//! A text goes through three stages; each shows all its mistakes at once, and the next one runs only when
//! there were none: TOML syntax (`toml`), then keys, types and formats (`raw`), then meaning (`check`).

pub mod board;
pub mod site;

mod check;
mod document;
mod name;
mod parse;
mod raw;
mod report;
mod schema;
mod window;

pub use board::Board;
pub use parse::MAX_SITE_SIZE;
pub use report::{Diagnostic, Report};
pub use site::Site;
pub use window::{Window, WindowError};
