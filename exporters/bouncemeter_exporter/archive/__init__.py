"""Logs of the past, and files for other collectors: what does not go to a scrape of Prometheus."""
