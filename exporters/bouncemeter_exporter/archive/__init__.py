"""The past, and what is not scraped: samples for Prometheus, files for collectors, tables for Arrow and Spark."""
