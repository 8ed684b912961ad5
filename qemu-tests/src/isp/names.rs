//! The Internet's name server: a table, and a record of every question.

use std::collections::HashMap;
use std::net::Ipv4Addr;

use anyhow::{Result, anyhow};
use smoltcp::iface::SocketHandle;
use smoltcp::socket::udp;

use super::tcp::Listeners;
use crate::dns::{self, Data, Question, Type};
use crate::stack::Stack;

/// How a question came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// In a datagram.
    Udp,
    /// In a stream, behind a two-byte length.
    Tcp,
}

/// The Internet's name server.
#[derive(Debug)]
pub struct NameServer {
    /// Every question it got, in order.
    pub questions: Vec<(Question, Transport)>,
    /// Whether UDP answers say "truncated, ask by TCP".
    pub truncate: bool,
    table: HashMap<Question, Vec<(Data, u32)>>,
    datagrams: SocketHandle,
    streams: Listeners,
}

impl NameServer {
    pub(super) fn new(address: Ipv4Addr, stack: &mut Stack) -> Result<Self> {
        Ok(Self {
            questions: Vec::new(),
            truncate: false,
            table: HashMap::new(),
            datagrams: stack.udp(Some(53))?,
            streams: Listeners::new(address, 53, 4, stack)?,
        })
    }

    /// Gives `name` an address.
    pub fn add(&mut self, name: &str, address: Ipv4Addr, ttl_s: u32) {
        let question = Question { qname: name.to_lowercase(), qtype: Some(Type::A) };
        self.table.insert(question, vec![(Data::A(address), ttl_s)]);
    }

    /// How often `name` was asked for.
    #[must_use]
    pub fn count(&self, name: &str) -> usize {
        self.questions.iter().filter(|(question, _)| question.qname == name).count()
    }

    pub(super) fn serve(&mut self, stack: &mut Stack) -> Result<bool> {
        Ok(self.serve_datagrams(stack)? | self.serve_streams(stack)?)
    }

    fn serve_datagrams(&mut self, stack: &mut Stack) -> Result<bool> {
        let mut busy = false;
        while let Ok((message, from)) = stack.sockets.get_mut::<udp::Socket>(self.datagrams).recv() {
            busy = true;
            let Some(mut reply) = self.answer(message, Transport::Udp) else { continue };
            if self.truncate {
                // TC, and no records.
                reply[2] |= 2;
                reply[6..8].fill(0);
                reply.truncate(message.len());
            }
            let socket = stack.sockets.get_mut::<udp::Socket>(self.datagrams);
            socket.send_slice(&reply, from).map_err(|e| anyhow!("send a DNS answer: {e}"))?;
        }
        Ok(busy)
    }

    fn serve_streams(&mut self, stack: &mut Stack) -> Result<bool> {
        let Self { questions, table, streams, .. } = self;
        streams.serve(stack, |_, received| {
            let (length, rest) = received.split_first_chunk::<2>()?;
            let length = usize::from(u16::from_be_bytes(*length));
            let reply = lookup(questions, table, rest.get(..length)?, Transport::Tcp)?;
            received.drain(..2 + length);
            let size = u16::try_from(reply.len()).unwrap_or(u16::MAX);
            Some(super::tcp::Reply { bytes: [&size.to_be_bytes()[..], &reply].concat(), close: false })
        })
    }

    fn answer(&mut self, message: &[u8], transport: Transport) -> Option<Vec<u8>> {
        lookup(&mut self.questions, &self.table, message, transport)
    }
}

fn lookup(
    questions: &mut Vec<(Question, Transport)>,
    table: &HashMap<Question, Vec<(Data, u32)>>,
    message: &[u8],
    transport: Transport,
) -> Option<Vec<u8>> {
    let (_, question) = dns::parse_query(message).ok()?;
    let records = table.get(&question).map_or(&[][..], Vec::as_slice);
    let reply = dns::answer(message, records).ok()?;
    questions.push((question, transport));
    Some(reply)
}
