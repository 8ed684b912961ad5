//! DNS messages by hand (RFC 1035): just enough to ask and to answer, and independent of the code under test.

use std::net::Ipv4Addr;

use anyhow::{Context, Result, bail};

/// Record types asked for here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Type {
    /// Address of a name.
    A,
    /// Name of an address.
    Ptr,
}

impl Type {
    const fn code(self) -> u16 {
        match self {
            Self::A => 1,
            Self::Ptr => 12,
        }
    }

    fn from_code(code: u16) -> Option<Self> {
        match code {
            1 => Some(Self::A),
            12 => Some(Self::Ptr),
            _ => None,
        }
    }
}

/// A question; names are lower case, without a trailing dot.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Question {
    /// Name asked for.
    pub qname: String,
    /// Type asked for, unless it is one we do not know.
    pub qtype: Option<Type>,
}

/// One record of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Data {
    /// An address.
    A(Ipv4Addr),
    /// A name.
    Ptr(String),
    /// Anything else.
    Other(u16),
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Message id.
    pub id: u16,
    /// Response code: 0 NOERROR, 3 NXDOMAIN, 5 REFUSED.
    pub rcode: u8,
    /// Whether it was cut off (TC).
    pub truncated: bool,
    /// Time to live of the first record.
    pub ttl_s: Option<u32>,
    /// The answer section.
    pub data: Vec<Data>,
}

impl Answer {
    /// The only address in it.
    #[must_use]
    pub fn address(&self) -> Option<Ipv4Addr> {
        match self.data.as_slice() {
            [Data::A(address)] => Some(*address),
            _ => None,
        }
    }

    /// The only name in it.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        match self.data.as_slice() {
            [Data::Ptr(name)] => Some(name),
            _ => None,
        }
    }
}

/// The name under which the reverse of `address` is asked for.
#[must_use]
pub fn reverse_name(address: Ipv4Addr) -> String {
    let [a, b, c, d] = address.octets();
    format!("{d}.{c}.{b}.{a}.in-addr.arpa")
}

/// A query with recursion desired.
#[must_use]
pub fn query(id: u16, qname: &str, qtype: Type) -> Vec<u8> {
    let mut message = header(id, 0x0100, 0);
    push_name(&mut message, qname);
    message.extend(qtype.code().to_be_bytes());
    message.extend([0, 1]);
    message
}

/// Id and question of a query.
///
/// # Errors
/// When it is not a query with one question.
pub fn parse_query(message: &[u8]) -> Result<(u16, Question)> {
    let (id, flags, [questions, ..]) = parse_header(message)?;
    if flags & 0x8000 != 0 || questions != 1 {
        bail!("not a query");
    }
    let (qname, at) = name_at(message, 12)?;
    let qtype = u16_at(message, at)?;
    Ok((id, Question { qname, qtype: Type::from_code(qtype) }))
}

/// The answer to `query`: the records, or NXDOMAIN with none.
///
/// # Errors
/// When `query` is not a query.
pub fn answer(query: &[u8], records: &[(Data, u32)]) -> Result<Vec<u8>> {
    let (id, _) = parse_query(query)?;
    let (_, question_end) = name_at(query, 12)?;
    let question = query.get(12..question_end + 4).context("short question")?;
    let rcode = if records.is_empty() { 3 } else { 0 };
    let mut message = header(id, 0x8180 | rcode, u16::try_from(records.len())?);
    message.extend_from_slice(question);
    for (data, ttl_s) in records {
        push_record(&mut message, data, *ttl_s);
    }
    Ok(message)
}

/// Reads an answer.
///
/// # Errors
/// When it is not one.
pub fn parse_answer(message: &[u8]) -> Result<Answer> {
    let (id, flags, [questions, answers, ..]) = parse_header(message)?;
    if flags & 0x8000 == 0 {
        bail!("not an answer");
    }
    let mut at = 12;
    for _ in 0..questions {
        at = name_at(message, at)?.1 + 4;
    }
    let mut answer = Answer {
        id,
        rcode: (flags & 0xf) as u8,
        truncated: flags & 0x0200 != 0,
        ttl_s: None,
        data: Vec::new(),
    };
    for _ in 0..answers {
        let (data, ttl_s, next) = record_at(message, at)?;
        answer.ttl_s.get_or_insert(ttl_s);
        answer.data.push(data);
        at = next;
    }
    Ok(answer)
}

fn header(id: u16, flags: u16, answers: u16) -> Vec<u8> {
    [id, flags, 1, answers, 0, 0].iter().flat_map(|word| word.to_be_bytes()).collect()
}

fn parse_header(message: &[u8]) -> Result<(u16, u16, [u16; 4])> {
    let word = |index: usize| u16_at(message, index * 2);
    Ok((word(0)?, word(1)?, [word(2)?, word(3)?, word(4)?, word(5)?]))
}

fn push_name(message: &mut Vec<u8>, name: &str) {
    for label in name.split('.').filter(|label| !label.is_empty()) {
        message.push(u8::try_from(label.len()).unwrap_or(63).min(63));
        message.extend(label.bytes().take(63));
    }
    message.push(0);
}

fn push_record(message: &mut Vec<u8>, data: &Data, ttl_s: u32) {
    let mut rdata = Vec::new();
    let code = match data {
        Data::A(address) => {
            rdata.extend(address.octets());
            Type::A.code()
        }
        Data::Ptr(name) => {
            push_name(&mut rdata, name);
            Type::Ptr.code()
        }
        Data::Other(code) => *code,
    };
    message.extend([0xc0, 12]);
    message.extend(code.to_be_bytes());
    message.extend([0, 1]);
    message.extend(ttl_s.to_be_bytes());
    message.extend(u16::try_from(rdata.len()).unwrap_or(u16::MAX).to_be_bytes());
    message.extend(rdata);
}

fn record_at(message: &[u8], at: usize) -> Result<(Data, u32, usize)> {
    let (_, at) = name_at(message, at)?;
    let code = u16_at(message, at)?;
    let ttl_s = u32::from(u16_at(message, at + 4)?) << 16 | u32::from(u16_at(message, at + 6)?);
    let start = at + 10;
    let end = start + usize::from(u16_at(message, at + 8)?);
    let rdata = message.get(start..end).context("short record")?;
    let data = match Type::from_code(code) {
        Some(Type::A) => Data::A(<[u8; 4]>::try_from(rdata).context("address of a wrong size")?.into()),
        Some(Type::Ptr) => Data::Ptr(name_at(message, start)?.0),
        None => Data::Other(code),
    };
    Ok((data, ttl_s, end))
}

/// The name at an offset, pointers followed, and the offset behind it.
fn name_at(message: &[u8], start: usize) -> Result<(String, usize)> {
    let mut labels: Vec<String> = Vec::new();
    let (mut at, mut end) = (start, None);
    loop {
        let length = usize::from(*message.get(at).context("name runs off the message")?);
        if length == 0 {
            return Ok((labels.join("."), end.unwrap_or(at + 1)));
        }
        if length & 0xc0 == 0xc0 {
            end.get_or_insert(at + 2);
            let target = usize::from(u16_at(message, at)? & 0x3fff);
            if target >= at {
                bail!("a name points forward");
            }
            at = target;
            continue;
        }
        let label = message.get(at + 1..at + 1 + length).context("label runs off the message")?;
        labels.push(String::from_utf8_lossy(label).to_lowercase());
        at += 1 + length;
    }
}

fn u16_at(message: &[u8], at: usize) -> Result<u16> {
    let bytes = message.get(at..at + 2).context("message is too short")?;
    Ok(u16::from_be_bytes([bytes[0], bytes[1]]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_is_answered() {
        let query = query(7, "Www.Example.test", Type::A);
        let (id, question) = parse_query(&query).unwrap();
        assert_eq!((id, question.qname.as_str(), question.qtype), (7, "www.example.test", Some(Type::A)));
        let address = Ipv4Addr::new(203, 0, 113, 80);
        let answer = answer(&query, &[(Data::A(address), 300)]).unwrap();
        let answer = parse_answer(&answer).unwrap();
        assert_eq!((answer.id, answer.rcode, answer.ttl_s), (7, 0, Some(300)));
        assert_eq!(answer.address(), Some(address));
    }

    #[test]
    fn nothing_known_is_nxdomain_and_reverse_names_read_backwards() {
        let name = reverse_name(Ipv4Addr::new(192, 168, 77, 5));
        assert_eq!(name, "5.77.168.192.in-addr.arpa");
        let query = query(1, &name, Type::Ptr);
        assert_eq!(parse_answer(&answer(&query, &[]).unwrap()).unwrap().rcode, 3);
        let found = answer(&query, &[(Data::Ptr("nas.office.internal".into()), 1)]).unwrap();
        assert_eq!(parse_answer(&found).unwrap().name(), Some("nas.office.internal"));
    }

    #[test]
    fn cut_messages_are_errors() {
        let query = query(1, "a.b", Type::A);
        for length in 0..query.len() - 4 {
            assert!(parse_query(&query[..length]).is_err(), "{length}");
        }
    }
}
