//! The k-ary fat tree of Al-Fares, Loukissas and Vahdat (SIGCOMM 2008).

use std::net::Ipv4Addr;

use super::{Host, HostId, Node, SwitchId, Topology, TopologyError};

impl Topology {
    /// A k-ary fat tree: k pods of k/2 edge and k/2 aggregation switches, k²/4 core switches and
    /// k³/4 hosts.
    ///
    /// | number | switch | joined to |
    /// | --- | --- | --- |
    /// | first k²/2 | `edge-P-E` | k/2 hosts `host-P-E-H`, all `agg-P-*` |
    /// | next k²/2 | `agg-P-A` | all `edge-P-*`, `core-C` with C from A·k/2 to (A+1)·k/2 − 1 |
    /// | last k²/4 | `core-C` | `agg-P-A` of every pod, with A = C div k/2 |
    ///
    /// `host-P-E-H` has the address `10.P.E.(H+2)`, as in the paper's section 3.2.
    ///
    /// # Errors
    /// [`TopologyError::FatTreeArity`] unless k is even and from 4 to 16.
    pub fn fat_tree(k: u32) -> Result<Self, TopologyError> {
        if !(4..=16).contains(&k) || k % 2 == 1 {
            return Err(TopologyError::FatTreeArity { k });
        }
        let tree = FatTree { k };
        let half = k / 2;
        let (mut switches, mut hosts, mut links) = (Vec::new(), Vec::new(), Vec::new());
        for tier in ["edge", "agg"] {
            for pod in 0..k {
                switches.extend((0..half).map(|place| format!("{tier}-{pod}-{place}")));
            }
        }
        switches.extend((0..half * half).map(|core| format!("core-{core}")));
        for pod in 0..k {
            for edge in 0..half {
                for place in 0..half {
                    hosts.push(Host {
                        name: format!("host-{pod}-{edge}-{place}"),
                        // At most 10.15.7.9.
                        address: Ipv4Addr::new(10, pod as u8, edge as u8, place as u8 + 2),
                    });
                    links.push([
                        tree.host(pod, edge, place).into(),
                        Node::from(tree.edge(pod, edge)),
                    ]);
                }
            }
        }
        for pod in 0..k {
            for edge in 0..half {
                for aggregation in 0..half {
                    links.push([
                        tree.edge(pod, edge).into(),
                        Node::from(tree.aggregation(pod, aggregation)),
                    ]);
                }
            }
        }
        for pod in 0..k {
            for aggregation in 0..half {
                for port in 0..half {
                    links.push([
                        tree.aggregation(pod, aggregation).into(),
                        Node::from(tree.core(aggregation, port)),
                    ]);
                }
            }
        }
        let mut topology = Self::new(switches, hosts, links)?;
        topology.fat_tree_k = Some(k);
        Ok(topology)
    }

    /// The numbering, if this is a fat tree.
    pub(crate) fn as_fat_tree(&self) -> Option<FatTree> {
        self.fat_tree_k.map(|k| FatTree { k })
    }
}

/// Numbers of the nodes of a k-ary fat tree.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FatTree {
    k: u32,
}

impl FatTree {
    pub(crate) fn k(self) -> u32 {
        self.k
    }

    /// k/2: the ports of a switch that point one way.
    pub(crate) fn half(self) -> u32 {
        self.k / 2
    }

    pub(crate) fn edge(self, pod: u32, edge: u32) -> SwitchId {
        SwitchId((pod * self.half() + edge) as u16)
    }

    pub(crate) fn aggregation(self, pod: u32, aggregation: u32) -> SwitchId {
        SwitchId((self.k * self.half() + pod * self.half() + aggregation) as u16)
    }

    /// The core switch at a port of the aggregation switches of a place.
    pub(crate) fn core(self, aggregation: u32, port: u32) -> SwitchId {
        SwitchId((self.k * self.k + aggregation * self.half() + port) as u16)
    }

    pub(crate) fn host(self, pod: u32, edge: u32, place: u32) -> HostId {
        HostId((pod * self.half() + edge) * self.half() + place)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers of SIGCOMM 2008, section 2.2, and each switch with k ports.
    #[test]
    fn every_arity_has_the_right_shape() {
        for k in (4..=16).step_by(2) {
            let tree = Topology::fat_tree(k).expect("k is even and in range");
            let k_usize = k as usize;
            assert_eq!(tree.switches().len(), 5 * k_usize * k_usize / 4);
            assert_eq!(tree.hosts().len(), k_usize.pow(3) / 4);
            assert_eq!(tree.links().len(), 3 * k_usize.pow(3) / 4);
            for switch in tree.switch_ids() {
                assert_eq!(tree.ports(switch).len(), k_usize, "{}", tree.name(switch));
            }
            let numbers = tree.as_fat_tree().expect("built as one");
            assert_eq!(Some(numbers.edge(1, 1)), tree.switch("edge-1-1"));
            assert_eq!(Some(numbers.aggregation(3, 0)), tree.switch("agg-3-0"));
            assert_eq!(
                Some(numbers.core(1, 1)),
                tree.switch(&format!("core-{}", k / 2 + 1))
            );
            assert_eq!(Some(numbers.host(2, 1, 0)), tree.host("host-2-1-0"));
        }
    }

    #[test]
    fn other_arities_are_refused() {
        for k in [0, 2, 5, 18, u32::MAX] {
            assert_eq!(
                Topology::fat_tree(k),
                Err(TopologyError::FatTreeArity { k })
            );
        }
    }
}
