"""Reads the mail logs of a fleet: writes a table of all entries by day, the facts about recipients, and the report.

    spark-submit fleet_job.py '/archive/*/maillog*' /archive/bounces

Runs again safely: each part of the output is replaced as a whole.
"""

import json
import sys

from bouncemeter_exporter.archive.fleet import report
from bouncemeter_exporter.archive.spark import recipients
from pyspark.sql import SparkSession
from pyspark.sql import functions as F  # noqa: N812 - as everybody calls it


def main() -> None:
    """Run the job."""
    *logs, folder = sys.argv[1:]
    spark = SparkSession.builder.appName("bouncemeter").getOrCreate()
    spark.conf.set("spark.sql.session.timeZone", "UTC")
    spark.conf.set("spark.sql.sources.partitionOverwriteMode", "dynamic")  # only the days that are read
    found = spark.read.format("bouncemeter").option("entries", "true").load(logs)
    by_day = found.withColumn("day", F.to_date("time"))
    by_day.write.mode("overwrite").partitionBy("day").parquet(f"{folder}/entries")
    entries = spark.read.parquet(f"{folder}/entries")
    recipients(entries).write.mode("overwrite").parquet(f"{folder}/recipients")
    made = json.dumps(report(entries, spark.read.parquet(f"{folder}/recipients")), indent=2)
    spark.createDataFrame([(made,)], "report string").coalesce(1).write.mode("overwrite").text(f"{folder}/report")
    print(made)


if __name__ == "__main__":
    main()
