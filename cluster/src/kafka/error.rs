//! What can go wrong, in words that tell the caller what to do.

use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};

/// A client could not be made. Nothing here goes away by itself.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SetupError {
    /// A property is unknown, has a value that it cannot have, or is not for setting.
    #[error("Kafka property {name}: {why}")]
    Property {
        /// The property's name.
        name: String,
        /// What is wrong with it.
        why: String,
    },
    /// The client refuses what it is told as a whole.
    #[error("Kafka client: {0}")]
    Client(String),
}

impl From<KafkaError> for SetupError {
    fn from(error: KafkaError) -> SetupError {
        match error {
            // The value stays out of the text: it may be a password.
            KafkaError::ClientConfig(_, why, name, _) => SetupError::Property { name, why },
            KafkaError::ClientCreation(why) => SetupError::Client(why),
            other => SetupError::Client(other.to_string()),
        }
    }
}

/// A record was not taken; its delivery callback will not be called.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// The queue is at its bound: temporary, say BUSY to whoever asked.
    #[error("the producer's queue is full")]
    QueueFull,
    /// The record is larger than `message.max.bytes`.
    #[error("the record is larger than Kafka may take")]
    TooLarge,
    /// The topic or the partition does not exist, as far as is known.
    #[error("unknown topic or partition")]
    UnknownTopic,
    /// Something else, told in librdkafka's words.
    #[error("{0}")]
    Other(String),
}

impl From<&KafkaError> for SendError {
    fn from(error: &KafkaError) -> SendError {
        match error.rdkafka_error_code() {
            Some(Code::QueueFull) => SendError::QueueFull,
            Some(Code::MessageSizeTooLarge | Code::InvalidMessageSize) => SendError::TooLarge,
            Some(code) if is_unknown_topic(code) => SendError::UnknownTopic,
            _ => SendError::Other(error.to_string()),
        }
    }
}

/// A record that was taken has not been delivered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DeliveryError {
    /// Not acknowledged within `message_timeout_ms`; it may still be in the topic.
    #[error("not acknowledged in time")]
    TimedOut,
    /// The topic or the partition does not exist.
    #[error("unknown topic or partition")]
    UnknownTopic,
    /// The broker takes no record of this size.
    #[error("the record is larger than the broker takes")]
    TooLarge,
    /// The producer was dropped before the record was sent or acknowledged.
    #[error("the producer was closed")]
    Closed,
    /// Something else, told in librdkafka's words.
    #[error("{0}")]
    Other(String),
}

impl From<&KafkaError> for DeliveryError {
    fn from(error: &KafkaError) -> DeliveryError {
        match error.rdkafka_error_code() {
            Some(Code::MessageTimedOut | Code::OperationTimedOut | Code::RequestTimedOut) => {
                DeliveryError::TimedOut
            }
            Some(Code::MessageSizeTooLarge | Code::InvalidMessageSize) => DeliveryError::TooLarge,
            Some(Code::PurgeQueue | Code::PurgeInflight) => DeliveryError::Closed,
            Some(code) if is_unknown_topic(code) => DeliveryError::UnknownTopic,
            _ => DeliveryError::Other(error.to_string()),
        }
    }
}

/// Polling or committing went wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConsumeError {
    /// A topic that was asked for does not exist; polling goes on and finds it once it does.
    #[error("a subscribed topic or partition does not exist")]
    UnknownTopic,
    /// The partitions belong to somebody else by now: whoever has them reads the records again.
    #[error("the partitions were given to another consumer")]
    Fenced,
    /// The broker did not answer in time; what was committed is not known.
    #[error("Kafka does not answer: {0}")]
    Unavailable(String),
    /// This consumer is of no use any more: drop it, make another.
    #[error("fatal error of the consumer: {0}")]
    Fatal(String),
    /// Something else, told in librdkafka's words; polling may go on.
    #[error("{0}")]
    Other(String),
}

impl From<&KafkaError> for ConsumeError {
    fn from(error: &KafkaError) -> ConsumeError {
        if let KafkaError::MessageConsumptionFatal(_) = error {
            return ConsumeError::Fatal(error.to_string());
        }
        match error.rdkafka_error_code() {
            Some(Code::Fatal | Code::FencedInstanceId) => ConsumeError::Fatal(error.to_string()),
            Some(code) if is_unknown_topic(code) => ConsumeError::UnknownTopic,
            Some(
                Code::IllegalGeneration
                | Code::UnknownMemberId
                | Code::RebalanceInProgress
                | Code::AssignmentLost
                | Code::StaleMemberEpoch,
            ) => ConsumeError::Fenced,
            Some(code) if is_connection(code) => ConsumeError::Unavailable(error.to_string()),
            _ => ConsumeError::Other(error.to_string()),
        }
    }
}

/// A question about topics was not answered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TopicsError {
    /// No broker answered in time.
    #[error("Kafka does not answer: {0}")]
    Unavailable(String),
    /// No such topic.
    #[error("there is no topic {0}")]
    Unknown(String),
    /// The broker refuses a topic.
    #[error("topic {topic}: {why}")]
    Refused {
        /// The topic's name.
        topic: String,
        /// What the broker says.
        why: String,
    },
    /// Something else, told in librdkafka's words.
    #[error("{0}")]
    Other(String),
}

impl From<KafkaError> for TopicsError {
    fn from(error: KafkaError) -> TopicsError {
        let code = match &error {
            KafkaError::AdminOp(code) => Some(*code),
            other => other.rdkafka_error_code(),
        };
        match code {
            Some(code) if is_connection(code) => TopicsError::Unavailable(error.to_string()),
            _ => TopicsError::Other(error.to_string()),
        }
    }
}

fn is_unknown_topic(code: Code) -> bool {
    matches!(code, Code::UnknownTopic | Code::UnknownPartition | Code::UnknownTopicOrPartition)
}

/// Errors of a connection: librdkafka opens it anew by itself.
pub(crate) fn is_connection(code: Code) -> bool {
    matches!(
        code,
        Code::BrokerTransportFailure
            | Code::AllBrokersDown
            | Code::Resolve
            | Code::OperationTimedOut
            | Code::RequestTimedOut
            | Code::TimedOutQueue
            | Code::WaitingForCoordinator
            | Code::CoordinatorNotAvailable
            | Code::CoordinatorLoadInProgress
            | Code::NotCoordinator
            | Code::NetworkException
            | Code::BrokerDestroy
            | Code::BrokerNotAvailable
    )
}
