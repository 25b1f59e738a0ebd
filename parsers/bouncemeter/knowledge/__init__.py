"""What is known of codes, reasons, providers and blocklists: tables, and how to look things up in them."""
