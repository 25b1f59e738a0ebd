"""The exporter: keeps the counts in the state and serves them to Prometheus."""
