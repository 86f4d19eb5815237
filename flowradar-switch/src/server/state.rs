//! What the service knows: programs, controllers, and who may do what. No I/O.

use std::collections::HashMap;
use std::sync::Arc;

use flowradar_p4::P4Info;
use flowradar_p4::proto::google::rpc::Code;
use flowradar_p4::proto::p4::v1 as p4;
use flowradar_p4::proto::p4::v1::get_forwarding_pipeline_config_request::ResponseType;
use flowradar_p4::proto::p4::v1::set_forwarding_pipeline_config_request::Action;
use flowradar_p4::proto::p4::v1::write_request::Atomicity;
use tonic::Status;

use super::arbitration::{Arbitration, WriteRefused};
use super::convert;
use super::error::{Refusal, batch_status};
use super::read::Source;
use super::write::Target;
use crate::{Pipeline, Program, Switch, Timestamp};

/// The longest frame that a packet-out may carry: a jumbo frame and some headers.
const PACKET_OUT_MAX_BYTES: usize = 16 << 10;

/// The state behind the service, to be held by one at a time.
#[derive(Debug)]
pub(super) struct State {
    pub(super) arbitration: Arbitration,
    switch: Switch,
    device_id: u64,
    committed: Option<Committed>,
    saved: Option<Saved>,
}

/// A pipeline configuration that was verified.
#[derive(Debug)]
pub(super) struct Config {
    pub(super) info: P4Info,
    message: p4::ForwardingPipelineConfig,
}

/// What runs.
#[derive(Debug)]
struct Committed {
    config: Arc<Config>,
    multicast_metadata: HashMap<u32, Vec<u8>>,
}

/// What was saved and waits to be committed: writes go to a pipeline that no packet sees yet.
#[derive(Debug)]
struct Saved {
    committed: Committed,
    pipeline: Pipeline,
}

impl State {
    pub(super) fn new(switch: Switch, device_id: u64) -> Self {
        Self {
            arbitration: Arbitration::default(),
            switch,
            device_id,
            committed: None,
            saved: None,
        }
    }

    /// The configuration that runs.
    pub(super) fn config(&self) -> Option<&Arc<Config>> {
        self.committed.as_ref().map(|committed| &committed.config)
    }

    /// Runs a program without a controller, as if one had committed it.
    pub(super) fn load(&mut self, config: p4::ForwardingPipelineConfig) -> Result<(), Refusal> {
        let (config, program) = self.verify(Some(config))?;
        self.commit(config, program);
        Ok(())
    }

    pub(super) fn check_device(&self, device_id: u64) -> Result<(), Status> {
        if device_id == self.device_id {
            return Ok(());
        }
        let own = self.device_id;
        let message = format!("there is no device {device_id}: this switch is device {own}");
        Err(Status::not_found(message))
    }

    pub(super) fn set_pipeline(
        &mut self,
        request: p4::SetForwardingPipelineConfigRequest,
    ) -> Result<(), Status> {
        self.check_device(request.device_id)?;
        self.check_primary(&request.role, request.election_id.as_ref())?;
        self.change_pipeline(request.action(), request.config)
            .map_err(Refusal::into_status)
    }

    pub(super) fn get_pipeline(
        &self,
        request: &p4::GetForwardingPipelineConfigRequest,
    ) -> Result<p4::GetForwardingPipelineConfigResponse, Status> {
        self.check_device(request.device_id)?;
        let config = self.config().map(|config| {
            let message = &config.message;
            let (with_info, with_device_config) = match request.response_type() {
                ResponseType::All => (true, true),
                ResponseType::CookieOnly => (false, false),
                ResponseType::P4infoAndCookie => (true, false),
                ResponseType::DeviceConfigAndCookie => (false, true),
            };
            p4::ForwardingPipelineConfig {
                p4info: message.p4info.as_ref().filter(|_| with_info).cloned(),
                p4_device_config: if with_device_config {
                    message.p4_device_config.clone()
                } else {
                    Vec::new()
                },
                cookie: message.cookie,
            }
        });
        Ok(p4::GetForwardingPipelineConfigResponse { config })
    }

    pub(super) fn write(
        &mut self,
        request: &p4::WriteRequest,
        now: Timestamp,
    ) -> Result<(), Status> {
        self.check_device(request.device_id)?;
        self.check_primary(&request.role, request.election_id.as_ref())?;
        if request.atomicity() != Atomicity::ContinueOnError {
            return Err(Status::unimplemented(
                "batches are continued on errors only: ROLLBACK_ON_ERROR and DATAPLANE_ATOMIC \
                 are not supported",
            ));
        }
        let outcomes = self.with_target(now, |target| {
            let updates = request.updates.iter();
            updates
                .map(|update| target.apply(update))
                .collect::<Vec<_>>()
        })?;
        if outcomes.iter().all(Result::is_ok) {
            return Ok(());
        }
        Err(batch_status(&outcomes))
    }

    pub(super) fn read(
        &self,
        request: &p4::ReadRequest,
        now: Timestamp,
    ) -> Result<Vec<p4::Entity>, Status> {
        self.check_device(request.device_id)?;
        let mut entities = Vec::new();
        let mut read = |source: &Source<'_>| {
            for wanted in &request.entities {
                source.read(wanted, &mut entities)?;
            }
            Ok::<(), Refusal>(())
        };
        let outcome = match (&self.saved, &self.committed) {
            (Some(saved), _) => read(&Source {
                info: &saved.committed.config.info,
                pipeline: &saved.pipeline,
                multicast_metadata: &saved.committed.multicast_metadata,
                now,
            }),
            (None, Some(committed)) => {
                let pipeline = self.switch.pipeline();
                let pipeline = pipeline.ok_or_else(no_pipeline)?;
                read(&Source {
                    info: &committed.config.info,
                    pipeline: &pipeline,
                    multicast_metadata: &committed.multicast_metadata,
                    now,
                })
            }
            (None, None) => return Err(no_pipeline()),
        };
        outcome.map_err(Refusal::into_status)?;
        Ok(entities)
    }

    /// The frame that a packet-out lets the CPU port receive.
    pub(super) fn packet_out_frame(&self, message: p4::PacketOut) -> Result<Vec<u8>, Refusal> {
        let no_pipeline = || Refusal::new(Code::FailedPrecondition, "there is no pipeline yet");
        let config = self.config().ok_or_else(no_pipeline)?;
        if message.payload.len() > PACKET_OUT_MAX_BYTES {
            return Err(Refusal::invalid(format!(
                "a packet of {} bytes, at most {PACKET_OUT_MAX_BYTES} are sent",
                message.payload.len()
            )));
        }
        let packet = config.info.decode_packet_out(message)?;
        let mut frame = match config.info.packet_out() {
            Some(header) => header.pack(&packet.fields),
            None => Vec::new(),
        };
        frame.extend_from_slice(&packet.payload);
        Ok(frame)
    }

    /// Acknowledges a digest list.
    pub(super) fn acknowledge(&self, ack: &p4::DigestListAck) -> Result<(), Refusal> {
        let config = self.config().map(Arc::clone);
        let config = config
            .ok_or_else(|| Refusal::new(Code::FailedPrecondition, "there is no pipeline yet"))?;
        let digest = config.info.digests().by_id(ack.digest_id);
        let digest = digest.map_err(|error| Refusal::invalid(error.to_string()))?;
        let Some(mut pipeline) = self.switch.pipeline() else {
            return Ok(());
        };
        Ok(pipeline.acknowledge_digest(&digest.preamble.name, ack.list_id)?)
    }

    fn check_primary(&self, role: &str, election_id: Option<&p4::Uint128>) -> Result<(), Status> {
        let election_id = election_id.map(number);
        self.arbitration
            .check_write(role, election_id)
            .map_err(|refused| match &refused {
                WriteRefused::UnknownRole { .. } => Status::not_found(refused.to_string()),
                WriteRefused::NotPrimary { .. } => Status::permission_denied(refused.to_string()),
            })
    }

    fn change_pipeline(
        &mut self,
        action: Action,
        config: Option<p4::ForwardingPipelineConfig>,
    ) -> Result<(), Refusal> {
        match action {
            Action::Unspecified => Err(Refusal::invalid("the request says no action")),
            Action::Verify => self.verify(config).map(|_| ()),
            Action::VerifyAndSave => {
                let (config, program) = self.verify(config)?;
                let pipeline = Pipeline::new(program, self.switch.config().pipeline);
                self.saved = Some(Saved {
                    committed: Committed::new(config),
                    pipeline,
                });
                Ok(())
            }
            Action::VerifyAndCommit => {
                let (config, program) = self.verify(config)?;
                self.commit(config, program);
                Ok(())
            }
            Action::Commit => {
                if config.is_some() {
                    return Err(Refusal::invalid(
                        "what is committed was saved: give no config",
                    ));
                }
                let saved = self.saved.take();
                let saved = saved.ok_or_else(|| Refusal::not_found("nothing was saved"))?;
                self.switch.load(Arc::clone(saved.pipeline.program()));
                if let Some(mut pipeline) = self.switch.pipeline() {
                    *pipeline = saved.pipeline;
                }
                self.committed = Some(saved.committed);
                Ok(())
            }
            Action::ReconcileAndCommit => {
                let (config, _) = self.verify(config)?;
                let Some(committed) = &mut self.committed else {
                    return Err(Refusal::new(
                        Code::FailedPrecondition,
                        "there is no pipeline to reconcile with",
                    ));
                };
                let (old, new) = (&committed.config.message, &config.message);
                if old.p4info != new.p4info || old.p4_device_config != new.p4_device_config {
                    return Err(Refusal::unimplemented(
                        "another program is only committed with empty tables: use \
                         VERIFY_AND_COMMIT, and write the entries again",
                    ));
                }
                committed.config = config;
                self.saved = None;
                Ok(())
            }
        }
    }

    fn verify(
        &self,
        config: Option<p4::ForwardingPipelineConfig>,
    ) -> Result<(Arc<Config>, Arc<Program>), Refusal> {
        let message = config.ok_or_else(|| Refusal::invalid("the request has no config"))?;
        let info = message.p4info.clone();
        let info = info.ok_or_else(|| Refusal::invalid("the config has no P4Info"))?;
        let invalid = |error: &dyn std::error::Error| Refusal::invalid(error.to_string());
        let info = P4Info::from_message(info).map_err(|error| invalid(&error))?;
        let program = Program::from_json(&message.p4_device_config);
        let program = Arc::new(program.map_err(|error| invalid(&error))?);
        let scratch = Pipeline::new(Arc::clone(&program), self.switch.config().pipeline);
        convert::check_program(&info, &scratch).map_err(|reason| {
            let advice = "give the JSON and the P4Info of one run of the compiler";
            Refusal::invalid(format!(
                "P4Info and program do not belong together: {reason}; {advice}"
            ))
        })?;
        Ok((Arc::new(Config { info, message }), program))
    }

    fn commit(&mut self, config: Arc<Config>, program: Arc<Program>) {
        self.switch.load(program);
        self.committed = Some(Committed::new(config));
        self.saved = None;
    }

    fn with_target<T>(
        &mut self,
        now: Timestamp,
        write: impl FnOnce(&mut Target<'_>) -> T,
    ) -> Result<T, Status> {
        match (&mut self.saved, &mut self.committed) {
            (Some(saved), _) => Ok(write(&mut Target {
                info: &saved.committed.config.info,
                pipeline: &mut saved.pipeline,
                multicast_metadata: &mut saved.committed.multicast_metadata,
                now,
            })),
            (None, Some(committed)) => {
                let pipeline = self.switch.pipeline();
                let mut pipeline = pipeline.ok_or_else(no_pipeline)?;
                Ok(write(&mut Target {
                    info: &committed.config.info,
                    pipeline: &mut pipeline,
                    multicast_metadata: &mut committed.multicast_metadata,
                    now,
                }))
            }
            (None, None) => Err(no_pipeline()),
        }
    }
}

impl Committed {
    fn new(config: Arc<Config>) -> Self {
        Self {
            config,
            multicast_metadata: HashMap::new(),
        }
    }
}

pub(super) fn number(id: &p4::Uint128) -> u128 {
    u128::from(id.high) << 64 | u128::from(id.low)
}

fn no_pipeline() -> Status {
    Status::failed_precondition("there is no pipeline yet: set one first")
}
