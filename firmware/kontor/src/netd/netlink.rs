//! The kernel's routing socket: one look at everything, one step at a time, and a wake-up on changes.
//!
//! The only module that knows the `rtnetlink` crate. Events carry no content on purpose: whatever arrives,
//! a lost message (ENOBUFS) included, only means "look again", so nothing can be missed by parsing it wrong.

use std::time::Duration;

use futures_util::StreamExt;
use futures_util::TryStreamExt;
use ipnet::Ipv4Net;
use kontor_network::{Link, LinkKind, Mac, Observed, Route, RouteOrigin, Step};
use netlink_packet_route::AddressFamily;
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::link::{InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkMessage};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteType,
};
use rtnetlink::{
    Handle, LinkBridge, LinkMessageBuilder, LinkUnspec, LinkWireguard, MulticastGroup, RouteMessageBuilder,
};

/// The kernel answers within microseconds; a request that takes this long has lost its answer (ENOBUFS).
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// Why a look or a step failed; all of these are worth another try.
#[derive(Debug)]
pub(crate) enum Error {
    /// The kernel refused.
    Refused { what: String, source: rtnetlink::Error },
    /// No such interface (any more).
    NoLink(String),
    /// The answer got lost.
    Timeout(String),
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Refused { what, .. } => write!(f, "{what} was refused by the kernel"),
            Self::NoLink(name) => write!(f, "there is no interface {name}"),
            Self::Timeout(what) => write!(f, "{what} got no answer from the kernel"),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Refused { source, .. } => Some(source),
            _ => None,
        }
    }
}

/// A request socket.
pub(crate) struct Netlink {
    handle: Handle,
}

/// A socket that only hears of changes. Separate from the requests', so that a flood of events can never
/// cost an answer.
pub(crate) struct Events {
    messages: Box<dyn futures_util::Stream<Item = ()> + Unpin>,
}

impl Events {
    /// Subscribes to links, IPv4 addresses and IPv4 routes.
    pub(crate) fn subscribe() -> std::io::Result<Self> {
        let groups = [MulticastGroup::Link, MulticastGroup::Ipv4Ifaddr, MulticastGroup::Ipv4Route];
        let (connection, handle, messages) = rtnetlink::new_multicast_connection(&groups)?;
        // The handle keeps the connection alive: without one it ends.
        tokio::spawn(async move {
            let _keep = handle;
            connection.await;
        });
        Ok(Self { messages: Box::new(messages.map(|_| ())) })
    }

    /// Waits for a change. False when the socket died, which ends netd (it is restarted).
    pub(crate) async fn changed(&mut self) -> bool {
        self.messages.next().await.is_some()
    }

    /// Drops changes already queued: one look covers them all.
    pub(crate) fn drain(&mut self) {
        while let Some(Some(())) = futures_util::FutureExt::now_or_never(self.messages.next()) {}
    }
}

impl Netlink {
    /// Opens the request socket.
    pub(crate) fn open() -> std::io::Result<Self> {
        let (connection, handle, _) = rtnetlink::new_connection()?;
        tokio::spawn(connection);
        Ok(Self { handle })
    }

    /// Looks at links, addresses and routes.
    pub(crate) async fn observe(&self) -> Result<Observed, Error> {
        let links: Vec<LinkMessage> =
            limited("listing links", self.handle.link().get().execute().try_collect()).await?;
        let addresses: Vec<AddressMessage> =
            limited("listing addresses", self.handle.address().get().execute().try_collect()).await?;
        let filter = RouteMessageBuilder::<std::net::Ipv4Addr>::new().build();
        let routes: Vec<RouteMessage> =
            limited("listing routes", self.handle.route().get(filter).execute().try_collect()).await?;
        let links: Vec<Link> = links.iter().filter_map(link).collect();
        let addresses = addresses.iter().filter_map(address).collect();
        let routes = routes.iter().filter_map(|message| route(message, &links)).collect();
        Ok(Observed { links, addresses, routes })
    }

    /// Performs one step.
    pub(crate) async fn apply(&self, step: &Step) -> Result<(), Error> {
        let what = describe(step);
        match step {
            Step::Down(name) => self.change(&what, name, |link| link.down()).await,
            Step::Up(name) => self.change(&what, name, |link| link.up()).await,
            Step::Mtu(name, mtu) => self.change(&what, name, |link| link.mtu(*mtu)).await,
            Step::Detach(name) => self.change(&what, name, |link| link.nocontroller()).await,
            Step::Attach(name, bridge) => {
                let controller = self.index(bridge).await?;
                self.change(&what, name, |link| link.controller(controller)).await
            }
            Step::Rename(index, name) => {
                let message = LinkUnspec::new_with_index(*index).name(name.clone()).build();
                limited(&what, self.handle.link().change(message).execute()).await
            }
            Step::Add(name, kind, mac) => self.add(&what, name, *kind, *mac).await,
            Step::Delete(name) => {
                limited(&what, self.handle.link().del(self.index(name).await?).execute()).await
            }
            Step::AddAddress(name, address) => self.add_address(&what, name, *address).await,
            Step::DeleteAddress(name, address) => self.delete_address(&what, name, *address).await,
            Step::SetRoute(route) => {
                let message = self.route_message(route).await?;
                limited(&what, self.handle.route().add(message).replace().execute()).await
            }
            Step::DeleteRoute(route) => {
                let message = self.route_message(route).await?;
                limited(&what, self.handle.route().del(message).execute()).await
            }
        }
    }

    async fn change(
        &self,
        what: &str,
        name: &str,
        edit: impl FnOnce(LinkMessageBuilder<LinkUnspec>) -> LinkMessageBuilder<LinkUnspec>,
    ) -> Result<(), Error> {
        let message = edit(LinkUnspec::new_with_index(self.index(name).await?)).build();
        limited(what, self.handle.link().change(message).execute()).await
    }

    /// A bridge without spanning tree (with it, ports would forward after 30 s only), or a WireGuard interface.
    async fn add(&self, what: &str, name: &str, kind: LinkKind, mac: Option<Mac>) -> Result<(), Error> {
        let message = match (kind, mac) {
            (LinkKind::WireGuard, _) => LinkWireguard::new(name).build(),
            (_, Some(mac)) => LinkBridge::new(name).address(mac.0.to_vec()).build(),
            (_, None) => LinkBridge::new(name).build(),
        };
        limited(what, self.handle.link().add(message).execute()).await
    }

    async fn add_address(&self, what: &str, name: &str, address: Ipv4Net) -> Result<(), Error> {
        let index = self.index(name).await?;
        let request = self.handle.address().add(index, address.addr().into(), address.prefix_len());
        limited(what, request.execute()).await
    }

    async fn delete_address(&self, what: &str, name: &str, address: Ipv4Net) -> Result<(), Error> {
        let mut message = AddressMessage::default();
        message.header.family = AddressFamily::Inet;
        message.header.prefix_len = address.prefix_len();
        message.header.index = self.index(name).await?;
        message.attributes.push(AddressAttribute::Local(address.addr().into()));
        limited(what, self.handle.address().del(message).execute()).await
    }

    async fn route_message(&self, route: &Route) -> Result<RouteMessage, Error> {
        let mut builder = RouteMessageBuilder::<std::net::Ipv4Addr>::new()
            .destination_prefix(route.destination.addr(), route.destination.prefix_len())
            .priority(route.metric)
            .protocol(protocol(route.origin));
        let Some(interface) = &route.interface else {
            return Ok(builder.kind(RouteType::Unreachable).build());
        };
        builder = builder.output_interface(self.index(interface).await?);
        if let Some(source) = route.source {
            builder = builder.pref_source(source);
        }
        if let Some(gateway) = route.gateway {
            // On-link: some providers' gateways lie outside the leased prefix.
            builder = builder.gateway(gateway).onlink();
        } else {
            builder = builder.scope(netlink_packet_route::route::RouteScope::Link);
        }
        Ok(builder.build())
    }

    async fn index(&self, name: &str) -> Result<u32, Error> {
        let mut found = self.handle.link().get().match_name(name.to_owned()).execute();
        let first = tokio::time::timeout(REQUEST_TIMEOUT, found.try_next()).await;
        match first {
            Ok(Ok(Some(link))) => Ok(link.header.index),
            _ => Err(Error::NoLink(name.to_owned())),
        }
    }
}

async fn limited<T>(
    what: &str,
    request: impl Future<Output = Result<T, rtnetlink::Error>>,
) -> Result<T, Error> {
    match tokio::time::timeout(REQUEST_TIMEOUT, request).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(source)) => Err(Error::Refused { what: what.to_owned(), source }),
        Err(_) => Err(Error::Timeout(what.to_owned())),
    }
}

/// A step in words, for the log.
pub(crate) fn describe(step: &Step) -> String {
    match step {
        Step::Down(name) => format!("setting {name} down"),
        Step::Rename(index, name) => format!("naming interface {index} {name}"),
        Step::Add(name, LinkKind::WireGuard, _) => format!("adding tunnel {name}"),
        Step::Add(name, _, _) => format!("adding bridge {name}"),
        Step::Detach(name) => format!("taking {name} out of its bridge"),
        Step::Delete(name) => format!("removing {name}"),
        Step::Attach(name, bridge) => format!("putting {name} into {bridge}"),
        Step::Mtu(name, mtu) => format!("setting the MTU of {name} to {mtu}"),
        Step::Up(name) => format!("setting {name} up"),
        Step::AddAddress(name, address) => format!("adding {address} to {name}"),
        Step::SetRoute(route) if route.interface.is_none() => {
            format!("making {} unreachable but through its tunnel", route.destination)
        }
        Step::SetRoute(route) => format!("setting the route to {}", route.destination),
        Step::DeleteRoute(route) => format!("removing the route to {}", route.destination),
        Step::DeleteAddress(name, address) => format!("removing {address} from {name}"),
    }
}

fn protocol(origin: RouteOrigin) -> RouteProtocol {
    match origin {
        RouteOrigin::Site => RouteProtocol::Static,
        RouteOrigin::Dhcp => RouteProtocol::Dhcp,
    }
}

fn link(message: &LinkMessage) -> Option<Link> {
    if message.header.flags.contains(LinkFlags::Loopback) {
        return None;
    }
    let mut link = Link {
        index: message.header.index,
        name: String::new(),
        kind: LinkKind::Other,
        mac: None,
        up: message.header.flags.contains(LinkFlags::Up),
        carrier: message.header.flags.contains(LinkFlags::LowerUp),
        controller: None,
        mtu: 0,
    };
    let mut current = None;
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name.clone_from(name),
            LinkAttribute::Address(bytes) => current = mac(bytes),
            LinkAttribute::PermAddress(bytes) => link.mac = mac(bytes),
            LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
            LinkAttribute::Controller(index) => link.controller = Some(*index).filter(|i| *i != 0),
            LinkAttribute::LinkInfo(infos) if infos.contains(&LinkInfo::Kind(InfoKind::Bridge)) => {
                link.kind = LinkKind::Bridge;
            }
            LinkAttribute::LinkInfo(infos) if infos.contains(&LinkInfo::Kind(InfoKind::Wireguard)) => {
                link.kind = LinkKind::WireGuard;
            }
            _ => {}
        }
    }
    link.mac = link.mac.or(current);
    Some(link)
}

fn mac(bytes: &[u8]) -> Option<Mac> {
    bytes.try_into().ok().map(Mac)
}

fn address(message: &AddressMessage) -> Option<(u32, Ipv4Net)> {
    let local = message.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Local(std::net::IpAddr::V4(local)) => Some(*local),
        _ => None,
    })?;
    Some((message.header.index, Ipv4Net::new(local, message.header.prefix_len).ok()?))
}

/// A route netd may own: unicast or unreachable, main table, protocol static or dhcp.
fn route(message: &RouteMessage, links: &[Link]) -> Option<Route> {
    let origin = match message.header.protocol {
        RouteProtocol::Static => RouteOrigin::Site,
        RouteProtocol::Dhcp => RouteOrigin::Dhcp,
        _ => return None,
    };
    let header = &message.header;
    let unreachable = header.kind == RouteType::Unreachable;
    if header.table != RouteHeader::RT_TABLE_MAIN || !(unreachable || header.kind == RouteType::Unicast) {
        return None;
    }
    let mut destination = std::net::Ipv4Addr::UNSPECIFIED;
    let (mut gateway, mut interface, mut source, mut metric) = (None, None, None, 0);
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(RouteAddress::Inet(address)) => destination = *address,
            RouteAttribute::Gateway(RouteAddress::Inet(address)) => gateway = Some(*address),
            RouteAttribute::Oif(index) => interface = links.iter().find(|link| link.index == *index),
            RouteAttribute::PrefSource(RouteAddress::Inet(address)) => source = Some(*address),
            RouteAttribute::Priority(priority) => metric = *priority,
            _ => {}
        }
    }
    let destination = Ipv4Net::new(destination, header.destination_prefix_length).ok()?;
    let interface = interface.map(|link| link.name.clone());
    // Over the loopback, or a link that has just gone.
    if interface.is_none() != unreachable {
        return None;
    }
    Some(Route { destination, gateway, interface, source, metric, origin })
}
