"""Kafka's wire protocol: framing and one file per family of APIs. The only place that knows kio."""
