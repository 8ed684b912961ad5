//! From one schema to another: all files or none, whenever the power goes.
//!
//! First every changed file is staged beside the others and made durable. Then the note says what is to become of them: from
//! that write on the change has happened, and whatever boots next finishes it, knowing nothing of schemas. At last the note says that it is
//! done. Until then no program has the directory.

use std::io;

use serde::{Deserialize, Serialize};

use crate::table::Table;

/// The note's file: which schema is in force. Without one it is 1.
pub const NOTE: &str = "schema.json";
/// Where changed files are staged.
pub const STAGING: &str = ".migrating";
/// Tells directories apart in the name of a staged file.
const SEPARATOR: &str = "%";

/// The directory with what a box keeps. Paths are relative to it; no other program has it meanwhile.
pub trait Directory {
    /// A file's bytes; nothing when there is no such file.
    ///
    /// # Errors
    /// When it cannot be read.
    fn read(&self, path: &str) -> io::Result<Option<Vec<u8>>>;

    /// Replaces a file at once, durably.
    ///
    /// # Errors
    /// The old file is there then.
    fn put(&mut self, path: &str, bytes: &[u8]) -> io::Result<()>;

    /// Writes a new file with the owner and mode of `like`; its bytes are durable, its name is not yet.
    ///
    /// # Errors
    /// When it cannot be written.
    fn stage(&mut self, path: &str, bytes: &[u8], like: &str) -> io::Result<()>;

    /// Puts a file in the place of another; not durable yet. One that is not there any more is no error: it has been done.
    ///
    /// # Errors
    /// When it cannot be done.
    fn rename(&mut self, from: &str, to: &str) -> io::Result<()>;

    /// Makes durable what a directory's names are.
    ///
    /// # Errors
    /// When it cannot be done.
    fn sync(&mut self, directory: &str) -> io::Result<()>;

    /// Makes an empty staging directory, or removes it.
    ///
    /// # Errors
    /// When it cannot be done.
    fn clear(&mut self, keep: bool) -> io::Result<()>;
}

/// Which schema is in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Note {
    /// That of all files.
    pub schema: u32,
    /// What is being changed, and has to be finished.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub becoming: Option<Becoming>,
}

/// A change that has happened, but for moving files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Becoming {
    /// The schema after it.
    pub schema: u32,
    /// The files that are staged.
    pub files: Vec<String>,
}

impl Note {
    /// This schema, and nothing under way.
    #[must_use]
    pub const fn of(schema: u32) -> Self {
        Self { schema, becoming: None }
    }

    /// # Errors
    /// When the bytes are no note.
    pub fn parse(bytes: &[u8]) -> Result<Self, String> {
        serde_json::from_slice(bytes)
            .map_err(|error| format!("{NOTE}: {error}; it should be {{\"schema\": 1}}"))
    }

    /// As it is written.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// The note of a directory, after finishing what was under way; nothing where there is none, or none that can be read.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn settle(directory: &mut impl Directory) -> io::Result<Option<u32>> {
        let Some(bytes) = directory.read(NOTE)? else { return Ok(None) };
        let Ok(note) = Self::parse(&bytes) else { return Ok(None) };
        match note.becoming {
            None => Ok(Some(note.schema)),
            Some(becoming) => finish(directory, &becoming).map(|()| Some(becoming.schema)),
        }
    }
}

/// Where a changed file waits.
#[must_use]
pub fn staged(path: &str) -> String {
    format!("{STAGING}/{}", path.replace('/', SEPARATOR))
}

/// Brings everything from one schema to another. After an error or a power cut it is in the first one or, after [`Note::settle`],
/// in the other: never in both.
///
/// # Errors
/// When the disk fails or is full.
pub fn bring(directory: &mut impl Directory, table: &Table, from: u32, to: u32) -> io::Result<()> {
    directory.clear(true)?;
    let mut files = Vec::new();
    for path in table.changed(from, to) {
        let Some(bytes) = directory.read(path)? else { continue };
        directory.stage(&staged(path), &table.convert(path, &bytes, from, to), path)?;
        files.push(path.to_owned());
    }
    directory.sync(STAGING)?;
    directory.sync("")?;
    let becoming = Becoming { schema: to, files };
    directory.put(NOTE, &Note { schema: from, becoming: Some(becoming.clone()) }.to_json())?;
    finish(directory, &becoming)
}

fn finish(directory: &mut impl Directory, becoming: &Becoming) -> io::Result<()> {
    for path in &becoming.files {
        directory.rename(&staged(path), path)?;
    }
    for path in &becoming.files {
        directory.sync(path.rsplit_once('/').map_or("", |(parent, _)| parent))?;
    }
    directory.put(NOTE, &Note::of(becoming.schema).to_json())?;
    // What is left of it is in nobody's way.
    let _ = directory.clear(false);
    Ok(())
}

#[cfg(test)]
mod tests;
