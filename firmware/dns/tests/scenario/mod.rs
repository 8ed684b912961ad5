//! The language of the scenario files: one event per line, played against a forwarder.
//!
//! ```text
//! # comment
//! forward-private                       zones of private use go upstream (first line only)
//! upstreams 192.0.2.1 192.0.2.2
//! upstreams expected                    none yet, but within 60 s
//! forward-zone ad.office.internal 127.0.0.1    others know this zone; without address: no longer
//! lease pc1 192.168.77.100              also: unlease
//! ? q1 www.example.com A tcp do cd nord size=512 client=192.168.77.9 plain
//! -> a 192.0.2.1 udp www.example.com. A do cd plain     what must be sent next
//! <- a NOERROR tc plain: www.example.com. 300 A 192.0.2.80 / example.com. 300 SOA 60
//! !! a                                  the socket of `a` fails
//! => q1 NOERROR aa tc ede=14: answers; … / authorities; …    what the client must get next
//! +800ms                                time passes
//! --                                    nothing may be sent now
//! ```
//!
//! Messages are built and read by hickory-proto, so that the forwarder's own reading and writing is checked
//! by somebody else's.

use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::str::FromStr;
use std::time::{Duration, Instant};

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::opt::{EdnsCode, EdnsOption};
use hickory_proto::rr::rdata::{A, AAAA, CNAME, NS, PTR, SOA, TXT};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use kontor_dns::{Client, Entropy, ForwardZone, Forwarder, Handled, Limits, Transmit, Transport, ZoneConfig};

const BOX: Ipv4Addr = Ipv4Addr::new(192, 168, 77, 1);

/// Plays one scenario; panics with file and line where it differs.
pub(crate) fn play(file: &str, text: &str) {
    let mut stage = Stage::new(text.lines().any(|line| line == "forward-private"));
    for (index, line) in text.lines().enumerate() {
        let line = line.split(" #").next().unwrap_or_default().trim();
        if line.is_empty() || line.starts_with('#') || line == "forward-private" {
            continue;
        }
        if let Err(problem) = stage.step(line) {
            panic!("{file}:{}: {line}\n  {problem}", index + 1);
        }
    }
    assert!(stage.open.is_empty(), "{file}: sockets left open: {:?}", stage.open);
}

struct Stage {
    now: Instant,
    forwarder: Forwarder,
    zones: Vec<ForwardZone>,
    /// Queries by id, with their label.
    labels: HashMap<u16, String>,
    answers: VecDeque<Vec<u8>>,
    asks: VecDeque<(u64, SocketAddr, Transport, Vec<u8>)>,
    /// Messages upstream by label.
    sent: HashMap<String, (u64, Vec<u8>)>,
    open: Vec<u64>,
    next_id: u16,
}

impl Stage {
    fn new(forward_private: bool) -> Self {
        let zones = ZoneConfig {
            domain: kontor_dns::Name::from_text("office.internal").unwrap(),
            host: "kontor".into(),
            points_to: None,
            networks: vec!["192.168.77.1/24".parse().unwrap(), "203.0.113.66/27".parse().unwrap()],
            hosts: vec![("nas".into(), Ipv4Addr::new(192, 168, 77, 5))],
            forward_private,
        };
        // Odd numbers never ask for a probe of another upstream.
        let mut seed = 1u64;
        let entropy = Entropy::new(move || {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            seed | 1
        });
        Self {
            now: Instant::now(),
            forwarder: Forwarder::new(zones, Limits::default(), entropy).unwrap(),
            zones: Vec::new(),
            labels: HashMap::new(),
            answers: VecDeque::new(),
            asks: VecDeque::new(),
            sent: HashMap::new(),
            open: Vec::new(),
            next_id: 100,
        }
    }

    fn step(&mut self, line: &str) -> Result<(), String> {
        let (head, records) = line.split_once(": ").unwrap_or((line.trim_end_matches(':'), ""));
        let words: Vec<&str> = head.split_whitespace().collect();
        match words.as_slice() {
            ["upstreams", "expected"] => {
                self.forwarder.set_upstreams(self.now, &[]);
                self.forwarder.expect_upstreams(Some(self.now + Duration::from_secs(60)));
            }
            ["upstreams", addresses @ ..] => {
                self.forwarder.set_upstreams(self.now, &upstreams(addresses));
                self.forwarder.expect_upstreams(None);
            }
            ["forward-zone", zone, servers @ ..] => self.forward_zone(zone, &upstreams(servers)),
            ["lease", name, address] => {
                let _ = self.forwarder.zones_mut().set_lease(name, address.parse().unwrap());
            }
            ["unlease", name, address] => {
                self.forwarder.zones_mut().remove_lease(name, address.parse().unwrap());
            }
            ["?", label, qname, qtype, flags @ ..] => self.query(label, qname, qtype, flags),
            ["->", label, rest @ ..] => return self.expect_ask(label, &rest.join(" ")),
            ["<-", label, rcode, flags @ ..] => self.reply(label, rcode, flags, records)?,
            ["!!", label] => {
                let token = self.sent.get(*label).ok_or("no such message")?.0;
                self.forwarder.handle_upstream_error(self.now, token);
            }
            ["=>", ..] => return self.expect_answer(line.trim_start_matches("=> ")),
            ["--"] => return self.expect_silence(),
            [step] if step.starts_with('+') => self.pass(step)?,
            _ => return Err("not understood".into()),
        }
        self.collect();
        Ok(())
    }

    fn forward_zone(&mut self, zone: &str, servers: &[SocketAddr]) {
        let name = kontor_dns::Name::from_text(zone).unwrap();
        self.zones.retain(|zone| zone.name != name);
        if !servers.is_empty() {
            self.zones.push(ForwardZone { name, servers: servers.to_vec() });
        }
        self.forwarder.set_forward_zones(&self.zones);
    }

    fn pass(&mut self, step: &str) -> Result<(), String> {
        let millis = step.trim_start_matches('+').trim_end_matches("ms").parse().map_err(|_| "not a time")?;
        self.now += Duration::from_millis(millis);
        self.forwarder.handle_timeout(self.now);
        Ok(())
    }

    fn query(&mut self, label: &str, qname: &str, qtype: &str, flags: &[&str]) {
        self.next_id += 1;
        let value = |key: &str| flags.iter().find_map(|flag| flag.strip_prefix(key));
        let mut message = Message::new(self.next_id, MessageType::Query, OpCode::Query);
        message.metadata.recursion_desired = !flags.contains(&"nord");
        message.metadata.checking_disabled = flags.contains(&"cd");
        message.add_query(Query::query(name(qname), RecordType::from_str(qtype).unwrap()));
        if !flags.contains(&"plain") {
            let mut edns = Edns::new();
            edns.set_max_payload(value("size=").map_or(1232, |size| size.parse().unwrap()));
            edns.set_dnssec_ok(flags.contains(&"do"));
            message.set_edns(edns);
        }
        let peer: IpAddr = value("client=").unwrap_or("192.168.77.50").parse().unwrap();
        let transport = if flags.contains(&"tcp") { Transport::Tcp } else { Transport::Udp };
        let client = Client { peer: SocketAddr::new(peer, 5000), local: BOX.into(), transport, route: 0 };
        self.labels.insert(self.next_id, label.to_owned());
        let mut out = Vec::new();
        if self.forwarder.handle_query(self.now, client, &message.to_vec().unwrap(), &mut out)
            == Handled::Answered
        {
            self.answers.push_back(out);
        }
    }

    fn collect(&mut self) {
        while let Some(transmit) = self.forwarder.poll_transmit() {
            match transmit {
                Transmit::Ask { token, upstream, transport, message } => {
                    self.open.push(token);
                    self.asks.push_back((token, upstream, transport, message));
                }
                Transmit::Close { token } => self.open.retain(|&other| other != token),
                Transmit::Answer { message, .. } => self.answers.push_back(message),
            }
        }
    }

    fn expect_ask(&mut self, label: &str, expect: &str) -> Result<(), String> {
        let (token, upstream, transport, bytes) = self.asks.pop_front().ok_or("nothing was sent")?;
        let message = Message::from_vec(&bytes).map_err(|error| error.to_string())?;
        let question = message.queries.first().ok_or("no question")?;
        let transport = if transport == Transport::Tcp { "tcp" } else { "udp" };
        let mut sent = format!("{} {transport} {} {}", upstream.ip(), question.name(), question.query_type());
        let edns = message.edns.as_ref();
        for (set, word) in [
            (edns.is_some_and(|edns| edns.flags().dnssec_ok), " do"),
            (message.metadata.checking_disabled, " cd"),
            (edns.is_none(), " plain"),
        ] {
            sent.push_str(if set { word } else { "" });
        }
        self.sent.insert(label.to_owned(), (token, bytes));
        same(&sent, expect)
    }

    fn reply(&mut self, label: &str, rcode: &str, flags: &[&str], records: &str) -> Result<(), String> {
        let (token, bytes) = self.sent.get(label).ok_or("no such message")?;
        let asked = Message::from_vec(bytes).unwrap();
        let id = if flags.contains(&"wrong-id") { !asked.metadata.id } else { asked.metadata.id };
        let mut message = Message::new(id, MessageType::Response, OpCode::Query);
        message.metadata.response_code = self::rcode(rcode);
        message.metadata.recursion_available = true;
        message.metadata.truncation = flags.contains(&"tc");
        message.add_queries(asked.queries.clone());
        let mut sections = records.split('/');
        message.add_answers(parse_records(sections.next().unwrap_or_default()));
        message.add_authorities(parse_records(sections.next().unwrap_or_default()));
        message.add_additionals(parse_records(sections.next().unwrap_or_default()));
        if asked.edns.is_some() && !flags.contains(&"plain") {
            message.set_edns(Edns::new());
        }
        let wire = message.to_vec().unwrap();
        self.forwarder.handle_upstream(self.now, *token, &wire);
        Ok(())
    }

    fn expect_answer(&mut self, expect: &str) -> Result<(), String> {
        let bytes = self.answers.pop_front().ok_or("no answer")?;
        let message = Message::from_vec(&bytes).map_err(|error| format!("{error}: {bytes:02x?}"))?;
        let label = self.labels.get(&message.metadata.id).cloned().unwrap_or_default();
        same(&format!("{label} {}", render(&message)), expect)
    }

    fn expect_silence(&self) -> Result<(), String> {
        match (self.asks.front(), self.answers.front()) {
            (None, None) => Ok(()),
            (Some((_, upstream, ..)), _) => Err(format!("sent to {upstream}")),
            (None, Some(bytes)) => Err(format!("answered {:?}", Message::from_vec(bytes))),
        }
    }
}

fn upstreams(addresses: &[&str]) -> Vec<SocketAddr> {
    addresses.iter().map(|address| SocketAddr::new(address.parse().unwrap(), 53)).collect()
}

fn same(got: &str, expect: &str) -> Result<(), String> {
    if got == expect { Ok(()) } else { Err(format!("got: {got}")) }
}

fn name(text: &str) -> Name {
    Name::from_ascii(text).unwrap()
}

fn rcode(text: &str) -> ResponseCode {
    match text {
        "NOERROR" => ResponseCode::NoError,
        "FORMERR" => ResponseCode::FormErr,
        "SERVFAIL" => ResponseCode::ServFail,
        "NXDOMAIN" => ResponseCode::NXDomain,
        "NOTIMP" => ResponseCode::NotImp,
        "REFUSED" => ResponseCode::Refused,
        other => panic!("response code {other}"),
    }
}

fn parse_records(text: &str) -> Vec<Record> {
    let texts = text.split(';').map(str::trim).filter(|text| !text.is_empty());
    texts.flat_map(parse_record).collect()
}

/// `NAME TTL TYPE DATA`; `TXT N` makes N records of 100 octets.
fn parse_record(text: &str) -> Vec<Record> {
    let words: Vec<&str> = text.split_whitespace().collect();
    let [owner, ttl, rtype, data] = words.as_slice() else { panic!("record {text}") };
    let zone = || name("ns.example.");
    let data = match *rtype {
        "A" => RData::A(A(data.parse().unwrap())),
        "AAAA" => RData::AAAA(AAAA(data.parse().unwrap())),
        "CNAME" => RData::CNAME(CNAME(name(data))),
        "NS" => RData::NS(NS(name(data))),
        "PTR" => RData::PTR(PTR(name(data))),
        "SOA" => RData::SOA(SOA::new(zone(), zone(), 1, 2, 3, 4, data.parse().unwrap())),
        "TXT" => {
            let count: usize = data.parse().unwrap();
            let record = |n| {
                let text = format!("{n:0>100}");
                Record::from_rdata(name(owner), ttl.parse().unwrap(), RData::TXT(TXT::new(vec![text])))
            };
            return (0..count).map(record).collect();
        }
        other => panic!("record type {other}"),
    };
    vec![Record::from_rdata(name(owner), ttl.parse().unwrap(), data)]
}

fn render(message: &Message) -> String {
    let rcode = format!("{:?}", message.metadata.response_code).to_uppercase();
    let mut text = rcode;
    for (set, word) in [
        (message.metadata.authoritative, " aa"),
        (message.metadata.truncation, " tc"),
        (message.metadata.authentic_data, " ad"),
        (message.metadata.checking_disabled, " cd"),
        (message.edns.is_none(), " plain"),
    ] {
        text.push_str(if set { word } else { "" });
    }
    let extended = message.edns.as_ref().and_then(|edns| edns.option(EdnsCode::Unknown(15)));
    if let Some(EdnsOption::Unknown(_, code)) = extended {
        text.push_str(&format!(" ede={}", code[1]));
    }
    let answers = render_records(&message.answers);
    let authorities = render_records(&message.authorities);
    match (answers.is_empty(), authorities.is_empty()) {
        (true, true) => text,
        (false, true) => format!("{text}: {answers}"),
        _ => format!("{text}: {answers} / {authorities}").replace(":  /", ": /"),
    }
}

fn render_records(records: &[Record]) -> String {
    let render = |record: &Record| {
        let data = match &record.data {
            RData::SOA(soa) => soa.minimum.to_string(),
            RData::TXT(_) => "…".into(),
            other => other.to_string().trim().to_owned(),
        };
        format!("{} {} {} {data}", record.name, record.ttl, record.record_type())
    };
    records.iter().map(render).collect::<Vec<_>>().join("; ")
}
