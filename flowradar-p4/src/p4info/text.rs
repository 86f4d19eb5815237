//! The protobuf text format of P4Info.

use std::sync::LazyLock;

use prost::Message;
use prost_reflect::{DescriptorPool, DynamicMessage, MessageDescriptor};

use super::P4InfoError;
use crate::proto::DESCRIPTORS;
use crate::proto::p4::config::v1::P4Info;

static P4INFO: LazyLock<MessageDescriptor> = LazyLock::new(|| {
    DescriptorPool::decode(DESCRIPTORS)
        .expect("the build script wrote the descriptors")
        .get_message_by_name("p4.config.v1.P4Info")
        .expect("p4info.proto declares it")
});

pub(super) fn parse(text: &str) -> Result<P4Info, P4InfoError> {
    let message = DynamicMessage::parse_text_format(P4INFO.clone(), text).map_err(|error| {
        P4InfoError::Text {
            reason: error.to_string(),
        }
    })?;
    P4Info::decode(message.encode_to_vec().as_slice()).map_err(|error| P4InfoError::Text {
        reason: error.to_string(),
    })
}
