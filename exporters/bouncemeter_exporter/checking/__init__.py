"""Will all be well? What `check` finds out about logs, the exporter's own needs, and Prometheus."""
