"""What is known about codes, reasons, providers and blocklists: tables, and how to look things up in them."""
