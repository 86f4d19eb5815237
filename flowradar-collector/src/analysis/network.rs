//! The network that the switches make: who is joined to whom, and where addresses are.

use std::net::IpAddr;

use flowradar_core::flowset::SwitchName;
use hashbrown::HashMap;
use ipnet::IpNet;
use serde::Deserialize;

use super::record::FiveTuple;

/// Most switches of a network.
pub const SWITCHES_MAX: usize = 4_096;
/// Most hosts of a network.
pub const HOSTS_MAX: usize = 65_536;
/// Most links of a network.
pub const LINKS_MAX: usize = 262_144;
/// Most prefixes behind one host.
pub const PREFIXES_PER_HOST_MAX: usize = 4_096;
/// Longest name of a host, in bytes.
pub const NAME_BYTES_MAX: usize = SwitchName::BYTES_MAX;

/// A switch, numbered in the order of the network's description.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SwitchIndex(pub u16);

/// A host, numbered in the order of the network's description.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HostIndex(pub u32);

/// A switch or a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Node {
    /// A switch.
    Switch(SwitchIndex),
    /// A host.
    Host(HostIndex),
}

/// Something that sends and receives: a machine, a rack, a peer network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// Unique among switches and hosts.
    pub name: String,
    /// The addresses behind it. Where prefixes of several hosts hold an address, the longest counts.
    pub prefixes: Vec<IpNet>,
    /// The switches that it is joined to.
    pub switches: Vec<SwitchIndex>,
}

/// Switches, hosts and links.
///
/// Analyses need it for all that happens between switches: losses, loops, blackholes, forwarding,
/// load balance.
///
/// ```
/// use flowradar_collector::analysis::Network;
/// let network = Network::parse(r#"{
///     "version": 1,
///     "switches": ["left", "right"],
///     "hosts": [
///         {"name": "a", "address": "10.0.0.1"},
///         {"name": "internet", "prefixes": ["0.0.0.0/0", "::/0"]}
///     ],
///     "links": [["a", "left"], ["left", "right"], ["internet", "right"]]
/// }"#)?;
/// let right = network.switch("right").expect("named above");
/// let internet = network.host_of("192.0.2.7".parse()?).expect("all addresses are somewhere");
/// assert_eq!(network.host(internet).switches, [right]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Network {
    switches: Vec<SwitchName>,
    hosts: Vec<Host>,
    /// By switch, sorted.
    neighbours: Vec<Vec<SwitchIndex>>,
    by_name: HashMap<String, Node>,
    /// By length, the longest first; IPv4 lengths count from 96.
    prefixes: Vec<(u8, HashMap<IpNet, HostIndex>)>,
}

/// Why a network's description cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NetworkError {
    /// A host without links.
    #[error("hosts: {name:?} is joined to no switch; add a link")]
    AloneHost {
        /// The host.
        name: String,
    },
    /// A link of a node with itself, or between hosts.
    #[error("links[{link}]: {from:?} to {to:?}: a link joins two switches, or a host and a switch")]
    BadLink {
        /// The link's place.
        link: usize,
        /// One end.
        from: String,
        /// The other end.
        to: String,
    },
    /// A host's name is empty or too long.
    #[error("hosts: a name has 1 to {NAME_BYTES_MAX} bytes, found {name:?}")]
    HostName {
        /// The name.
        name: String,
    },
    /// Two nodes have a name, or two hosts an address.
    #[error("{what} {name:?} is there twice")]
    Duplicate {
        /// `name` or `prefix`.
        what: &'static str,
        /// What is there twice.
        name: String,
    },
    /// A switch's name cannot stand in a flowset.
    #[error("switches: {name:?}: {reason}")]
    SwitchName {
        /// The name.
        name: String,
        /// What is wrong with it.
        reason: flowradar_core::flowset::SwitchNameError,
    },
    /// Neither JSON nor TOML, or not what a description holds.
    #[error("network: {reason}")]
    Syntax {
        /// The reader's words, with line and column.
        reason: String,
    },
    /// More of something than is taken.
    #[error("{what}: {found} of them, at most {most} are taken")]
    TooMany {
        /// `switches`, `hosts`, `links` or the prefixes of a host.
        what: String,
        /// How many there are.
        found: usize,
        /// How many there may be.
        most: usize,
    },
    /// A link names something that is not there.
    #[error("links[{link}]: there is no switch or host named {name:?}")]
    UnknownNode {
        /// The link's place.
        link: usize,
        /// The name.
        name: String,
    },
    /// Another version of the format.
    #[error("network: version {found} is not supported, only version 1 is")]
    Version {
        /// The version named.
        found: u32,
    },
}

impl SwitchIndex {
    /// The switch's place.
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

impl HostIndex {
    /// The host's place.
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

impl Network {
    /// Reads a description: JSON if the text begins with a brace, else TOML.
    ///
    /// What `flowradar simulate` writes as `topology.json` is one; unknown members are refused:
    ///
    /// | member | holds |
    /// | --- | --- |
    /// | `version` | 1 |
    /// | `switches` | array of names, as in the flowsets |
    /// | `hosts` | array of objects with `name` and the addresses behind it: `address`, `prefixes` (array), or both |
    /// | `links` | array of pairs of names: two switches, or a host and a switch; a host may have several |
    /// | `fat_tree_k` | taken and not looked at |
    ///
    /// # Errors
    /// [`NetworkError`], with the place.
    pub fn parse(text: &str) -> Result<Self, NetworkError> {
        let file: NetworkFile =
            super::parse_json_or_toml(text).map_err(|reason| NetworkError::Syntax { reason })?;
        if file.version != 1 {
            return Err(NetworkError::Version {
                found: file.version,
            });
        }
        let hosts = file.hosts.into_iter().map(|host| {
            let address = host.address.map(IpNet::from);
            let prefixes = host.prefixes.into_iter().chain(address).collect();
            (host.name, prefixes)
        });
        Self::new(file.switches, hosts.collect(), &file.links)
    }

    /// A network from its parts: names of switches, names of hosts with the prefixes behind them,
    /// pairs of names that are joined.
    ///
    /// # Errors
    /// [`NetworkError`], with the place.
    pub fn new(
        switches: Vec<String>,
        hosts: Vec<(String, Vec<IpNet>)>,
        links: &[[String; 2]],
    ) -> Result<Self, NetworkError> {
        check_count("switches", switches.len(), SWITCHES_MAX)?;
        check_count("hosts", hosts.len(), HOSTS_MAX)?;
        check_count("links", links.len(), LINKS_MAX)?;
        let mut network = Self {
            neighbours: vec![Vec::new(); switches.len()],
            switches: Vec::with_capacity(switches.len()),
            hosts: Vec::with_capacity(hosts.len()),
            by_name: HashMap::with_capacity(switches.len() + hosts.len()),
            prefixes: Vec::new(),
        };
        for name in switches {
            let switch = Node::Switch(SwitchIndex(network.switches.len() as u16));
            let checked = name.parse().map_err(|reason| NetworkError::SwitchName {
                name: name.clone(),
                reason,
            })?;
            network.switches.push(checked);
            network.name(name, switch)?;
        }
        for (name, prefixes) in hosts {
            if name.is_empty() || name.len() > NAME_BYTES_MAX {
                return Err(NetworkError::HostName { name });
            }
            check_count(
                &format!("prefixes of {name}"),
                prefixes.len(),
                PREFIXES_PER_HOST_MAX,
            )?;
            let host = HostIndex(network.hosts.len() as u32);
            network.name(name.clone(), Node::Host(host))?;
            let prefixes: Vec<IpNet> = prefixes.iter().map(IpNet::trunc).collect();
            for prefix in &prefixes {
                network.place(*prefix, host)?;
            }
            network.hosts.push(Host {
                name,
                prefixes,
                switches: Vec::new(),
            });
        }
        network
            .prefixes
            .sort_by_key(|&(length, _)| std::cmp::Reverse(length));
        network.join(links)?;
        Ok(network)
    }

    /// Names of the switches, by number.
    pub fn switches(&self) -> &[SwitchName] {
        &self.switches
    }

    /// The hosts, by number.
    pub fn hosts(&self) -> &[Host] {
        &self.hosts
    }

    /// A host.
    ///
    /// # Panics
    /// If it is not of this network.
    pub fn host(&self, host: HostIndex) -> &Host {
        &self.hosts[host.index()]
    }

    /// The switch of this name.
    pub fn switch(&self, name: &str) -> Option<SwitchIndex> {
        match self.by_name.get(name) {
            Some(&Node::Switch(switch)) => Some(switch),
            _ => None,
        }
    }

    /// The switch or host of this name.
    pub fn node(&self, name: &str) -> Option<Node> {
        self.by_name.get(name).copied()
    }

    /// The name of a switch.
    ///
    /// # Panics
    /// If it is not of this network.
    pub fn switch_name(&self, switch: SwitchIndex) -> &str {
        self.switches[switch.index()].as_str()
    }

    /// The switches joined to a switch, ascending.
    ///
    /// # Panics
    /// If it is not of this network.
    pub fn neighbours(&self, switch: SwitchIndex) -> &[SwitchIndex] {
        &self.neighbours[switch.index()]
    }

    /// Whether two switches are joined.
    pub fn joined(&self, a: SwitchIndex, b: SwitchIndex) -> bool {
        self.neighbours(a).binary_search(&b).is_ok()
    }

    /// The host with the longest prefix that holds an address.
    pub fn host_of(&self, address: IpAddr) -> Option<HostIndex> {
        let (bits, offset) = match address {
            IpAddr::V4(_) => (32, 96),
            IpAddr::V6(_) => (128, 0),
        };
        self.prefixes.iter().find_map(|(length, hosts)| {
            let length = length
                .checked_sub(offset)
                .filter(|&length| length <= bits)?;
            let prefix = IpNet::new(address, length).ok()?.trunc();
            hosts.get(&prefix).copied()
        })
    }

    /// The hosts at both ends of a flow.
    pub fn ends(&self, flow: &FiveTuple) -> (Option<HostIndex>, Option<HostIndex>) {
        (self.host_of(flow.src), self.host_of(flow.dst))
    }

    fn name(&mut self, name: String, node: Node) -> Result<(), NetworkError> {
        match self.by_name.insert(name.clone(), node) {
            None => Ok(()),
            Some(_) => Err(NetworkError::Duplicate { what: "name", name }),
        }
    }

    fn place(&mut self, prefix: IpNet, host: HostIndex) -> Result<(), NetworkError> {
        let length = match prefix {
            IpNet::V4(prefix) => prefix.prefix_len() + 96,
            IpNet::V6(prefix) => prefix.prefix_len(),
        };
        let known = self.prefixes.iter().position(|&(known, _)| known == length);
        let place = known.unwrap_or_else(|| {
            self.prefixes.push((length, HashMap::new()));
            self.prefixes.len() - 1
        });
        match self.prefixes[place].1.insert(prefix, host) {
            None => Ok(()),
            Some(_) => Err(NetworkError::Duplicate {
                what: "prefix",
                name: prefix.to_string(),
            }),
        }
    }

    fn join(&mut self, links: &[[String; 2]]) -> Result<(), NetworkError> {
        for (link, [from, to]) in links.iter().enumerate() {
            let node = |name: &String| {
                self.node(name).ok_or_else(|| NetworkError::UnknownNode {
                    link,
                    name: name.clone(),
                })
            };
            match (node(from)?, node(to)?) {
                (Node::Switch(a), Node::Switch(b)) if a != b => {
                    self.neighbours[a.index()].push(b);
                    self.neighbours[b.index()].push(a);
                }
                (Node::Host(host), Node::Switch(switch))
                | (Node::Switch(switch), Node::Host(host)) => {
                    self.hosts[host.index()].switches.push(switch);
                }
                _ => {
                    return Err(NetworkError::BadLink {
                        link,
                        from: from.clone(),
                        to: to.clone(),
                    });
                }
            }
        }
        let lists = self.neighbours.iter_mut();
        for list in lists.chain(self.hosts.iter_mut().map(|host| &mut host.switches)) {
            list.sort_unstable();
            // Parallel links are one for everything that is counted at switches.
            list.dedup();
        }
        match self.hosts.iter().find(|host| host.switches.is_empty()) {
            None => Ok(()),
            Some(host) => Err(NetworkError::AloneHost {
                name: host.name.clone(),
            }),
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NetworkFile {
    version: u32,
    #[serde(rename = "fat_tree_k")]
    _fat_tree_k: Option<u32>,
    switches: Vec<String>,
    #[serde(default)]
    hosts: Vec<HostEntry>,
    #[serde(default)]
    links: Vec<[String; 2]>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct HostEntry {
    name: String,
    address: Option<IpAddr>,
    #[serde(default)]
    prefixes: Vec<IpNet>,
}

fn check_count(what: &str, found: usize, most: usize) -> Result<(), NetworkError> {
    if found <= most {
        Ok(())
    } else {
        Err(NetworkError::TooMany {
            what: what.into(),
            found,
            most,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOML: &str = r#"
version = 1
switches = ["s1", "s2"]
links = [["s1", "s2"], ["a", "s1"], ["b", "s2"], ["b", "s1"]]

[[hosts]]
name = "a"
address = "10.0.0.1"
prefixes = ["10.1.0.0/16", "2001:db8::/32"]

[[hosts]]
name = "b"
prefixes = ["0.0.0.0/0", "10.1.2.0/24"]
"#;

    #[test]
    fn the_longest_prefix_counts() {
        let network = Network::parse(TOML).expect("is well-formed");
        let host_of = |address: &str| {
            let host = network.host_of(address.parse().expect("an address"))?;
            Some(network.host(host).name.as_str())
        };
        assert_eq!(host_of("10.0.0.1"), Some("a"));
        assert_eq!(host_of("10.1.7.1"), Some("a"));
        assert_eq!(host_of("10.1.2.3"), Some("b"));
        assert_eq!(host_of("192.0.2.1"), Some("b"));
        assert_eq!(host_of("2001:db8::1"), Some("a"));
        assert_eq!(host_of("2001:db9::1"), None);
        assert_eq!(network.host(HostIndex(1)).switches.len(), 2);
        assert!(network.joined(SwitchIndex(0), SwitchIndex(1)));
    }

    #[test]
    fn what_the_simulator_writes_is_read() {
        let topology = flowradar_sim::Topology::fat_tree(4).expect("4 is even");
        let network = Network::parse(&topology.to_json()).expect("the same format");
        assert_eq!(network.switches(), topology.switches());
        for (host, of_topology) in network.hosts().iter().zip(topology.hosts()) {
            assert_eq!(host.name, of_topology.name);
            let found = network.host_of(of_topology.address.into());
            assert_eq!(
                found.map(|found| &network.host(found).name),
                Some(&host.name)
            );
        }
    }

    #[test]
    fn errors_name_the_place() {
        let refusal = |old: &str, new: &str| {
            let text = TOML.replacen(old, new, 1);
            assert_ne!(text, TOML, "nothing replaced");
            Network::parse(&text).expect_err("must be refused")
        };
        assert_eq!(
            refusal("version = 1", "version = 2"),
            NetworkError::Version { found: 2 }
        );
        assert_eq!(
            refusal("[\"a\", \"s1\"]", "[\"a\", \"s9\"]"),
            NetworkError::UnknownNode {
                link: 1,
                name: "s9".into()
            }
        );
        assert_eq!(
            refusal("[\"a\", \"s1\"]", "[\"a\", \"b\"]"),
            NetworkError::BadLink {
                link: 1,
                from: "a".into(),
                to: "b".into()
            }
        );
        assert_eq!(
            refusal(", [\"a\", \"s1\"]", "").to_string(),
            "hosts: \"a\" is joined to no switch; add a link"
        );
        assert_eq!(
            refusal("10.1.2.0/24", "10.1.0.0/16"),
            NetworkError::Duplicate {
                what: "prefix",
                name: "10.1.0.0/16".into()
            }
        );
        assert_eq!(
            refusal("name = \"b\"", "name = \"s1\""),
            NetworkError::Duplicate {
                what: "name",
                name: "s1".into()
            }
        );
        assert!(matches!(
            refusal("version = 1", "version = 1\ncolour = 2"),
            NetworkError::Syntax { reason } if reason.contains("colour")
        ));
    }
}
