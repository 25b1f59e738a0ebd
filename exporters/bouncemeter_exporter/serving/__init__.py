"""The exporter: what was counted is kept in the state and served to Prometheus."""
