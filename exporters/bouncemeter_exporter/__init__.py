"""From log files to Prometheus: sources, the ledger of recipients, and the outputs."""
