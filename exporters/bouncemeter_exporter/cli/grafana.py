"""`bouncemeter grafana`: dashboards for Grafana, and the files that provision them."""

from __future__ import annotations

from typing import Annotated

import typer

from bouncemeter_exporter.cli.export import Folder, Runbook, with_thresholds, write
from bouncemeter_exporter.grafana.rules import PROMETHEUS, RUNBOOK

__all__ = ["app"]

app = typer.Typer(help="Dashboards for Grafana.", no_args_is_help=True)


@app.command("export")
@with_thresholds
def grafana_export(
    folder: Folder,
    *,
    prometheus_url: Annotated[str, typer.Option(metavar="URL", help="Where Grafana finds Prometheus.")] = PROMETHEUS,
    scrape_interval: Annotated[str, typer.Option(metavar="TIME", help="How often Prometheus scrapes.")] = "15s",
    datasource_uid: Annotated[
        str | None, typer.Option(metavar="UID", help="A data source that Grafana has already; none is written then.")
    ] = None,
    dashboards_path: Annotated[
        str | None,
        typer.Option(metavar="DIR", help="Where Grafana will find the dashboards.  [default: dashboards in DIR]"),
    ] = None,
    runbook_url: Runbook = RUNBOOK,
    **values: float,
) -> None:
    """Write dashboards, and the files that provision them, a data source and alerts in Grafana.

    You can also import the dashboards by hand. The alerts are the same as those of `rules export`, but for Grafana's
    own alerting: use one or the other. Both need the recording rules of `rules export`.

    Examples:

      bouncemeter grafana export /etc/grafana

      bouncemeter grafana export --prometheus-url http://prometheus:9090 --hard-bounce-ratio 0.03 .
    """
    from bouncemeter_exporter.grafana.provisioning import Locations, files

    path = dashboards_path or str(folder.resolve() / "dashboards")
    write(folder, files(values, Locations(prometheus_url, scrape_interval, path, runbook_url, datasource_uid)))
