//! Network namespaces for tests, each with an interface that ends here. They need root and `ip`.
#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test file uses a part of it"
)]

use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::process::Command;
use std::sync::atomic::{AtomicU8, Ordering};

/// A namespace and a pair of interfaces, one end in it and one here. They go when it is dropped, and
/// with them whatever still runs there.
pub struct Namespace {
    name: String,
    /// The end here.
    pub here: String,
    /// The end in the namespace.
    pub there: String,
    subnet: [u8; 2],
}

/// Addresses of the pairs of one process are 10.x.n.0/24 and fd00:x:n::/64.
static NEXT: AtomicU8 = AtomicU8::new(1);
/// Whatever a datagram or a frame may have.
const MTU: &str = "9000";

impl Namespace {
    /// A namespace without addresses, in which nothing is sent but what the test sends. None if it
    /// cannot be made, which is said.
    pub fn new(test: &str) -> Option<Self> {
        let process = std::process::id();
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let tag = format!("fr{}x{number}", process % 1_000_000);
        let namespace = Self {
            name: tag.clone(),
            here: format!("{tag}h"),
            there: format!("{tag}t"),
            subnet: [100 + (process % 100) as u8, number],
        };
        if namespace.make() {
            return Some(namespace);
        }
        let _ = writeln!(
            std::io::stderr(),
            "SKIPPED: {test}: network namespaces cannot be made here (root and ip are needed)"
        );
        None
    }

    /// A namespace that can be reached by IPv4 and IPv6.
    pub fn with_addresses(test: &str) -> Option<Self> {
        let namespace = Self::new(test)?;
        assert!(namespace.add_addresses(), "addresses can be set");
        Some(namespace)
    }

    fn make(&self) -> bool {
        let Self {
            name, here, there, ..
        } = self;
        ip(&["netns", "add", name])
            && ip(&["link", "add", here, "type", "veth", "peer", "name", there])
            && ip(&["link", "set", there, "netns", name])
            // Nothing but what the test sends: no neighbour discovery.
            && ip(&["link", "set", here, "addrgenmode", "none"])
            && self.ip(&["link", "set", there, "addrgenmode", "none"])
            && ip(&["link", "set", here, "mtu", MTU])
            && self.ip(&["link", "set", there, "mtu", MTU])
            && self.ip(&["link", "set", "lo", "up"])
            && self.ip(&["link", "set", there, "up"])
            && ip(&["link", "set", here, "up"])
    }

    fn add_addresses(&self) -> bool {
        // Neighbours are asked for from link-local addresses when the source is another's.
        let here = [
            format!("{}/24", self.address_here()),
            format!("{}/64", self.v6_here()),
            "fe80::1/64".to_owned(),
        ];
        let there = [
            format!("{}/24", self.address_there()),
            format!("{}/64", self.v6_there()),
            "fe80::2/64".to_owned(),
        ];
        // Usable at once: duplicates are not looked for.
        let add = ["address", "add"];
        let (to_here, to_there) = (["dev", &self.here, "nodad"], ["dev", &self.there, "nodad"]);
        let gateways = [self.address_here().to_string(), self.v6_here().to_string()];
        here.iter()
            .all(|address| ip(&[&add[..], &[address], &to_here].concat()))
            && there
                .iter()
                .all(|address| self.ip(&[&add[..], &[address], &to_there].concat()))
            && self.ip(&["route", "add", "default", "via", &gateways[0]])
            && self.ip(&["-6", "route", "add", "default", "via", &gateways[1]])
    }

    /// The IPv4 address of the end here.
    pub fn address_here(&self) -> IpAddr {
        Ipv4Addr::new(10, self.subnet[0], self.subnet[1], 1).into()
    }

    /// The IPv4 address in the namespace.
    pub fn address_there(&self) -> IpAddr {
        Ipv4Addr::new(10, self.subnet[0], self.subnet[1], 2).into()
    }

    /// The IPv6 address of the end here.
    pub fn v6_here(&self) -> IpAddr {
        self.v6(1).into()
    }

    /// The IPv6 address in the namespace.
    pub fn v6_there(&self) -> IpAddr {
        self.v6(2).into()
    }

    fn v6(&self, last: u16) -> Ipv6Addr {
        let [first, second] = self.subnet.map(u16::from);
        Ipv6Addr::new(0xfd00, first, second, 0, 0, 0, 0, last)
    }

    /// A command that runs in the namespace.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name, program]);
        command
    }

    /// Changes the namespace's network: arguments of `ip`.
    pub fn ip(&self, arguments: &[&str]) -> bool {
        let arguments = [&["-n", &self.name], arguments].concat();
        ip(&arguments)
    }

    /// A counter of the interface in the namespace.
    pub fn counter(&self, name: &str) -> u64 {
        let path = format!("/sys/class/net/{}/statistics/{name}", self.there);
        let read = self.command("cat").arg(&path).output();
        let read = read.expect("ip was there before");
        let text = String::from_utf8_lossy(&read.stdout);
        text.trim().parse().expect("a number")
    }

    /// The hardware address of the end here.
    pub fn hardware_address_here(&self) -> [u8; 6] {
        let path = format!("/sys/class/net/{}/address", self.here);
        let text = std::fs::read_to_string(path).expect("the interface is there");
        let mut octets = text.trim().split(':');
        [(); 6].map(|()| {
            let octet = octets.next().expect("six octets");
            u8::from_str_radix(octet, 16).expect("hexadecimal")
        })
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let processes = Command::new("ip")
            .args(["netns", "pids", &self.name])
            .output();
        if let Ok(processes) = processes {
            for process in String::from_utf8_lossy(&processes.stdout).split_whitespace() {
                let _ = Command::new("kill").args(["-KILL", process]).status();
            }
        }
        ip(&["link", "delete", &self.here]);
        ip(&["netns", "delete", &self.name]);
    }
}

/// Runs `ip`; whether it succeeded.
pub fn ip(arguments: &[&str]) -> bool {
    let ran = Command::new("ip").args(arguments).output();
    ran.is_ok_and(|output| output.status.success())
}

/// Sends a signal to a process.
pub fn signal(process: &std::process::Child, name: &str) {
    let sent = Command::new("kill")
        .args([&format!("-{name}"), &process.id().to_string()])
        .status();
    assert!(sent.expect("kill is there").success(), "{name} is sent");
}
