//! The daemon over loopback: one thread drives the daemon, the client and the fake upstream in turn, and
//! waits for events only.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddrV4, TcpListener, TcpStream, UdpSocket};
use std::os::unix::net::UnixStream;
use std::path::Path;

use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::A;
use hickory_proto::rr::{Name, RData, Record, RecordType};
use kontor_status::{DnsStatus, NetStatus, WanLease};

use super::*;

/// As it is in an image; the files in `board/` also say what only the builder wants to know.
const BOARD: &str = "schema = 1\nname = \"test\"\n[[port]]\nname = \"port1\"\n[[port]]\nname = \"port2\"\n";
/// Longest time a test waits for something that must happen.
const PATIENCE: Duration = Duration::from_secs(20);
/// Negotiation of keys.
const TKEY: RecordType = RecordType::Unknown(249);
/// TSIG of key `k`: algorithm `k`, no time, an empty signature, id 7, no error.
const SIGNATURE: &[u8] = b"\x01k\0\0\xfa\0\xff\0\0\0\0\0\x13\x01k\0\0\0\0\0\0\0\0\0\0\0\0\x07\0\0\0\0";
const SAMBA: &str = "[samba]\nrole = \"dc\"\nrealm = \"ad.office.internal\"\n";
/// One turn of the daemon at most.
const STEP: Duration = Duration::from_millis(20);

/// A resolver that answers every A question with 192.0.2.0, over UDP truncated when asked for `big…`; what is passed on
/// to it comes back as an answer.
struct FakeUpstream {
    udp: UdpSocket,
    tcp: TcpListener,
    open: Vec<TcpStream>,
    asked: usize,
}

impl FakeUpstream {
    /// With a free port for both transports.
    fn on(address: &str) -> Self {
        let (udp, tcp) = loop {
            let udp = UdpSocket::bind((address, 0)).unwrap();
            if let Ok(tcp) = TcpListener::bind(udp.local_addr().unwrap()) {
                break (udp, tcp);
            }
        };
        udp.set_nonblocking(true).unwrap();
        tcp.set_nonblocking(true).unwrap();
        Self { udp, tcp, open: Vec::new(), asked: 0 }
    }

    fn port(&self) -> u16 {
        self.udp.local_addr().unwrap().port()
    }

    fn turn(&mut self) {
        let mut buffer = [0; 4096];
        while let Ok((length, peer)) = self.udp.recv_from(&mut buffer) {
            self.asked += 1;
            self.udp.send_to(&reply(&buffer[..length], true), peer).unwrap();
        }
        while let Ok((stream, _)) = self.tcp.accept() {
            stream.set_nonblocking(true).unwrap();
            self.open.push(stream);
        }
        for stream in &mut self.open {
            // Small enough to come in one piece over loopback.
            if let Ok(length) = stream.read(&mut buffer)
                && length > 2
            {
                self.asked += 1;
                stream.write_all(&framed(&reply(&buffer[2..length], false))).unwrap();
            }
        }
    }
}

fn reply(asked: &[u8], udp: bool) -> Vec<u8> {
    let (bytes, asked) = (asked, Message::from_vec(asked).unwrap());
    let signed = bytes.ends_with(SIGNATURE);
    if signed || asked.metadata.op_code != OpCode::Query || asked.queries[0].query_type() == TKEY {
        return echo(bytes);
    }
    let name = asked.queries[0].name().clone();
    let mut message = Message::new(asked.metadata.id, MessageType::Response, OpCode::Query);
    message.add_queries(asked.queries);
    let big = name.to_ascii().starts_with("big");
    message.metadata.truncation = big && udp;
    for last in 0..if big { 200 } else { 1 } {
        let data = RData::A(A::new(192, 0, 2, last));
        message.add_answer(Record::from_rdata(name.clone(), 300, data));
    }
    message.to_vec().unwrap()
}

/// What came, as an answer, with a tail that the box must not mind.
fn echo(asked: &[u8]) -> Vec<u8> {
    let mut answer = [asked, b"tail"].concat();
    answer[2] |= 0x80;
    answer
}

fn framed(message: &[u8]) -> Vec<u8> {
    let length = u16::try_from(message.len()).unwrap();
    [&length.to_be_bytes(), message].concat()
}

fn question(qname: &str, qtype: RecordType, id: u16) -> Vec<u8> {
    let mut message = Message::new(id, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_ascii(qname).unwrap(), qtype));
    message.to_vec().unwrap()
}

/// A dynamic update of `zone` (RFC 2136).
fn update(zone: &str) -> Vec<u8> {
    let mut message = question(zone, RecordType::SOA, 0xabcd);
    message[2] = 5 << 3;
    message
}

struct Office {
    daemon: Daemon,
    upstream: FakeUpstream,
    /// Samba's DNS service.
    samba: FakeUpstream,
    directory: tempfile::TempDir,
    server: SocketAddrV4,
}

impl Office {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        // An address that nobody else in the test run uses.
        let (upstream, samba) = (FakeUpstream::on("127.0.0.99"), FakeUpstream::on("127.0.0.1"));
        let run = directory.path();
        for sub in ["site", "netd", "dnsd"] {
            std::fs::create_dir(run.join(sub)).unwrap();
        }
        write_site(run, "");
        let board = run.join("board.toml");
        std::fs::write(&board, BOARD).unwrap();
        let args = ["--run", run.to_str().unwrap(), "--board", board.to_str().unwrap()].map(str::to_owned);
        let options = Options {
            paths: Paths::from_args(&args),
            port: 0,
            upstream_port: upstream.port(),
            samba_port: samba.port(),
        };
        let signals = Signals::new(&[]).unwrap();
        let mut daemon = Daemon::new(options, signals, Notifier::from_environment()).unwrap();
        let listener = daemon.listeners.on(Ipv4Addr::LOCALHOST).unwrap();
        let SocketAddr::V4(server) = listener.udp.local_addr().unwrap() else { panic!("IPv4") };
        // From here on a reload opens the same port.
        daemon.options.port = server.port();
        Self { daemon, upstream, samba, directory, server }
    }

    /// Its site has the Active Directory domain `ad.office.internal`.
    fn with_realm() -> Self {
        let mut office = Self::with_wan();
        write_site(office.directory.path(), SAMBA);
        office.daemon.reload();
        office
    }

    fn with_wan() -> Self {
        let mut office = Self::new();
        office.wan_up();
        office.until(|office| office.daemon.forwarder.upstreams().next());
        office
    }

    fn wan_up(&self) {
        let lease = WanLease {
            interface: "port1".into(),
            address: "198.51.100.2/24".parse().unwrap(),
            gateway: None,
            dns_servers: vec![Ipv4Addr::new(127, 0, 0, 99).into()],
            ntp_servers: vec![],
            lease_time_s: None,
        };
        self.wan_is(WanState::Up(lease));
    }

    fn wan_is(&self, wan: WanState) {
        let status = NetStatus { wan, ..NetStatus::default() };
        let text = serde_json::to_vec(&status).unwrap();
        kontor_sys::file::write_atomic(&self.directory.path().join("netd/status.json"), &text).unwrap();
    }

    /// Lets everybody work until `done` has something.
    #[track_caller]
    fn until<T>(&mut self, mut done: impl FnMut(&mut Self) -> Option<T>) -> T {
        let start = Instant::now();
        loop {
            self.upstream.turn();
            self.samba.turn();
            self.daemon.turn(STEP).unwrap();
            if let Some(value) = done(self) {
                return value;
            }
            assert!(start.elapsed() < PATIENCE, "it did not happen");
        }
    }

    #[track_caller]
    fn ask(&mut self, qname: &str, qtype: RecordType) -> Message {
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        client.set_nonblocking(true).unwrap();
        client.send_to(&question(qname, qtype, 7), self.server).unwrap();
        let server = self.server;
        self.until(|_| {
            let mut buffer = [0; 4096];
            let (length, from) = client.recv_from(&mut buffer).ok()?;
            assert_eq!(from, server.into());
            Some(Message::from_vec(&buffer[..length]).unwrap())
        })
    }

    /// Sends `message` as it is; what comes back.
    #[track_caller]
    fn exchange_udp(&mut self, message: &[u8]) -> Vec<u8> {
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        client.set_nonblocking(true).unwrap();
        client.send_to(message, self.server).unwrap();
        self.until(|_| {
            let mut buffer = [0; 4096];
            let length = client.recv(&mut buffer).ok()?;
            Some(buffer[..length].to_vec())
        })
    }

    #[track_caller]
    fn exchange_tcp(&mut self, message: &[u8]) -> Vec<u8> {
        let mut stream = self.connect();
        stream.write_all(&framed(message)).unwrap();
        let mut input = Vec::new();
        self.until(|_| {
            let mut buffer = [0; 4096];
            let length = stream.read(&mut buffer).unwrap_or(0);
            input.extend_from_slice(&buffer[..length]);
            let (length, rest) = input.split_first_chunk::<2>()?;
            (rest.len() == usize::from(u16::from_be_bytes(*length))).then(|| rest.to_vec())
        })
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.server).unwrap();
        stream.set_nonblocking(true).unwrap();
        stream
    }

    /// The next `count` answers from a connection.
    #[track_caller]
    fn receive(&mut self, stream: &mut TcpStream, count: usize) -> Vec<Message> {
        let (mut input, mut messages) = (Vec::new(), Vec::new());
        self.until(|_| {
            let mut buffer = [0; 4096];
            match stream.read(&mut buffer) {
                Ok(0) => panic!("closed"),
                Ok(length) => input.extend_from_slice(&buffer[..length]),
                Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
            }
            unframe(&mut input, &mut messages);
            (messages.len() >= count).then(|| std::mem::take(&mut messages))
        })
    }
}

/// Takes the whole ones.
fn unframe(input: &mut Vec<u8>, messages: &mut Vec<Message>) {
    while let Some((length, rest)) = input.split_first_chunk::<2>() {
        let length = usize::from(u16::from_be_bytes(*length));
        let Some(message) = rest.get(..length) else { break };
        messages.push(Message::from_vec(message).unwrap());
        input.drain(..2 + length);
    }
}

fn write_site(run: &Path, hosts: &str) {
    let text = format!("{}\n{hosts}", kontor_config::Site::default_text());
    kontor_sys::file::write_atomic(&run.join("site/site.toml"), text.as_bytes()).unwrap();
}

fn addresses(message: &Message) -> Vec<String> {
    message.answers.iter().map(|record| record.data.to_string()).collect()
}

#[test]
fn local_names_work_before_there_is_an_upstream() {
    let mut office = Office::new();
    office.wan_is(WanState::Unplugged { interface: "port1".into() });
    let answer = office.ask("kontor.office.internal.", RecordType::A);
    assert_eq!(addresses(&answer), ["192.168.77.1"]);
    let answer = office.ask("1.77.168.192.in-addr.arpa.", RecordType::PTR);
    assert_eq!(addresses(&answer), ["kontor.office.internal."]);
    let answer = office.ask("www.example.", RecordType::A);
    assert_eq!(answer.metadata.response_code, ResponseCode::ServFail);
}

#[test]
fn upstreams_come_from_the_wan_and_answers_from_the_cache() {
    let mut office = Office::with_wan();
    for _ in 0..3 {
        let answer = office.ask("www.example.", RecordType::A);
        assert_eq!(addresses(&answer), ["192.0.2.0"]);
    }
    assert_eq!(office.upstream.asked, 1);
}

#[test]
fn a_question_that_comes_before_the_line_is_answered_when_that_is_up() {
    let mut office = Office::new();
    office.wan_is(WanState::Acquiring { client: "REQUESTING".into() });
    let mut stream = office.connect();
    stream.write_all(&framed(&question("www.example.", RecordType::A, 7))).unwrap();
    office.until(|office| (office.daemon.forwarder.counters().queries == 1).then_some(()));
    office.wan_up();
    let answers = office.receive(&mut stream, 1);
    assert_eq!(addresses(&answers[0]), ["192.0.2.0"]);
}

#[test]
fn large_answers_go_over_tcp_on_both_sides() {
    let mut office = Office::with_wan();
    let answer = office.ask("big.example.", RecordType::A);
    assert!(answer.metadata.truncation && answer.answers.is_empty());
    assert_eq!(office.upstream.asked, 2);
    let mut stream = office.connect();
    stream.write_all(&framed(&question("big.example.", RecordType::A, 3))).unwrap();
    let answers = office.receive(&mut stream, 1);
    assert_eq!(answers[0].answers.len(), 200);
    assert_eq!(office.upstream.asked, 2);
}

#[test]
fn tcp_takes_pipelined_queries_in_any_pieces() {
    let mut office = Office::with_wan();
    let mut stream = office.connect();
    let names = ["a.example.", "kontor.office.internal.", "b.example.", "c.example."];
    let queries = names.iter().zip(1..).map(|(name, id)| framed(&question(name, RecordType::A, id)));
    let bytes: Vec<u8> = queries.flatten().collect();
    for piece in bytes.chunks(7) {
        stream.write_all(piece).unwrap();
        office.daemon.turn(Duration::ZERO).unwrap();
    }
    let mut ids: Vec<u16> =
        office.receive(&mut stream, names.len()).iter().map(|message| message.metadata.id).collect();
    ids.sort_unstable();
    assert_eq!(ids, [1, 2, 3, 4]);
}

#[test]
fn pipelined_queries_beyond_the_bound_of_waiting_answers_are_served_too() {
    let mut office = Office::with_wan();
    let mut stream = office.connect();
    stream.write_all(&framed(&question("big.example.", RecordType::A, 0))).unwrap();
    office.receive(&mut stream, 1);
    // From the cache at once: far more than may wait in a connection.
    let queries: Vec<u8> =
        (1..=100).flat_map(|id| framed(&question("big.example.", RecordType::A, id))).collect();
    stream.write_all(&queries).unwrap();
    assert_eq!(office.receive(&mut stream, 100).len(), 100);
}

#[test]
fn accepting_pauses_until_the_next_tick_when_descriptors_run_out() {
    let mut office = Office::new();
    let number = office.daemon.listeners.number_on(Ipv4Addr::LOCALHOST).unwrap();
    for mark in [Mark::TcpListener(number), Mark::NamesListener] {
        office.daemon.pause(mark);
    }
    let _stream = office.connect();
    let _dhcpd = UnixStream::connect(office.directory.path().join("dnsd/names.sock")).unwrap();
    let mut ready = Vec::new();
    office.daemon.poller.wait(Duration::ZERO, &mut ready).unwrap();
    assert_eq!(ready, [], "a listener that cannot accept would spin");
    office.daemon.tick(office.daemon.tick_at);
    office.daemon.poller.wait(Duration::ZERO, &mut ready).unwrap();
    assert_eq!(ready.len(), 2);
}

#[test]
fn half_closed_connections_still_get_their_answers() {
    let mut office = Office::with_wan();
    let mut stream = office.connect();
    stream.write_all(&framed(&question("www.example.", RecordType::A, 9))).unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(office.receive(&mut stream, 1)[0].metadata.id, 9);
    office.until(|_| matches!(stream.read(&mut [0; 1]), Ok(0)).then_some(()));
}

#[test]
fn one_client_cannot_take_all_connections() {
    let mut office = Office::new();
    let mut streams: Vec<TcpStream> = (0..40).map(|_| office.connect()).collect();
    // Those over the bound are closed at once; the first ones are served.
    let last = streams.len() - 1;
    office.until(|_| matches!(streams[last].read(&mut [0; 1]), Ok(0)).then_some(()));
    streams[0].write_all(&framed(&question("kontor.office.internal.", RecordType::A, 1))).unwrap();
    assert_eq!(office.receive(&mut streams[0], 1).len(), 1);
}

#[test]
fn a_lease_is_acknowledged_when_its_name_resolves() {
    let mut office = Office::new();
    let path = office.directory.path().join("dnsd/names.sock");
    let mut dhcpd = UnixStream::connect(path).unwrap();
    dhcpd.set_nonblocking(true).unwrap();
    let lines = [
        r#"{"op":"snapshot","names":[{"name":"old","address":"192.168.77.150","network":"lan"}]}"#,
        r#"{"op":"set","seq":1,"name":"pc1","address":"192.168.77.100","network":"lan"}"#,
        r#"{"op":"remove","seq":2,"name":"old","address":"192.168.77.150","network":"lan"}"#,
        r#"{"op":"set","seq":3,"name":"no good","address":"192.168.77.101","network":"lan"}"#,
        "",
    ];
    dhcpd.write_all(lines.join("\n").as_bytes()).unwrap();
    let mut input = String::new();
    office.until(|_| {
        let mut buffer = [0; 1024];
        if let Ok(length) = dhcpd.read(&mut buffer) {
            input.push_str(std::str::from_utf8(&buffer[..length]).unwrap());
        }
        (input.lines().count() == 3).then_some(())
    });
    assert!(input.starts_with("{\"ack\":1}\n{\"ack\":2}\n{\"ack\":3,\"error\":"), "{input}");
    let answer = office.ask("pc1.office.internal.", RecordType::A);
    assert_eq!(addresses(&answer), ["192.168.77.100"]);
    let answer = office.ask("old.office.internal.", RecordType::A);
    assert_eq!(answer.metadata.response_code, ResponseCode::NXDomain);

    // A new connection's snapshot replaces everything.
    let mut restarted = UnixStream::connect(office.directory.path().join("dnsd/names.sock")).unwrap();
    restarted.write_all(b"{\"op\":\"snapshot\",\"names\":[]}\n").unwrap();
    office.until(|office| (office.daemon.forwarder.local_names() == 1).then_some(()));
}

#[test]
fn a_reload_keeps_leases_cache_and_connections() {
    let mut office = Office::with_wan();
    office.ask("www.example.", RecordType::A);
    let lease = Ipv4Addr::new(192, 168, 77, 100);
    office.daemon.forwarder.zones_mut().set_lease("pc1", lease).unwrap();
    let mut stream = office.connect();
    stream.write_all(&framed(&question("pc1.office.internal.", RecordType::A, 1))).unwrap();
    office.receive(&mut stream, 1);

    write_site(office.directory.path(), "[[dns.host]]\nname = \"nas\"\naddress = \"192.168.77.5\"\n");
    office.daemon.reload();
    assert_eq!(addresses(&office.ask("nas.office.internal.", RecordType::A)), ["192.168.77.5"]);
    assert_eq!(addresses(&office.ask("pc1.office.internal.", RecordType::A)), ["192.168.77.100"]);
    office.ask("www.example.", RecordType::A);
    assert_eq!(office.upstream.asked, 1);
    stream.write_all(&framed(&question("nas.office.internal.", RecordType::A, 2))).unwrap();
    assert_eq!(office.receive(&mut stream, 1)[0].metadata.id, 2);

    // A site that cannot be read changes nothing and is reported.
    kontor_sys::file::write_atomic(&office.directory.path().join("site/site.toml"), b"schema = 9").unwrap();
    office.daemon.reload();
    assert_eq!(addresses(&office.ask("nas.office.internal.", RecordType::A)), ["192.168.77.5"]);
    assert!(office.daemon.problems.iter().any(|problem| problem.contains("site file")));
}

#[test]
fn other_forwarders_of_the_operator_begin_with_an_empty_cache() {
    let mut office = Office::with_wan();
    office.ask("intranet.example.", RecordType::A);
    assert_eq!(office.daemon.forwarder.cache_entries(), 1);
    let site = kontor_config::Site::default_text().replace("forwarders = []", "forwarders = [\"192.0.2.1\"]");
    std::fs::write(office.directory.path().join("site/site.toml"), site).unwrap();
    office.daemon.reload();
    assert_eq!(office.daemon.forwarder.upstreams().count(), 1);
    assert_eq!(office.daemon.forwarder.cache_entries(), 0, "what the provider's resolver does not know");
}

#[test]
fn the_realm_is_asked_of_samba_from_the_reload_on_that_brings_it() {
    let mut office = Office::with_wan();
    let dc = "dc1.ad.office.internal.";
    assert_eq!(office.ask(dc, RecordType::A).metadata.response_code, ResponseCode::NXDomain);
    write_site(office.directory.path(), SAMBA);
    office.daemon.reload();
    for _ in 0..2 {
        assert_eq!(addresses(&office.ask(dc, RecordType::A)), ["192.0.2.0"]);
    }
    assert!(office.ask("big.ad.office.internal.", RecordType::A).metadata.truncation);
    assert_eq!((office.samba.asked, office.upstream.asked), (3, 0));
    assert_eq!(addresses(&office.ask("kontor.office.internal.", RecordType::A)), ["192.168.77.1"]);
    assert_eq!(office.daemon.forwarder.cache_entries(), 2);

    write_site(office.directory.path(), "");
    office.daemon.reload();
    assert_eq!(office.daemon.forwarder.cache_entries(), 0);
    assert_eq!(office.ask(dc, RecordType::A).metadata.response_code, ResponseCode::NXDomain);
}

#[test]
fn a_port_where_nobody_listens_costs_no_time() {
    let mut office = Office::with_realm();
    let (closed, open) = (FakeUpstream::on("127.0.0.98").udp.local_addr().unwrap(), office.samba.port());
    let name = kontor_dns::Name::from_text("ad.office.internal").unwrap();
    let servers = vec![closed, SocketAddr::from((Ipv4Addr::LOCALHOST, open))];
    office.daemon.forwarder.set_forward_zones(&[ForwardZone { name, servers: servers.clone() }]);
    assert_eq!(addresses(&office.ask("dc1.ad.office.internal.", RecordType::A)), ["192.0.2.0"]);
    office.daemon.forwarder.set_forward_zones(&[ForwardZone { name, servers: vec![closed] }]);
    let answer = office.ask("dc1.ad.office.internal.", RecordType::A);
    assert_eq!(answer.metadata.response_code, ResponseCode::ServFail);
    // Updates go the same way.
    office.daemon.forwarder.set_forward_zones(&[ForwardZone { name, servers }]);
    let update = update("ad.office.internal.");
    assert_eq!(office.exchange_udp(&update), echo(&update));
    assert_eq!(office.exchange_tcp(&update), echo(&update));
    assert_eq!(office.daemon.forwarder.counters().upstream_timeouts, 0);
}

#[test]
fn updates_and_keys_of_the_realm_pass_unchanged() {
    let mut office = Office::with_realm();
    let mut signed = question("dc1.ad.office.internal.", RecordType::A, 7);
    signed[11] = 1;
    signed.extend_from_slice(SIGNATURE);
    let key = question("1412-ms-7.1-2d3f.6b1c.", TKEY, 7);
    for message in [update("ad.office.internal."), update("_msdcs.ad.office.internal."), signed, key] {
        assert_eq!(office.exchange_udp(&message), echo(&message));
        assert_eq!(office.exchange_tcp(&message), echo(&message));
    }
    assert_eq!((office.samba.asked, office.daemon.forwarder.cache_entries()), (8, 0));
    let refused = Message::from_vec(&office.exchange_udp(&update("office.internal."))).unwrap();
    assert_eq!(refused.metadata.response_code, ResponseCode::NotImp);
    assert_eq!(office.samba.asked, 8);
}

#[test]
fn status_and_resolv_conf_are_written() {
    let mut office = Office::with_wan();
    let directory = office.directory.path().join("dnsd");
    let resolv_conf = std::fs::read_to_string(directory.join("resolv.conf")).unwrap();
    assert_eq!(resolv_conf, "nameserver 127.0.0.1\nsearch office.internal\n");
    office.ask("www.example.", RecordType::A);
    let status: DnsStatus = office.until(|_| {
        let text = std::fs::read(directory.join("status.json")).ok()?;
        let status: DnsStatus = serde_json::from_slice(&text).unwrap();
        (status.queries > 0 && !status.upstreams.is_empty()).then_some(status)
    });
    assert_eq!(status.upstreams, [IpAddr::from(Ipv4Addr::new(127, 0, 0, 99))]);
    assert_eq!((status.local_names, status.problems), (1, vec![]));
}
