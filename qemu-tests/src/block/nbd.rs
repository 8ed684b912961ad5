//! The server's side of NBD (the protocol document of the NBD project): fixed newstyle, one export, simple
//! replies. Offers flush and FUA and nothing else; QEMU does without the rest.

use std::io::{self, BufReader, Read, Write};
use std::os::unix::net::UnixStream;

use super::{Backend, Shared, lock};

const MAGIC: u64 = 0x4e42_444d_4147_4943; // NBDMAGIC
const OPTION_MAGIC: u64 = 0x4948_4156_454f_5054; // IHAVEOPT
const OPTION_REPLY_MAGIC: u64 = 0x0003_e889_0455_65a9;
const REQUEST_MAGIC: u32 = 0x2560_9513;
const REPLY_MAGIC: u32 = 0x6744_6698;
/// Fixed newstyle, no zeroes.
const HANDSHAKE_FLAGS: u16 = 0b11;
/// Has flags, flush, FUA.
const EXPORT_FLAGS: u16 = 0b1101;

const OPTION_ABORT: u32 = 2;
const OPTION_GO: u32 = 7;
const REPLY_ACK: u32 = 1;
const REPLY_INFO: u32 = 3;
const REPLY_UNSUPPORTED: u32 = 0x8000_0001;
const INFO_EXPORT: u16 = 0;

const READ: u16 = 0;
const WRITE: u16 = 1;
const DISCONNECT: u16 = 2;
const FLUSH: u16 = 3;
const FUA: u16 = 1;
const EIO: u32 = 5;
const EINVAL: u32 = 22;
/// The protocol's default maximum.
const MAX_LENGTH: u32 = 32 << 20;

/// Serves one connection to its end.
pub(super) fn serve<B: Backend>(stream: UnixStream, shared: &Shared<B>) -> io::Result<()> {
    let mut writer = stream.try_clone()?;
    let mut reader = BufReader::new(stream);
    writer.write_all(&MAGIC.to_be_bytes())?;
    writer.write_all(&OPTION_MAGIC.to_be_bytes())?;
    writer.write_all(&HANDSHAKE_FLAGS.to_be_bytes())?;
    let _client_flags = read_u32(&mut reader)?;
    if !negotiate(&mut reader, &mut writer, lock(&shared.backend).size())? {
        return Ok(());
    }
    while transmit(&mut reader, &mut writer, shared)? {}
    Ok(())
}

/// Answers options until the client goes (true) or gives up.
fn negotiate(reader: &mut impl Read, writer: &mut impl Write, size: u64) -> io::Result<bool> {
    loop {
        let magic = read_u64(reader)?;
        let (option, length) = (read_u32(reader)?, read_u32(reader)?);
        if magic != OPTION_MAGIC || length > MAX_LENGTH {
            return Err(io::ErrorKind::InvalidData.into());
        }
        io::copy(&mut reader.take(length.into()), &mut io::sink())?;
        match option {
            OPTION_GO => {
                let info = [&INFO_EXPORT.to_be_bytes()[..], &size.to_be_bytes(), &EXPORT_FLAGS.to_be_bytes()];
                answer_option(writer, option, REPLY_INFO, &info.concat())?;
                answer_option(writer, option, REPLY_ACK, &[])?;
                return Ok(true);
            }
            OPTION_ABORT => {
                answer_option(writer, option, REPLY_ACK, &[])?;
                return Ok(false);
            }
            _ => answer_option(writer, option, REPLY_UNSUPPORTED, &[])?,
        }
    }
}

fn answer_option(writer: &mut impl Write, option: u32, kind: u32, data: &[u8]) -> io::Result<()> {
    let length = data.len() as u32;
    let parts = [&OPTION_REPLY_MAGIC.to_be_bytes()[..], &option.to_be_bytes(), &kind.to_be_bytes()];
    writer.write_all(&[&parts.concat()[..], &length.to_be_bytes(), data].concat())
}

/// One request and its answer; false when the client has said good-bye.
fn transmit<B: Backend>(
    reader: &mut impl Read,
    writer: &mut impl Write,
    shared: &Shared<B>,
) -> io::Result<bool> {
    if read_u32(reader)? != REQUEST_MAGIC {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let (flags, kind) = (read_u16(reader)?, read_u16(reader)?);
    let (cookie, offset, length) = (read_u64(reader)?, read_u64(reader)?, read_u32(reader)?);
    if length > MAX_LENGTH {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut data = vec![0; if matches!(kind, READ | WRITE) { length as usize } else { 0 }];
    match kind {
        WRITE => reader.read_exact(&mut data)?,
        DISCONNECT => return Ok(false),
        _ => {}
    }
    let error = perform(shared, kind, flags, offset, &mut data);
    let mut reply = [&REPLY_MAGIC.to_be_bytes()[..], &error.to_be_bytes(), &cookie.to_be_bytes()].concat();
    if kind == READ && error == 0 {
        reply.extend_from_slice(&data);
    }
    writer.write_all(&reply)?;
    Ok(true)
}

/// Does a request; its error number, 0 for none.
fn perform<B: Backend>(shared: &Shared<B>, kind: u16, flags: u16, offset: u64, data: &mut [u8]) -> u32 {
    if !shared.admit(kind != READ) {
        return EIO;
    }
    let mut backend = lock(&shared.backend);
    let done = match kind {
        READ => backend.read(offset, data),
        WRITE => backend.write(offset, data).and_then(|()| match flags & FUA {
            0 => Ok(()),
            _ => backend.flush(),
        }),
        FLUSH => backend.flush(),
        _ => return EINVAL,
    };
    if done.is_ok() { 0 } else { EIO }
}

fn read_u16(reader: &mut impl Read) -> io::Result<u16> {
    let mut bytes = [0; 2];
    reader.read_exact(&mut bytes).map(|()| u16::from_be_bytes(bytes))
}

fn read_u32(reader: &mut impl Read) -> io::Result<u32> {
    let mut bytes = [0; 4];
    reader.read_exact(&mut bytes).map(|()| u32::from_be_bytes(bytes))
}

fn read_u64(reader: &mut impl Read) -> io::Result<u64> {
    let mut bytes = [0; 8];
    reader.read_exact(&mut bytes).map(|()| u64::from_be_bytes(bytes))
}
