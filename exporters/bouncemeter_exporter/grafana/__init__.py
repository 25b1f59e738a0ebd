"""The files for Grafana and Prometheus: dashboards, rules and provisioning."""
