//! A switch of either kind with `state.p4`, a controller, and wires.

use std::error::Error;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bmv2_tests::switch::TestSwitch;
use bmv2_tests::targets::Target;
use flowradar_p4::client::{
    PipelineAction, Session, SessionOptions, SwitchNotification, SwitchTarget,
};
use flowradar_p4::entity::Entity;
use flowradar_p4::proto::google::rpc;
use flowradar_p4::proto::p4::v1 as p4;
use flowradar_p4::proto::p4::v1::p4_runtime_client::P4RuntimeClient;
use flowradar_p4::proto::p4::v1::update::Type;
use flowradar_p4::{P4Info, PipelineConfig};
use flowradar_testbed::WiredSwitch;
use prost::Message;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};

use crate::packet::Packet;

/// Ports 1 to 4.
pub(crate) const PORTS: u16 = 4;

/// How long anything may take on a machine that is busy.
const PATIENCE: Duration = Duration::from_secs(20);

/// How long to wait for what must not come, on a target that takes its time.
const SILENCE: Duration = Duration::from_millis(60);

/// A switch under test.
#[derive(Debug)]
pub(crate) struct Subject {
    pub(crate) target: Target,
    switch: TestSwitch,
    pub(crate) session: Session,
    client: P4RuntimeClient<Channel>,
    pub(crate) info: Arc<P4Info>,
}

impl Subject {
    pub(crate) async fn start(target: Target) -> Result<Self, Box<dyn Error>> {
        let switch = TestSwitch::start(target, PORTS).await?;
        let address = switch.address().to_string();
        let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../flowradar-switch/tests/programs/compiled");
        let json = std::fs::read(folder.join("state.json"))?;
        let info = std::fs::read_to_string(folder.join("state.p4info.txtpb"))?;
        let pipeline = PipelineConfig::new(&json, &info)?;
        let options = SessionOptions {
            connect_timeout: PATIENCE,
            request_timeout: PATIENCE,
            ..SessionOptions::default()
        };
        let switch_target = Arc::new(SwitchTarget::new("s1", address.clone()));
        let mut session = Session::connect(switch_target, options).await?;
        session
            .set_pipeline(PipelineAction::VerifyAndCommit, &pipeline)
            .await?;
        let channel = Endpoint::from_shared(format!("http://{address}"))?
            .connect()
            .await?;
        Ok(Self {
            target,
            switch,
            info: Arc::clone(session.info()?),
            session,
            client: P4RuntimeClient::new(channel),
        })
    }

    /// Writes one update, as it is; yields the code it is answered with.
    pub(crate) async fn write(&mut self, update: p4::Update) -> Code {
        let election_id = self.session.election_id().expect("it is primary");
        let request = p4::WriteRequest {
            device_id: 1,
            election_id: Some(p4::Uint128 {
                high: (election_id >> 64) as u64,
                low: election_id as u64,
            }),
            updates: vec![update],
            ..p4::WriteRequest::default()
        };
        match self.client.write(request).await {
            Ok(_) => Code::Ok,
            Err(status) => update_code(&status),
        }
    }

    pub(crate) async fn insert(&mut self, entity: impl Into<Entity>) -> Code {
        let update = self.update(Type::Insert, entity);
        self.write(update).await
    }

    pub(crate) async fn modify(&mut self, entity: impl Into<Entity>) -> Code {
        let update = self.update(Type::Modify, entity);
        self.write(update).await
    }

    pub(crate) async fn delete(&mut self, entity: impl Into<Entity>) -> Code {
        let update = self.update(Type::Delete, entity);
        self.write(update).await
    }

    /// An update by names; the entity must be one that the program's P4Info allows.
    pub(crate) fn update(&self, update_type: Type, entity: impl Into<Entity>) -> p4::Update {
        let entity = self.info.encode(&entity.into());
        p4::Update {
            r#type: update_type as i32,
            entity: Some(entity.expect("the test's entities are of the program")),
        }
    }

    /// What the switch has of what an entity asks for, or the code of a refusal.
    pub(crate) async fn read(&mut self, wanted: impl Into<Entity>) -> Result<Vec<Entity>, Code> {
        let wanted = self.info.encode(&wanted.into());
        self.read_message(wanted.expect("the test's entities are of the program"))
            .await
    }

    pub(crate) async fn read_message(&mut self, wanted: p4::Entity) -> Result<Vec<Entity>, Code> {
        let request = p4::ReadRequest {
            device_id: 1,
            entities: vec![wanted],
            ..p4::ReadRequest::default()
        };
        let answer = self.client.read(request).await;
        let mut answer = answer.map_err(|status| status.code())?.into_inner();
        let mut entities = Vec::new();
        while let Some(part) = answer.message().await.map_err(|status| status.code())? {
            let decoded = part.entities.iter().map(|entity| self.info.decode(entity));
            entities.extend(decoded.map(|entity| entity.expect("it is of the program")));
        }
        Ok(entities)
    }

    /// What comes out for packets on port 1: as many as expected, and whatever else comes soon.
    pub(crate) async fn send(&mut self, packets: &[Packet], expected: usize) -> Vec<(u16, Packet)> {
        for packet in packets {
            self.switch.send(1, &packet.to_bytes());
        }
        let mut frames = Vec::new();
        let deadline = Instant::now() + PATIENCE;
        let mut quiet_since = Instant::now();
        loop {
            let before = frames.len();
            self.switch.receive(&mut |port, frame| {
                frames.push((port, Packet::from_bytes(&frame)));
            });
            if frames.len() > before {
                quiet_since = Instant::now();
            }
            let is_complete = frames.len() >= expected || Instant::now() > deadline;
            let is_quiet = self.switch.is_synchronous() || quiet_since.elapsed() > SILENCE;
            if is_complete && is_quiet {
                // Copies may overtake each other on bmv2, which runs ingress and egress at once.
                frames.sort();
                return frames;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// What one packet met, which must come out once, on a port.
    pub(crate) async fn met(&mut self, packet: &Packet) -> (u16, crate::packet::Met) {
        let mut frames = self.send(std::slice::from_ref(packet), 1).await;
        assert_eq!(frames.len(), 1, "{packet:?} must come out once: {frames:?}");
        let (port, out) = frames.remove(0);
        assert_eq!(packet.having_met(out.met.clone()), out);
        (port, out.met)
    }

    /// The next list of digests.
    pub(crate) async fn digests(&mut self) -> Option<p4::DigestList> {
        let notification = tokio::time::timeout(PATIENCE, self.session.next_notification()).await;
        match notification.ok()?.ok()? {
            SwitchNotification::Digests(list) => Some(list),
            other => panic!("not a digest: {other:?}"),
        }
    }

    /// Whether nothing is heard for a while.
    pub(crate) async fn is_silent(&mut self) -> bool {
        let wait = SILENCE * 5;
        tokio::time::timeout(wait, self.session.next_notification())
            .await
            .is_err()
    }
}

/// The code of a request's only update, or of the request.
fn update_code(status: &Status) -> Code {
    let details = rpc::Status::decode(status.details()).unwrap_or_default();
    let error = details
        .details
        .first()
        .and_then(|any| p4::Error::decode(any.value.as_slice()).ok());
    error.map_or_else(
        || status.code(),
        |error| Code::from_i32(error.canonical_code),
    )
}
