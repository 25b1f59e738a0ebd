"""What Grafana and Prometheus are given: dashboards, rules, provisioning files."""
