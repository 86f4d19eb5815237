//! Topologies as JSON text.

use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

use super::{
    HOSTS_MAX, Host, SWITCHES_MAX, Topology, TopologyError, check_count, index_names, switch_names,
};

impl Topology {
    /// Reads a topology.
    ///
    /// A JSON object; unknown members are refused:
    ///
    /// | member | holds |
    /// | --- | --- |
    /// | `version` | 1 |
    /// | `switches` | array of names, numbered in this order |
    /// | `hosts` | array of objects with `name` and, if wished, `address` (IPv4; else the first free one from 10.0.0.1 on) |
    /// | `links` | array of pairs of names: two switches, or a host and a switch; a host may have several links |
    /// | `fat_tree_k` | if wished: says that this is the k-ary fat tree of [`Topology::fat_tree`]; checked |
    ///
    /// ```
    /// let network = flowradar_sim::Topology::from_json(r#"{
    ///     "version": 1,
    ///     "switches": ["left", "right"],
    ///     "hosts": [{"name": "a"}, {"name": "b", "address": "192.0.2.7"}],
    ///     "links": [["a", "left"], ["left", "right"], ["b", "right"]]
    /// }"#)?;
    /// assert_eq!(network.hosts()[0].address.to_string(), "10.0.0.1");
    /// # Ok::<(), flowradar_sim::TopologyError>(())
    /// ```
    ///
    /// # Errors
    /// [`TopologyError`], with line and column, or with the place such as `links[3]`.
    pub fn from_json(text: &str) -> Result<Self, TopologyError> {
        let file: TopologyFile =
            serde_json::from_str(text).map_err(|error| TopologyError::Json {
                line: error.line(),
                column: error.column(),
                reason: without_place(&error),
            })?;
        if file.version != 1 {
            return Err(TopologyError::Version {
                found: file.version,
            });
        }
        check_count("switches", file.switches.len(), SWITCHES_MAX)?;
        check_count("hosts", file.hosts.len(), HOSTS_MAX)?;
        let hosts = with_addresses(file.hosts);
        let numbers = index_names(&switch_names(&file.switches)?, &hosts)?;
        let mut links = Vec::with_capacity(file.links.len());
        for (link, ends) in file.links.iter().enumerate() {
            let number = |name: &String| {
                let unknown = || TopologyError::UnknownNode {
                    link,
                    name: name.clone(),
                };
                numbers.get(name).copied().ok_or_else(unknown)
            };
            links.push([number(&ends[0])?, number(&ends[1])?]);
        }
        let topology = Self::new(file.switches, hosts, links)?;
        let Some(k) = file.fat_tree_k else {
            return Ok(topology);
        };
        let tree = Self::fat_tree(k)?;
        let same = tree.switches == topology.switches
            && tree.hosts == topology.hosts
            && tree.links == topology.links;
        if same {
            Ok(tree)
        } else {
            Err(TopologyError::NotThatFatTree { k })
        }
    }

    /// The topology as text that [`Topology::from_json`] reads, with a line for each host and link.
    pub fn to_json(&self) -> String {
        let quote = |text: &str| serde_json::Value::from(text).to_string();
        let switches = self.switches.iter().map(|name| quote(name.as_str()));
        let hosts = self.hosts.iter().map(|host| {
            format!(
                "{{\"name\": {}, \"address\": \"{}\"}}",
                quote(&host.name),
                host.address
            )
        });
        let links = self
            .links
            .iter()
            .map(|&[a, b]| format!("[{}, {}]", quote(self.name(a)), quote(self.name(b))));
        let fat_tree = self
            .fat_tree_k
            .map_or_else(String::new, |k| format!("  \"fat_tree_k\": {k},\n"));
        format!(
            "{{\n  \"version\": 1,\n{fat_tree}  \"switches\": {},\n  \"hosts\": {},\n  \"links\": {}\n}}\n",
            array(switches),
            array(hosts),
            array(links)
        )
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TopologyFile {
    version: u32,
    fat_tree_k: Option<u32>,
    switches: Vec<String>,
    hosts: Vec<HostEntry>,
    links: Vec<[String; 2]>,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct HostEntry {
    name: String,
    address: Option<Ipv4Addr>,
}

fn array(items: impl Iterator<Item = String>) -> String {
    let lines: Vec<String> = items.map(|item| format!("    {item}")).collect();
    format!("[\n{}\n  ]", lines.join(",\n"))
}

fn with_addresses(entries: Vec<HostEntry>) -> Vec<Host> {
    let taken: std::collections::HashSet<Ipv4Addr> =
        entries.iter().filter_map(|entry| entry.address).collect();
    // 10.0.0.0/8 has 256 times as many addresses as there may be hosts.
    let first = Ipv4Addr::new(10, 0, 0, 1).to_bits();
    let mut free = (first..)
        .map(Ipv4Addr::from_bits)
        .filter(|address| !taken.contains(address));
    entries
        .into_iter()
        .map(|entry| Host {
            name: entry.name,
            address: entry
                .address
                .or_else(|| free.next())
                .expect("there are more addresses than hosts"),
        })
        .collect()
}

/// The reader's message without its " at line 1 column 2", which the error says itself.
fn without_place(error: &serde_json::Error) -> String {
    let message = error.to_string();
    match message.rfind(" at line ") {
        Some(end) => message[..end].to_owned(),
        None => message,
    }
}

#[cfg(test)]
mod tests {
    use flowradar_core::flowset::SwitchNameError;

    use super::*;

    const TRIANGLE: &str = r#"{
  "version": 1,
  "switches": ["s0", "s1", "s2"],
  "hosts": [{"name": "h0"}, {"name": "h1", "address": "10.0.0.1"}],
  "links": [["s0", "s1"], ["s1", "s2"], ["s2", "s0"], ["h0", "s0"], ["s2", "h1"]]
}"#;

    fn refusal(old: &str, new: &str) -> TopologyError {
        let text = TRIANGLE.replace(old, new);
        assert_ne!(text, TRIANGLE, "nothing replaced");
        Topology::from_json(&text).expect_err("must be refused")
    }

    #[test]
    fn round_trips() {
        for topology in [
            Topology::from_json(TRIANGLE).expect("is well-formed"),
            Topology::fat_tree(4).expect("4 is even"),
        ] {
            assert_eq!(Topology::from_json(&topology.to_json()), Ok(topology));
        }
    }

    #[test]
    fn free_addresses_avoid_given_ones() {
        let topology = Topology::from_json(TRIANGLE).expect("is well-formed");
        assert_eq!(topology.hosts()[0].address, Ipv4Addr::new(10, 0, 0, 2));
    }

    #[test]
    fn syntax_errors_have_a_line_and_a_column() {
        let error = refusal("\"s2\"],\n", "\"s2\"]\n");
        assert!(
            matches!(&error, TopologyError::Json { line: 4, .. }),
            "{error}"
        );
        let error = refusal("\"version\": 1,", "\"version\": 1, \"colour\": 2,");
        assert!(
            error.to_string().contains("unknown field `colour`"),
            "{error}"
        );
        assert!(error.to_string().contains("line 2"), "{error}");
    }

    #[test]
    fn errors_name_the_place() {
        assert_eq!(
            refusal("[\"s1\", \"s2\"]", "[\"s1\", \"s9\"]"),
            TopologyError::UnknownNode {
                link: 1,
                name: "s9".into()
            }
        );
        assert_eq!(
            refusal("[\"s1\", \"s2\"]", "[\"s1\", \"s0\"]"),
            TopologyError::DuplicateLink { link: 1, first: 0 }
        );
        assert_eq!(
            refusal("[\"s1\", \"s2\"]", "[\"h1\", \"h0\"]"),
            TopologyError::BadLink {
                link: 1,
                from: "h1".into(),
                to: "h0".into()
            }
        );
        assert_eq!(
            refusal("\"name\": \"h0\"", "\"name\": \"s1\""),
            TopologyError::DuplicateName {
                place: "hosts[0]".into(),
                name: "s1".into()
            }
        );
        assert_eq!(
            refusal(
                "{\"name\": \"h0\"}",
                "{\"name\": \"h0\", \"address\": \"10.0.0.1\"}"
            ),
            TopologyError::DuplicateAddress {
                place: "hosts[1]".into(),
                address: Ipv4Addr::new(10, 0, 0, 1)
            }
        );
        assert_eq!(
            refusal(", [\"s2\", \"h1\"]", ""),
            TopologyError::Disconnected {
                name: "h1".into(),
                root: "s0".into()
            }
        );
        assert_eq!(
            refusal("\"s2\"],\n", "\"s2\", \"\"],\n"),
            TopologyError::SwitchName {
                place: "switches[3]".into(),
                reason: SwitchNameError::Length(0)
            }
        );
        assert_eq!(
            refusal("\"version\": 1,", "\"version\": 1, \"fat_tree_k\": 4,"),
            TopologyError::NotThatFatTree { k: 4 }
        );
        assert_eq!(
            refusal("\"version\": 1,", "\"version\": 2,"),
            TopologyError::Version { found: 2 }
        );
    }

    /// Texts with a few bytes changed are read or refused, but never panic; what is read can be
    /// routed.
    #[test]
    fn damaged_texts_do_no_harm() {
        let mut stream = crate::random::Seed(3).stream(crate::random::Purpose::FaultPlan, 0, 0);
        let mut read = 0;
        for _ in 0..20_000 {
            let mut text = TRIANGLE.as_bytes().to_vec();
            for _ in 0..=stream.below(3) {
                let place = stream.below(text.len() as u64) as usize;
                text[place] = b"\"0123456789hs[]{},:. \\x"[stream.below(23) as usize];
            }
            let text = String::from_utf8(text).expect("all is ASCII");
            if let Ok(topology) = Topology::from_json(&text) {
                read += 1;
                let routing = crate::routing::Routing::new(&topology);
                assert!(routing.is_ok_and(|routing| routing.mean_path_switches() >= 1.0));
            }
        }
        assert!(read > 100, "the test reaches topologies: {read}");
    }

    /// A host with two links does not join what is otherwise apart: hosts do not forward.
    #[test]
    fn hosts_do_not_forward() {
        let text = r#"{"version": 1, "switches": ["s", "t"], "hosts": [{"name": "a"}, {"name": "b"}],
            "links": [["a", "s"], ["a", "t"], ["b", "s"]]}"#;
        assert_eq!(
            Topology::from_json(text),
            Err(TopologyError::Disconnected {
                name: "t".into(),
                root: "s".into()
            })
        );
    }
}
