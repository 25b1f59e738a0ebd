"""`bouncemeter rules`: recording rules and alerts for Prometheus."""

from __future__ import annotations

from typing import Annotated

import typer

from bouncemeter_exporter.cli.export import Folder, Runbook, with_thresholds, write
from bouncemeter_exporter.grafana.rules import GRAFANA, RUNBOOK

__all__ = ["app"]

app = typer.Typer(help="Recording rules and alerts for Prometheus.", no_args_is_help=True)


@app.command("export")
@with_thresholds
def rules_export(
    folder: Folder,
    *,
    grafana_url: Annotated[str, typer.Option(metavar="URL", help="URL of Grafana, for links.")] = GRAFANA,
    runbook_url: Runbook = RUNBOOK,
    kubernetes: Annotated[
        bool, typer.Option("--kubernetes", help="Write a PrometheusRule for the Prometheus operator instead.")
    ] = False,
    unit_tests: Annotated[
        bool, typer.Option("--unit-tests", help="Also write tests/bouncemeter.test.yml, for promtool test rules.")
    ] = False,
    **values: float,
) -> None:
    """Write recording rules and alerts as a file for Prometheus.

    Examples:

      bouncemeter rules export /etc/prometheus/rules

      bouncemeter rules export --hard-bounce-ratio 0.03 --grafana-url https://grafana.example.org .
    """
    from bouncemeter_exporter.grafana import rules

    found = rules.rules(values, grafana_url=grafana_url, runbook_url=runbook_url)
    files = {rules.KUBERNETES: rules.as_kubernetes(found)} if kubernetes else {rules.FILE: rules.as_prometheus(found)}
    write(folder, files | ({rules.UNIT_TESTS: rules.as_unit_tests(values)} if unit_tests else {}))
