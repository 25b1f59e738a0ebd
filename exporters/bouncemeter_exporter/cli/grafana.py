"""`bouncemeter grafana`: dashboards for Grafana, and the files that provision them."""

from __future__ import annotations

import re
from typing import Annotated

import typer

from bouncemeter_exporter.cli.export import ExporterUrl, Folder, Runbook, checked_url, with_thresholds, write
from bouncemeter_exporter.cli.options import fail, say
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
        typer.Option(metavar="DIR", help="Where Grafana will find the dashboards.", show_default="dashboards in DIR"),
    ] = None,
    runbook_url: Runbook = RUNBOOK,
    exporter_url: ExporterUrl = None,
    mail_to: Annotated[
        str,
        typer.Option(metavar="ADDRESS", help="Whom Grafana's own alerts write to, by the mail server of its settings."),
    ] = "root@localhost",
    **values: float,
) -> None:
    """Write dashboards, and the files that provision them, a data source and alerts in Grafana.

    You can also import the dashboards by hand. The alerts are the same as those of `rules export`, but for Grafana's
    own alerting: use one or the other. Both need the recording rules of `rules export`.

    Examples:

      bouncemeter grafana export /etc/grafana

      bouncemeter grafana export --datasource-uid P1809F7CD0C75ACF3 /etc/grafana

      bouncemeter grafana export --prometheus-url http://prometheus:9090 --hard-bounce-ratio 0.03 .
    """
    from bouncemeter_exporter.grafana.provisioning import Locations, files

    path = dashboards_path or str(folder.resolve() / "dashboards")
    prometheus_url = checked_url(prometheus_url, "--prometheus-url")
    if re.fullmatch(r"[^\s@]+@[^\s@]+", mail_to) is None:
        fail(f"--mail-to: {mail_to!r} is not an address such as postmaster@example.org", 2)
    if re.fullmatch(r"([0-9]*[1-9][0-9]*(ms|[smh]))+", scrape_interval) is None:
        fail(f"--scrape-interval: {scrape_interval!r} is not a duration such as 15s", 2)
    runbook_url = checked_url(runbook_url, "--runbook-url")
    exporter_url = checked_url(exporter_url, "--exporter-url") if exporter_url else ""
    uid = datasource_uid or None
    locations = Locations(prometheus_url, scrape_interval, path, runbook_url, uid, mail_to, exporter_url)
    write(folder, files(values, locations))
    say(f"next: let Grafana read {folder.resolve() / 'provisioning'} (/etc/grafana/provisioning), and restart it")
    say("next: `bouncemeter rules export`, for Prometheus; of the two sets of alerts, use one")
