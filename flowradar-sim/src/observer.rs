//! What drives a measurement at every switch.

use flowradar_core::FlowKeyV4;

use crate::topology::SwitchId;

/// Something that counts packets at switches: a FlowRadar encoder for each, an exact counter, …
pub trait PacketObserver {
    /// A switch sees a packet of `ip_bytes` bytes (IP header and payload) in an epoch.
    fn packet(&mut self, switch: SwitchId, epoch: u64, key: &FlowKeyV4, ip_bytes: u32);

    /// A switch sees so many packets of one flow and size in an epoch, at least one.
    ///
    /// Does what that many calls of [`PacketObserver::packet`] do, which is what it does unless
    /// overridden.
    fn packets(
        &mut self,
        switch: SwitchId,
        epoch: u64,
        key: &FlowKeyV4,
        ip_bytes: u32,
        count: u64,
    ) {
        for _ in 0..count {
            self.packet(switch, epoch, key, ip_bytes);
        }
    }
}

impl<O: PacketObserver + ?Sized> PacketObserver for &mut O {
    fn packet(&mut self, switch: SwitchId, epoch: u64, key: &FlowKeyV4, ip_bytes: u32) {
        (**self).packet(switch, epoch, key, ip_bytes);
    }

    fn packets(
        &mut self,
        switch: SwitchId,
        epoch: u64,
        key: &FlowKeyV4,
        ip_bytes: u32,
        count: u64,
    ) {
        (**self).packets(switch, epoch, key, ip_bytes, count);
    }
}
