//! The simulated office and Internet, and the end-to-end tests on the real image.
//!
//! A test builds a [`World`] out of named wires, office PCs, an ISP and boxes, and then waits for what must
//! happen. PCs and the ISP are smoltcp stacks inside the test process; boxes are QEMU machines whose network
//! ports are Unix sockets. So a whole company runs without root and without touching the host's network:
//!
//! ```no_run
//! # fn main() -> anyhow::Result<()> {
//! # use qemu_tests::{BoxOptions, IspOptions, PcOptions, World};
//! # let equipment = None;
//! let mut world = World::new("two-offices", equipment)?;
//! let internet = world.add_wire("internet")?;
//! let isp = world.add_isp(internet, IspOptions::default())?;
//! for office in ["berlin", "ulm"] {
//!     let lan = world.add_wire(office)?;
//!     let branch = world.add_box(&format!("{office}-box"), &[internet, lan], &BoxOptions::default())?;
//!     world.wait_until_ready(branch)?;
//!     let pc = world.add_pc(lan, &PcOptions { mac: [2, 0, 0, 0, 1, 1], name: Some("reception") });
//!     world.wait_for_lease(pc, std::time::Duration::from_secs(30))?;
//!     let web = world.isp(isp).options.web_server;
//!     assert_eq!(world.fetch(pc, web, "/")?.status, 200);
//! }
//! world.finish()
//! # }
//! ```

pub mod artefacts;
pub mod block;
pub mod bootloader;
pub mod console;
pub mod disk;
pub mod dns;
pub mod ext4;
pub mod guard;
pub mod isp;
pub mod line;
mod ms_sntp;
pub mod namespace;
pub mod noise;
pub mod pc;
pub mod pcap;
pub mod peers;
pub mod probe;
pub mod promise;
pub mod ready;
pub mod release;
pub mod serial;
pub mod smb;
pub mod stack;
pub mod stick;
pub mod traffic;
pub mod tunnel;
pub mod vm;
pub mod wire;
pub mod world;

pub use isp::{Headquarters, IspOptions, Transport};
pub use pc::{Lease, PcOptions};
pub use vm::{BoxOptions, Equipment};
pub use world::{BoxId, IspId, JoinId, PcId, WireId, World};
