"""`bouncemeter grafana`: dashboards for Grafana, and the files by which it provisions them."""

from __future__ import annotations

from typing import Annotated

import typer

from bouncemeter_exporter.cli.export import Folder, Runbook, with_thresholds, write
from bouncemeter_exporter.grafana.rules import DASHBOARDS, PROMETHEUS, RUNBOOK

__all__ = ["app"]

app = typer.Typer(help="Dashboards for Grafana.", no_args_is_help=True)


@app.command("export")
@with_thresholds
def grafana_export(
    folder: Folder,
    *,
    prometheus_url: Annotated[str, typer.Option(metavar="URL", help="Where Grafana finds Prometheus.")] = PROMETHEUS,
    scrape_interval: Annotated[str, typer.Option(metavar="TIME", help="How often Prometheus scrapes.")] = "15s",
    dashboards_path: Annotated[
        str, typer.Option(metavar="DIR", help="Where Grafana will find the dashboards.")
    ] = DASHBOARDS,
    runbook_url: Runbook = RUNBOOK,
    **values: float,
) -> None:
    """Write dashboards, and the files by which Grafana provisions them, a data source and alerts.

    Dashboards can also be imported by hand. The alerts are those of `rules export`, for Grafana's own alerting: use
    the one or the other. The recording rules of `rules export` are needed for both.

    Examples:

      bouncemeter grafana export /etc/grafana

      bouncemeter grafana export --prometheus-url http://prometheus:9090 --hard-bounce-ratio 0.03 .
    """
    from bouncemeter_exporter.grafana.provisioning import Locations, files

    write(folder, files(values, Locations(prometheus_url, scrape_interval, dashboards_path, runbook_url)))
