//! Errors as P4Runtime reports them.

use flowradar_p4::entity::EntityError;
use flowradar_p4::proto::google::rpc;
use flowradar_p4::proto::google::rpc::Code;
use flowradar_p4::proto::p4::v1 as p4;
use prost::Message;
use tonic::Status;

use crate::runtime::{
    ArrayError, DigestError, ProfileError, ReplicationError, TableError, ValueSetError,
};

/// Details beyond this do not fit the metadata that gRPC clients accept by default (8 KiB, encoded as
/// base64); messages are left out then, codes stay.
const DETAILS_MAX_BYTES: usize = 4096;

/// Why an update or a read is refused: a code of gRPC with a reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) code: Code,
    pub(super) message: String,
}

impl Refusal {
    pub(super) fn new(code: Code, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
        }
    }

    pub(super) fn invalid(message: impl Into<String>) -> Self {
        Self::new(Code::InvalidArgument, message)
    }

    pub(super) fn not_found(message: impl Into<String>) -> Self {
        Self::new(Code::NotFound, message)
    }

    pub(super) fn unimplemented(message: impl Into<String>) -> Self {
        Self::new(Code::Unimplemented, message)
    }

    pub(super) fn into_status(self) -> Status {
        Status::new(tonic::Code::from_i32(self.code as i32), self.message)
    }
}

/// The status of a batch of which something failed: one `p4.v1.Error` an update, in their order.
pub(super) fn batch_status(outcomes: &[Result<(), Refusal>]) -> Status {
    let failed = outcomes.iter().filter(|outcome| outcome.is_err()).count();
    let message = format!("{failed} of {} updates failed", outcomes.len());
    let errors = |with_messages: bool| -> Vec<p4::Error> {
        let error = |outcome: &Result<(), Refusal>| match outcome {
            Ok(()) => p4::Error::default(),
            Err(refusal) => p4::Error {
                canonical_code: refusal.code as i32,
                message: if with_messages {
                    refusal.message.clone()
                } else {
                    String::new()
                },
                ..p4::Error::default()
            },
        };
        outcomes.iter().map(error).collect()
    };
    let mut errors_sent = errors(true);
    let encoded_bytes =
        |errors: &[p4::Error]| errors.iter().map(|error| error.encoded_len() + 40).sum();
    let length: usize = encoded_bytes(&errors_sent);
    if length > DETAILS_MAX_BYTES {
        errors_sent = errors(false);
    }
    let details = rpc::Status {
        code: Code::Unknown as i32,
        message: message.clone(),
        details: errors_sent
            .iter()
            .map(|error| prost_types::Any {
                type_url: "type.googleapis.com/p4.v1.Error".into(),
                value: error.encode_to_vec(),
            })
            .collect(),
    };
    Status::with_details(
        tonic::Code::Unknown,
        message,
        details.encode_to_vec().into(),
    )
}

impl From<EntityError> for Refusal {
    fn from(error: EntityError) -> Self {
        Self::new(error.code(), error.to_string())
    }
}

impl From<TableError> for Refusal {
    fn from(error: TableError) -> Self {
        let code = match &error {
            TableError::Constant { .. } => Code::PermissionDenied,
            TableError::EntryExists { .. } => Code::AlreadyExists,
            TableError::EntryUnknown { .. }
            | TableError::GroupUnknown { .. }
            | TableError::MemberUnknown { .. }
            | TableError::TableUnknown { .. } => Code::NotFound,
            TableError::Full { .. } => Code::ResourceExhausted,
            TableError::ActionUnknown { .. }
            | TableError::ArgumentCount { .. }
            | TableError::ArgumentWidth { .. }
            | TableError::Implementation { .. }
            | TableError::Match { .. }
            | TableError::MatchCount { .. }
            | TableError::MetadataTooLong { .. }
            | TableError::NoDirect { .. }
            | TableError::OneShot { .. }
            | TableError::Priority { .. }
            | TableError::TimeoutUnsupported { .. } => Code::InvalidArgument,
        };
        Self::new(code, error.to_string())
    }
}

impl From<ProfileError> for Refusal {
    fn from(error: ProfileError) -> Self {
        let code = match &error {
            ProfileError::Exists { .. } => Code::AlreadyExists,
            ProfileError::Full { .. } => Code::ResourceExhausted,
            ProfileError::InUse { .. } => Code::FailedPrecondition,
            ProfileError::ProfileUnknown { .. } | ProfileError::Unknown { .. } => Code::NotFound,
            ProfileError::ActionUnknown { .. }
            | ProfileError::Arguments { .. }
            | ProfileError::GroupMember { .. }
            | ProfileError::NoSelector { .. } => Code::InvalidArgument,
        };
        Self::new(code, error.to_string())
    }
}

impl From<ArrayError> for Refusal {
    fn from(error: ArrayError) -> Self {
        let code = match &error {
            ArrayError::OutOfRange { .. } => Code::OutOfRange,
            ArrayError::Unknown { .. } => Code::NotFound,
            ArrayError::MeterRates { .. } | ArrayError::Width { .. } => Code::InvalidArgument,
        };
        Self::new(code, error.to_string())
    }
}

impl From<ReplicationError> for Refusal {
    fn from(error: ReplicationError) -> Self {
        let code = match &error {
            ReplicationError::Exists { .. } => Code::AlreadyExists,
            ReplicationError::Full { .. } => Code::ResourceExhausted,
            ReplicationError::Unknown { .. } => Code::NotFound,
            ReplicationError::IdRange { .. } | ReplicationError::ReplicaTwice { .. } => {
                Code::InvalidArgument
            }
        };
        Self::new(code, error.to_string())
    }
}

impl From<DigestError> for Refusal {
    fn from(error: DigestError) -> Self {
        let code = match &error {
            DigestError::Exists { .. } => Code::AlreadyExists,
            DigestError::NotConfigured { .. } | DigestError::Unknown { .. } => Code::NotFound,
        };
        Self::new(code, error.to_string())
    }
}

impl From<ValueSetError> for Refusal {
    fn from(error: ValueSetError) -> Self {
        let code = match &error {
            ValueSetError::Full { .. } => Code::ResourceExhausted,
            ValueSetError::Unknown { .. } => Code::NotFound,
            ValueSetError::Width { .. } => Code::InvalidArgument,
        };
        Self::new(code, error.to_string())
    }
}
