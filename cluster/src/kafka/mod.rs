//! Kafka: settings, producer, consumer, topics, record headers.
