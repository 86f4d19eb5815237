//! The service without sockets.

use flowradar_p4::proto::p4::v1 as p4;
use tonic::Status;

use super::arbitration::StreamId;
use super::error::Refusal;
use super::state::State;
use crate::{Switch, Timestamp};

/// Requests in, answers out: what [`Server`](super::Server) does, without gRPC, threads and clock.
///
/// For tests, and for programs that bring messages another way. There is one controller, which is always
/// primary: requests need its election id, [`Self::ELECTION_ID`].
#[derive(Debug)]
pub struct OfflineServer {
    state: State,
    switch: Switch,
}

impl OfflineServer {
    /// The controller's election id.
    pub const ELECTION_ID: p4::Uint128 = p4::Uint128 { high: 0, low: 1 };

    /// A service for a switch that calls itself `device_id`, with no pipeline yet.
    pub fn new(switch: Switch, device_id: u64) -> Self {
        let mut state = State::new(switch.clone(), device_id);
        let election_id = Some(Self::ELECTION_ID.low.into());
        state
            .arbitration
            .update(StreamId(0), "", election_id)
            .expect("the first controller is welcome");
        Self { state, switch }
    }

    /// Answers SetForwardingPipelineConfig.
    ///
    /// # Errors
    ///
    /// If the request is refused: with the code and reason that a client would get.
    pub fn set_pipeline(
        &mut self,
        request: p4::SetForwardingPipelineConfigRequest,
    ) -> Result<(), Status> {
        self.state.set_pipeline(request)
    }

    /// Answers GetForwardingPipelineConfig.
    ///
    /// # Errors
    ///
    /// As [`Self::set_pipeline`].
    pub fn get_pipeline(
        &self,
        request: &p4::GetForwardingPipelineConfigRequest,
    ) -> Result<p4::GetForwardingPipelineConfigResponse, Status> {
        self.state.get_pipeline(request)
    }

    /// Answers Write.
    ///
    /// # Errors
    ///
    /// As [`Self::set_pipeline`]; the status of a batch has an error for each update.
    pub fn write(&mut self, request: &p4::WriteRequest, now: Timestamp) -> Result<(), Status> {
        self.state.write(request, now)
    }

    /// Answers Read.
    ///
    /// # Errors
    ///
    /// As [`Self::set_pipeline`].
    pub fn read(
        &self,
        request: &p4::ReadRequest,
        now: Timestamp,
    ) -> Result<Vec<p4::Entity>, Status> {
        self.state.read(request, now)
    }

    /// Sends a packet-out; yields whether the switch has a CPU port for it.
    ///
    /// # Errors
    ///
    /// As [`Self::set_pipeline`].
    pub fn packet_out(&self, message: p4::PacketOut, now: Timestamp) -> Result<bool, Status> {
        let frame = self.state.packet_out_frame(message);
        let frame = frame.map_err(Refusal::into_status)?;
        Ok(self.switch.packet_out(&frame, now))
    }

    /// Acknowledges a digest list.
    ///
    /// # Errors
    ///
    /// As [`Self::set_pipeline`].
    pub fn acknowledge(&self, ack: &p4::DigestListAck) -> Result<(), Status> {
        let acknowledged = self.state.acknowledge(ack);
        acknowledged.map_err(Refusal::into_status)
    }
}
