"""What people read: reports, traces, explanations, records, tables on a terminal."""
