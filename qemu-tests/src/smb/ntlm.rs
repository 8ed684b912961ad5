//! Logging on by password: the messages of NTLM and its version 2 ([MS-NLMP], sections 2.2.1 and 3.3.2).
//!
//! No key is exchanged, so that the session key is what both sides compute; no time and no integrity code is sent, as
//! a Samba server looks at neither.

use anyhow::{Context, Result, ensure};
use hmac::{Hmac, KeyInit, Mac};
use md4::{Digest, Md4};
use md5::Md5;

const SIGNATURE: &[u8; 8] = b"NTLMSSP\0";
const NEGOTIATE: u32 = 1;
const CHALLENGE: u32 = 2;
const AUTHENTICATE: u32 = 3;
/// Unicode, name of the target, signing, NTLM, always signing, extended session security, target information,
/// 128 bit (section 2.2.2.5).
const FLAGS: u32 = 0x1 | 0x4 | 0x10 | 0x200 | 0x8000 | 0x0008_0000 | 0x0080_0000 | 0x2000_0000;
/// What a client makes up to be asked nothing twice; a test has no secrets.
const CLIENT_CHALLENGE: [u8; 8] = [0x4b; 8];
/// Length of the last message without what its fields point to.
const FIXED: usize = 64;

/// Who logs on.
#[derive(Debug, Clone, Copy)]
pub struct Account<'a> {
    /// NetBIOS name of the domain.
    pub domain: &'a str,
    /// Name in it.
    pub user: &'a str,
    /// Password.
    pub password: &'a str,
}

/// The first message.
pub(super) fn negotiate() -> Vec<u8> {
    let mut message = begin(NEGOTIATE);
    message.extend(FLAGS.to_le_bytes());
    // Neither domain nor workstation.
    message.extend([0; 16]);
    message
}

/// The last message, and the session's key, from the server's challenge.
///
/// # Errors
/// When it is no challenge.
pub(super) fn authenticate(account: &Account<'_>, challenge: &[u8]) -> Result<(Vec<u8>, [u8; 16])> {
    let (nonce, target) = parse_challenge(challenge).context("the server's NTLM challenge")?;
    let response = respond(account, nonce, CLIENT_CHALLENGE, target);
    let mut message = begin(AUTHENTICATE);
    let mut payload = Vec::new();
    // The answer of LAN Manager is all zero beside one of version 2 (section 3.1.5.1.2).
    let fields =
        [vec![0; 24], response.answer, utf16(account.domain), utf16(account.user), utf16("PC"), vec![]];
    for field in fields {
        let length = u16::try_from(field.len())?.to_le_bytes();
        message.extend([length, length].concat());
        message.extend(u32::try_from(FIXED + payload.len())?.to_le_bytes());
        payload.extend(field);
    }
    message.extend(FLAGS.to_le_bytes());
    message.extend(payload);
    Ok((message, response.session_key))
}

fn begin(kind: u32) -> Vec<u8> {
    [&SIGNATURE[..], &kind.to_le_bytes()].concat()
}

/// The server's nonce, and what it says of itself.
fn parse_challenge(message: &[u8]) -> Result<([u8; 8], &[u8])> {
    ensure!(message.starts_with(&begin(CHALLENGE)), "another message: {message:02x?}");
    let nonce = message.get(24..32).context("cut off")?.try_into()?;
    let length = u16::from_le_bytes(message.get(40..42).context("cut off")?.try_into()?);
    let start = u32::from_le_bytes(message.get(44..48).context("cut off")?.try_into()?);
    let target = message.get(usize::try_from(start)?..).and_then(|rest| rest.get(..usize::from(length)));
    Ok((nonce, target.context("cut off")?))
}

struct Response {
    answer: Vec<u8>,
    session_key: [u8; 16],
}

fn respond(account: &Account<'_>, server: [u8; 8], client: [u8; 8], target: &[u8]) -> Response {
    let key = user_key(account);
    let version_and_time = [1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let blob = [&version_and_time, &client[..], &[0; 4], target, &[0; 4]].concat();
    let proof = hmac_md5(&key, &[&server, &blob]);
    Response { answer: [&proof[..], &blob].concat(), session_key: hmac_md5(&key, &[&proof]) }
}

/// NTOWFv2.
fn user_key(account: &Account<'_>) -> [u8; 16] {
    let hash = Md4::digest(utf16(account.password));
    hmac_md5(&hash, &[&utf16(&account.user.to_uppercase()), &utf16(account.domain)])
}

fn hmac_md5(key: &[u8], parts: &[&[u8]]) -> [u8; 16] {
    let mut mac = Hmac::<Md5>::new_from_slice(key).expect("any length is a key");
    parts.iter().for_each(|part| mac.update(part));
    mac.finalize().into_bytes().into()
}

pub(super) fn utf16(text: &str) -> Vec<u8> {
    text.encode_utf16().flat_map(u16::to_le_bytes).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// [MS-NLMP], section 4.2.
    const ACCOUNT: Account<'_> = Account { domain: "Domain", user: "User", password: "Password" };
    const SERVER: [u8; 8] = [0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef];

    fn target() -> Vec<u8> {
        let pair = |id: u16, text: &str| {
            let value = utf16(text);
            [&id.to_le_bytes()[..], &(value.len() as u16).to_le_bytes(), &value].concat()
        };
        [pair(2, "Domain"), pair(1, "Server"), vec![0; 4]].concat()
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn the_documented_example_of_version_2() {
        assert_eq!(hex(&user_key(&ACCOUNT)), "0c868a403bfd7a93a3001ef22ef02e3f");
        let response = respond(&ACCOUNT, SERVER, [0xaa; 8], &target());
        assert_eq!(hex(&response.answer[..16]), "68cd0ab851e51c96aabc927bebef6a1c");
        assert_eq!(hex(&response.session_key), "8de40ccadbc14a82f15cb0ad0de95ca3");
    }

    #[test]
    fn the_last_message_points_to_its_parts() {
        let mut challenge = begin(CHALLENGE);
        challenge.extend([0; 12]);
        challenge.extend(SERVER);
        challenge.extend([0; 8]);
        let target = target();
        challenge.extend([target.len() as u8, 0, target.len() as u8, 0, 48, 0, 0, 0]);
        challenge.extend(&target);
        let (message, _) = authenticate(&ACCOUNT, &challenge).unwrap();
        let field = |at: usize| {
            let length = usize::from(message[at]) | usize::from(message[at + 1]) << 8;
            let start = usize::from(message[at + 4]) | usize::from(message[at + 5]) << 8;
            &message[start..start + length]
        };
        assert_eq!(field(12), [0; 24]);
        assert_eq!(field(20).len(), 16 + 28 + target.len() + 4);
        assert_eq!((field(28), field(36)), (&utf16("Domain")[..], &utf16("User")[..]));
        for end in 0..challenge.len() {
            assert!(authenticate(&ACCOUNT, &challenge[..end]).is_err());
        }
    }
}
