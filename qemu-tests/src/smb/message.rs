//! Messages of SMB 2 and 3 ([MS-SMB2], section 2.2): the header and the bodies of what a test asks for.

use anyhow::{Context, Result, ensure};

use super::ntlm::utf16;

/// Length of the header; offsets within messages count from its start.
pub(super) const HEADER: usize = 64;
/// Where the header has the signature, and the flag that says so.
pub(super) const SIGNATURE: std::ops::Range<usize> = 48..64;
pub(super) const SIGNED: u8 = 0x08;
const MAGIC: &[u8; 4] = b"\xfeSMB";

/// `STATUS_PENDING`: the answer comes later.
pub(super) const PENDING: u32 = 0x103;
/// `STATUS_MORE_PROCESSING_REQUIRED`: the log-on has a next step.
pub(super) const MORE: u32 = 0xc000_0016;

/// Commands by their numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u16)]
pub(super) enum Command {
    Negotiate = 0,
    SessionSetup = 1,
    TreeConnect = 3,
    Create = 5,
    Close = 6,
    Flush = 7,
    Read = 8,
    Write = 9,
    SetInfo = 17,
}

/// How the server names an open file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileId(pub(super) [u8; 16]);

/// What opening does if the file is there, or is not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Disposition {
    /// It must be there.
    Open = 1,
    /// It is made if it is not there.
    OpenIf = 3,
    /// It is made, or emptied.
    OverwriteIf = 5,
}

/// What can be done in a share. Paths have backslashes between names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operation<'a> {
    /// Opens a file to read and write, rename and delete; nobody is kept out meanwhile.
    Create {
        /// Its path.
        name: &'a str,
        /// What to do if it is there or not.
        disposition: Disposition,
    },
    /// Writes.
    Write {
        /// An open file.
        file: FileId,
        /// Where in it.
        offset: u64,
        /// What, 60 KiB at most.
        data: &'a [u8],
    },
    /// Reads up to 60 KiB.
    Read {
        /// An open file.
        file: FileId,
        /// Where in it.
        offset: u64,
    },
    /// Makes everything written durable.
    Flush {
        /// An open file.
        file: FileId,
    },
    /// Gives a file another name, also one that is taken.
    Rename {
        /// An open file.
        file: FileId,
        /// Its new path.
        to: &'a str,
    },
    /// Closes a file.
    Close {
        /// An open file.
        file: FileId,
    },
}

/// Most that is read or written at a time: it fits with its headers into one credit, and into a socket's buffer.
pub const MAX_DATA: usize = 60 << 10;

/// Numbers and bytes one after the other.
#[derive(Default)]
struct Fields(Vec<u8>);

impl Fields {
    fn u16(mut self, values: &[u16]) -> Self {
        values.iter().for_each(|value| self.0.extend(value.to_le_bytes()));
        self
    }

    fn u32(mut self, values: &[u32]) -> Self {
        values.iter().for_each(|value| self.0.extend(value.to_le_bytes()));
        self
    }

    fn u64(mut self, values: &[u64]) -> Self {
        values.iter().for_each(|value| self.0.extend(value.to_le_bytes()));
        self
    }

    fn bytes(mut self, bytes: &[u8]) -> Self {
        self.0.extend(bytes);
        self
    }
}

/// A whole message without signature.
pub(super) fn message(command: Command, id: u64, session: u64, tree: u32, body: &[u8]) -> Vec<u8> {
    // One credit used, and one asked for: there is never more than one question on its way.
    let fields = Fields::default().bytes(MAGIC).u16(&[HEADER as u16, 1]).u32(&[0]).u16(&[command as u16, 1]);
    let fields = fields.u32(&[0, 0]).u64(&[id]).u32(&[0, tree]).u64(&[session]).bytes(&[0; 16]);
    fields.bytes(body).0
}

/// The offer of one dialect, signing required, without a capability: so nobody asks for encryption.
pub(super) fn negotiate(dialect: u16) -> Vec<u8> {
    Fields::default().u16(&[36, 1, 2, 0]).u32(&[0]).bytes(&[0x4b; 16]).u64(&[0]).u16(&[dialect]).0
}

pub(super) fn session_setup(token: &[u8]) -> Vec<u8> {
    let fields = Fields::default().u16(&[25]).bytes(&[0, 2]).u32(&[0, 0]);
    fields.u16(&[HEADER as u16 + 24, token.len() as u16]).u64(&[0]).bytes(token).0
}

pub(super) fn tree_connect(path: &str) -> Vec<u8> {
    let path = utf16(path);
    Fields::default().u16(&[9, 0, HEADER as u16 + 8, path.len() as u16]).bytes(&path).0
}

impl Operation<'_> {
    /// Command and body.
    pub(super) fn encode(&self) -> (Command, Vec<u8>) {
        match self {
            Self::Create { name, disposition } => (Command::Create, create(name, *disposition)),
            Self::Write { file, offset, data } => (Command::Write, write(*file, *offset, data)),
            Self::Read { file, offset } => (Command::Read, read(*file, *offset)),
            Self::Flush { file } => (Command::Flush, of_file(*file)),
            Self::Rename { file, to } => (Command::SetInfo, rename(*file, to)),
            Self::Close { file } => (Command::Close, of_file(*file)),
        }
    }
}

/// Flush and close have the same body.
fn of_file(file: FileId) -> Vec<u8> {
    Fields::default().u16(&[24, 0]).u32(&[0]).bytes(&file.0).0
}

fn create(name: &str, disposition: Disposition) -> Vec<u8> {
    /// Reading, writing, their attributes, deleting (which renaming is), synchronising.
    const ACCESS: u32 = 0x0013_019f;
    const NORMAL_FILE: u32 = 0x80;
    const SHARED_BY_ALL: u32 = 7;
    const NO_DIRECTORY: u32 = 0x40;
    const IMPERSONATION: u32 = 2;
    let name = utf16(name);
    let fields = Fields::default().u16(&[57]).bytes(&[0, 0]).u32(&[IMPERSONATION]).u64(&[0, 0]);
    let fields = fields.u32(&[ACCESS, NORMAL_FILE, SHARED_BY_ALL, disposition as u32, NO_DIRECTORY]);
    fields.u16(&[HEADER as u16 + 56, name.len() as u16]).u32(&[0, 0]).bytes(&name).0
}

fn write(file: FileId, offset: u64, data: &[u8]) -> Vec<u8> {
    let fields = Fields::default().u16(&[49, HEADER as u16 + 48]).u32(&[data.len() as u32]).u64(&[offset]);
    fields.bytes(&file.0).u32(&[0, 0]).u16(&[0, 0]).u32(&[0]).bytes(data).0
}

fn read(file: FileId, offset: u64) -> Vec<u8> {
    let fields = Fields::default().u16(&[49, 0]).u32(&[MAX_DATA as u32]).u64(&[offset]).bytes(&file.0);
    fields.u32(&[1, 0, 0]).u16(&[0, 0]).bytes(&[0]).0
}

fn rename(file: FileId, to: &str) -> Vec<u8> {
    const OF_FILE: u8 = 1;
    const RENAME: u8 = 10;
    let to = utf16(to);
    let information = Fields::default().u64(&[1, 0]).u32(&[to.len() as u32]).bytes(&to).0;
    let fields = Fields::default().u16(&[33]).bytes(&[OF_FILE, RENAME]).u32(&[information.len() as u32]);
    fields.u16(&[HEADER as u16 + 32, 0]).u32(&[0]).bytes(&file.0).bytes(&information).0
}

/// What a server answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// NT status; 0 is success.
    pub status: u32,
    pub(super) id: u64,
    pub(super) session: u64,
    pub(super) tree: u32,
    pub(super) message: Vec<u8>,
}

impl Answer {
    /// Of a whole message.
    ///
    /// # Errors
    /// When it is none of SMB 2 or 3.
    pub(super) fn decode(message: Vec<u8>) -> Result<Self> {
        ensure!(
            message.starts_with(MAGIC) && message.len() >= HEADER,
            "no answer of SMB 2 or 3: {message:02x?}"
        );
        let u32_at = |at: usize| u32::from_le_bytes([0, 1, 2, 3].map(|index| message[at + index]));
        let u64_at = |at: usize| u64::from(u32_at(at)) | u64::from(u32_at(at + 4)) << 32;
        let (status, id, tree, session) = (u32_at(8), u64_at(24), u32_at(36), u64_at(40));
        Ok(Self { status, id, session, tree, message })
    }

    /// Fails unless it is a success.
    ///
    /// # Errors
    /// With the status.
    pub fn success(self, what: &str) -> Result<Self> {
        ensure!(self.status == 0, "{what}: the file server says {:#010x}", self.status);
        Ok(self)
    }

    /// The file that was opened.
    ///
    /// # Errors
    /// When it is no answer to that.
    pub fn file(&self) -> Result<FileId> {
        Ok(FileId(self.bytes(HEADER + 64, 16)?.try_into()?))
    }

    /// Its length.
    ///
    /// # Errors
    /// As [`Self::file`].
    pub fn length(&self) -> Result<u64> {
        Ok(u64::from_le_bytes(self.bytes(HEADER + 48, 8)?.try_into()?))
    }

    /// What was read.
    ///
    /// # Errors
    /// When it is no answer to that.
    pub fn data(&self) -> Result<&[u8]> {
        let start = usize::from(self.bytes(HEADER + 2, 1)?[0]);
        let length = u32::from_le_bytes(self.bytes(HEADER + 4, 4)?.try_into()?);
        self.bytes(start, usize::try_from(length)?)
    }

    /// The server's part of the log-on; nothing at its end.
    pub(super) fn token(&self) -> Result<&[u8]> {
        let number = |at| Ok::<_, anyhow::Error>(u16::from_le_bytes(self.bytes(HEADER + at, 2)?.try_into()?));
        let (start, length) = (number(4)?, number(6)?);
        if length == 0 { Ok(&[]) } else { self.bytes(start.into(), length.into()) }
    }

    pub(super) fn bytes(&self, start: usize, length: usize) -> Result<&[u8]> {
        let rest = self.message.get(start..).and_then(|rest| rest.get(..length));
        rest.context("an answer that is cut off")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: FileId = FileId([9; 16]);

    /// A body's fixed part is as long as its structure says, which counts one byte of what follows as its own.
    #[track_caller]
    fn check(body: &[u8], fixed: usize, variable: &[u8]) {
        assert_eq!(usize::from(body[0]) & !1, fixed);
        assert_eq!(&body[fixed..], variable);
    }

    #[test]
    fn bodies_are_as_long_as_they_say() {
        let body = |operation: Operation<'_>| operation.encode().1;
        check(&session_setup(b"token"), 24, b"token");
        check(&tree_connect("ab"), 8, b"a\0b\0");
        check(&body(Operation::Create { name: "ab", disposition: Disposition::Open }), 56, b"a\0b\0");
        check(&body(Operation::Write { file: FILE, offset: 1, data: b"data" }), 48, b"data");
        check(&body(Operation::Read { file: FILE, offset: 1 }), 48, &[0]);
        check(&body(Operation::Flush { file: FILE }), 24, b"");
        check(&body(Operation::Close { file: FILE }), 24, b"");
        let renamed = body(Operation::Rename { file: FILE, to: "a" });
        assert_eq!((renamed[4], renamed.len()), (22, 32 + 22));
    }

    #[test]
    fn an_answer_s_parts_are_found_or_missed() {
        let mut body = vec![17, 0, HEADER as u8 + 16, 0, 4, 0, 0, 0];
        body.resize(16, 0);
        body.extend(b"data");
        let whole = message(Command::Read, 7, 0x1234_5678_9abc, 5, &body);
        let answer = Answer::decode(whole.clone()).unwrap();
        assert_eq!((answer.id, answer.session, answer.tree, answer.status), (7, 0x1234_5678_9abc, 5, 0));
        assert_eq!(answer.data().unwrap(), b"data");
        assert!(Answer::decode(whole[..HEADER + 19].to_vec()).unwrap().data().is_err());
        assert!(Answer::decode(whole[..HEADER].to_vec()).unwrap().file().is_err());
        assert!(Answer::decode(whole[..HEADER - 1].to_vec()).is_err());
    }
}
