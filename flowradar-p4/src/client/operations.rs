//! Requests: pipeline, writes, reads.

use std::sync::Arc;

use super::error::update_errors;
use super::{ClientError, ClientErrorReason, Session, UpdateFailure};
use crate::entity::{CounterData, CounterEntry, Entity, RegisterEntry, TableEntry};
use crate::p4info::DataValue;
use crate::proto::p4::v1 as p4;
use crate::proto::p4::v1::entity::Entity as Message;
use crate::proto::p4::v1::get_forwarding_pipeline_config_request::ResponseType;
use crate::proto::p4::v1::set_forwarding_pipeline_config_request::Action;
use crate::proto::p4::v1::update::Type;
use crate::{P4Info, PipelineConfig};

/// What is done with a pipeline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PipelineAction {
    /// Runs what was saved.
    Commit,
    /// Runs it with the tables as they are; not every target can.
    ReconcileAndCommit,
    /// Only says whether it could be run.
    Verify,
    /// Runs it with empty tables.
    VerifyAndCommit,
    /// Keeps it to be run later; not every target can.
    VerifyAndSave,
}

/// What was needed to let a switch run a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PipelineOutcome {
    /// It was set, and the tables are empty.
    Committed,
    /// It ran already; the tables are as they were.
    Kept,
}

/// A change of one entity.
#[derive(Clone, Debug, PartialEq)]
pub enum Update {
    /// Removes it; only what identifies it matters.
    Delete(Entity),
    /// Adds it.
    Insert(Entity),
    /// Replaces it.
    Modify(Entity),
}

impl Session {
    /// The version of P4Runtime that the switch speaks.
    ///
    /// # Errors
    ///
    /// If the switch does not answer, or refuses.
    pub async fn api_version(&self) -> Result<String, ClientError> {
        const OPERATION: &str = "asking for capabilities";
        let request = p4::CapabilitiesRequest { device_id: 0 };
        let answer = self
            .request(OPERATION, request, |mut client, request| async move {
                client.capabilities(request).await
            })
            .await?;
        let answer = answer.map_err(|status| self.refused(OPERATION, &status))?;
        Ok(answer.into_inner().p4runtime_api_version)
    }

    /// Verifies, saves or runs a program. Needs to be primary.
    ///
    /// # Errors
    ///
    /// If this controller is not primary, the switch refuses the program or does not answer.
    pub async fn set_pipeline(
        &mut self,
        action: PipelineAction,
        pipeline: &PipelineConfig,
    ) -> Result<(), ClientError> {
        const OPERATION: &str = "setting the pipeline";
        self.check_primary()?;
        let config = (action != PipelineAction::Commit).then(|| pipeline.message());
        let request = p4::SetForwardingPipelineConfigRequest {
            device_id: self.target().device_id,
            election_id: self.election_message(),
            role: self.role(),
            action: action.message() as i32,
            config,
            ..p4::SetForwardingPipelineConfigRequest::default()
        };
        let answer = self
            .request(OPERATION, request, |mut client, request| async move {
                client.set_forwarding_pipeline_config(request).await
            })
            .await?;
        answer.map_err(|status| self.refused(OPERATION, &status))?;
        if action != PipelineAction::Verify {
            self.set_info(Arc::clone(pipeline.info()));
        }
        Ok(())
    }

    /// The cookie of the program that the switch runs; none if it runs none, or was not told one.
    ///
    /// # Errors
    ///
    /// If the switch does not answer, or refuses.
    pub async fn pipeline_cookie(&self) -> Result<Option<u64>, ClientError> {
        let config = self.get_pipeline(ResponseType::CookieOnly).await?;
        Ok(config
            .and_then(|config| config.cookie)
            .map(|cookie| cookie.cookie))
    }

    /// Asks the switch for its program's P4Info, and uses it from now on.
    ///
    /// # Errors
    ///
    /// If it runs none, its P4Info cannot be used, or it does not answer.
    pub async fn fetch_info(&mut self) -> Result<Arc<P4Info>, ClientError> {
        let config = self.get_pipeline(ResponseType::P4infoAndCookie).await?;
        let message = config.and_then(|config| config.p4info);
        let message = message.ok_or_else(|| self.error(ClientErrorReason::NoPipeline))?;
        let info = P4Info::from_message(message).map_err(|error| self.error(error))?;
        let info = Arc::new(info);
        self.set_info(Arc::clone(&info));
        Ok(info)
    }

    /// Lets the switch run this program, without touching it if it does already (by its cookie).
    ///
    /// # Errors
    ///
    /// If this controller is not primary, the switch refuses the program or does not answer.
    pub async fn ensure_pipeline(
        &mut self,
        pipeline: &PipelineConfig,
    ) -> Result<PipelineOutcome, ClientError> {
        if self.pipeline_cookie().await? == Some(pipeline.cookie()) {
            self.set_info(Arc::clone(pipeline.info()));
            return Ok(PipelineOutcome::Kept);
        }
        self.set_pipeline(PipelineAction::VerifyAndCommit, pipeline)
            .await?;
        Ok(PipelineOutcome::Committed)
    }

    /// Changes entities, in batches. All are tried.
    ///
    /// # Errors
    ///
    /// If this controller is not primary, an entity contradicts the program, the switch does not answer, or
    /// updates failed; which, and why, is said for each.
    pub async fn write(&self, updates: &[Update]) -> Result<(), ClientError> {
        self.check_primary()?;
        let info = self.info()?;
        let messages = updates.iter().map(|update| {
            let message = update.message(info);
            message.map_err(|error| self.error(error))
        });
        let messages: Vec<p4::Update> = messages.collect::<Result<_, _>>()?;
        let mut failures = Vec::new();
        let batch = self.options().batch_max_updates.max(1);
        for (number, messages) in messages.chunks(batch).enumerate() {
            let first = number * batch;
            let errors = self.write_batch(messages).await?;
            for (offset, error) in errors.into_iter().enumerate() {
                let code = tonic::Code::from_i32(error.canonical_code);
                if code != tonic::Code::Ok {
                    let position = first + offset;
                    let update = updates.get(position);
                    failures.push(UpdateFailure {
                        position,
                        update: update.map(Update::describe).unwrap_or_default(),
                        code,
                        message: error.message,
                    });
                }
            }
        }
        if failures.is_empty() {
            return Ok(());
        }
        let total = updates.len();
        Err(self.error(ClientErrorReason::Updates { total, failures }))
    }

    /// Reads entities; ids and indices that are left out of a request mean all of them.
    ///
    /// # Errors
    ///
    /// If the switch refuses, does not answer, or answers what contradicts the program.
    pub async fn read(&self, wanted: Vec<p4::Entity>) -> Result<Vec<Entity>, ClientError> {
        let info = self.info()?;
        let entities = self.read_messages(wanted).await?;
        let decoded = entities.iter().map(|entity| info.decode(entity));
        let decoded: Result<Vec<Entity>, _> = decoded.collect();
        decoded.map_err(|error| self.error(error))
    }

    /// The entries of a table, or of all tables; with counters and meters, if they have any.
    ///
    /// # Errors
    ///
    /// If there is no such table, or as for [`Self::read`].
    pub async fn read_table(&self, table: Option<&str>) -> Result<Vec<TableEntry>, ClientError> {
        let info = self.info()?;
        let mut request = p4::TableEntry::default();
        if let Some(name) = table {
            let table = info.tables().by_name(name);
            let table = table.map_err(|error| self.lookup_error(error))?;
            request.table_id = table.preamble.id;
            request.counter_data = table.direct_counter.map(|_| p4::CounterData::default());
            request.meter_config = table.direct_meter.map(|_| p4::MeterConfig::default());
        }
        let entities = self
            .read(vec![entity(Message::TableEntry(request))])
            .await?;
        Ok(entities
            .into_iter()
            .filter_map(|entity| match entity {
                Entity::Table(entry) => Some(entry),
                _ => None,
            })
            .collect())
    }

    /// The cells of an indirect counter, by index.
    ///
    /// # Errors
    ///
    /// If there is no such counter, or as for [`Self::read`].
    pub async fn read_counter(
        &self,
        counter: &str,
    ) -> Result<Vec<(u64, CounterData)>, ClientError> {
        let request = self.info()?.encode(&Entity::Counter(CounterEntry {
            counter: counter.into(),
            index: None,
            data: None,
        }));
        let request = request.map_err(|error| self.error(error))?;
        let entities = self.read(vec![request]).await?;
        let mut cells: Vec<(u64, CounterData)> = entities
            .into_iter()
            .filter_map(|entity| match entity {
                Entity::Counter(entry) => Some((entry.index?, entry.data.unwrap_or_default())),
                _ => None,
            })
            .collect();
        cells.sort_unstable_by_key(|(index, _)| *index);
        Ok(cells)
    }

    /// The cells of a register, by index; not every target can.
    ///
    /// # Errors
    ///
    /// If there is no such register, or as for [`Self::read`].
    pub async fn read_register(
        &self,
        register: &str,
    ) -> Result<Vec<(u64, DataValue)>, ClientError> {
        let request = self.info()?.encode(&Entity::Register(RegisterEntry {
            register: register.into(),
            index: None,
            data: None,
        }));
        let request = request.map_err(|error| self.error(error))?;
        let entities = self.read(vec![request]).await?;
        let mut cells: Vec<(u64, DataValue)> = entities
            .into_iter()
            .filter_map(|entity| match entity {
                Entity::Register(entry) => Some((entry.index?, entry.data?)),
                _ => None,
            })
            .collect();
        cells.sort_unstable_by_key(|(index, _)| *index);
        Ok(cells)
    }

    async fn write_batch(&self, updates: &[p4::Update]) -> Result<Vec<p4::Error>, ClientError> {
        const OPERATION: &str = "writing";
        let request = p4::WriteRequest {
            device_id: self.target().device_id,
            election_id: self.election_message(),
            role: self.role(),
            updates: updates.to_vec(),
            ..p4::WriteRequest::default()
        };
        let answer = self
            .request(OPERATION, request, |mut client, request| async move {
                client.write(request).await
            })
            .await?;
        match answer {
            Ok(_) => Ok(Vec::new()),
            Err(status) => {
                // One error for each update, or the whole batch was refused.
                let errors = update_errors(&status);
                let errors = errors.filter(|errors| errors.len() == updates.len());
                errors.ok_or_else(|| self.refused(OPERATION, &status))
            }
        }
    }

    async fn read_messages(&self, wanted: Vec<p4::Entity>) -> Result<Vec<p4::Entity>, ClientError> {
        const OPERATION: &str = "reading";
        let request = p4::ReadRequest {
            device_id: self.target().device_id,
            entities: wanted,
            role: self.role(),
        };
        let answer = self
            .request(OPERATION, request, |mut client, request| async move {
                let mut responses = client.read(request).await?.into_inner();
                let mut entities = Vec::new();
                while let Some(response) = responses.message().await? {
                    entities.extend(response.entities);
                }
                Ok(entities)
            })
            .await?;
        answer.map_err(|status| self.refused(OPERATION, &status))
    }

    async fn get_pipeline(
        &self,
        response_type: ResponseType,
    ) -> Result<Option<p4::ForwardingPipelineConfig>, ClientError> {
        const OPERATION: &str = "asking for the pipeline";
        let request = p4::GetForwardingPipelineConfigRequest {
            device_id: self.target().device_id,
            response_type: response_type as i32,
        };
        let answer = self
            .request(OPERATION, request, |mut client, request| async move {
                client.get_forwarding_pipeline_config(request).await
            })
            .await?;
        match answer {
            Ok(response) => Ok(response.into_inner().config),
            // bmv2 without a program refuses instead of leaving the config out.
            Err(status) if status.code() == tonic::Code::FailedPrecondition => Ok(None),
            Err(status) => Err(self.refused(OPERATION, &status)),
        }
    }

    fn election_message(&self) -> Option<p4::Uint128> {
        self.election_id().map(super::stream::election_message)
    }

    fn role(&self) -> String {
        self.options().role.clone().unwrap_or_default()
    }

    fn lookup_error(&self, error: crate::p4info::LookupError) -> ClientError {
        self.error(crate::entity::EntityError::from(error))
    }
}

impl PipelineAction {
    fn message(self) -> Action {
        match self {
            Self::Commit => Action::Commit,
            Self::ReconcileAndCommit => Action::ReconcileAndCommit,
            Self::Verify => Action::Verify,
            Self::VerifyAndCommit => Action::VerifyAndCommit,
            Self::VerifyAndSave => Action::VerifyAndSave,
        }
    }
}

impl Update {
    /// What is changed.
    pub fn entity(&self) -> &Entity {
        match self {
            Self::Delete(entity) | Self::Insert(entity) | Self::Modify(entity) => entity,
        }
    }

    fn message(&self, info: &P4Info) -> Result<p4::Update, crate::entity::EntityError> {
        let update_type = match self {
            Self::Delete(_) => Type::Delete,
            Self::Insert(_) => Type::Insert,
            Self::Modify(_) => Type::Modify,
        };
        Ok(p4::Update {
            r#type: update_type as i32,
            entity: Some(info.encode(self.entity())?),
        })
    }

    fn describe(&self) -> String {
        let verb = match self {
            Self::Delete(_) => "delete",
            Self::Insert(_) => "insert",
            Self::Modify(_) => "modify",
        };
        format!("{verb} {}", self.entity())
    }
}

fn entity(message: Message) -> p4::Entity {
    p4::Entity {
        entity: Some(message),
    }
}
