"""Archives of events for other programs: Arrow, Parquet and Spark."""
