"""`bouncemeter rules`: recording rules and alerts for Prometheus."""

from __future__ import annotations

from typing import Annotated

import typer

from bouncemeter_exporter.cli.export import ExporterUrl, Folder, Runbook, checked_url, with_thresholds, write
from bouncemeter_exporter.cli.options import say
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
    exporter_url: ExporterUrl = None,
    kubernetes: Annotated[
        bool, typer.Option("--kubernetes", help="Write a PrometheusRule for the Prometheus operator instead.")
    ] = False,
    fleet: Annotated[
        bool, typer.Option("--fleet", help="Also record the numbers of all servers together, for a Prometheus of many.")
    ] = False,
    unit_tests: Annotated[
        bool, typer.Option("--unit-tests", help="Also write tests/bouncemeter.test.yml, for promtool test rules.")
    ] = False,
    **values: float,
) -> None:
    """Write recording rules and alerts as a file for Prometheus, and files for Alertmanager, which mails the alerts.

    Examples:

      bouncemeter rules export /etc/prometheus/rules

      bouncemeter rules export --hard-bounce-ratio 0.03 --grafana-url https://grafana.example.org .
    """
    from bouncemeter_exporter.grafana import rules

    found = rules.rules(
        values,
        grafana_url=checked_url(grafana_url, "--grafana-url"),
        runbook_url=checked_url(runbook_url, "--runbook-url"),
        exporter_url=checked_url(exporter_url, "--exporter-url") if exporter_url else "",
        fleet=fleet,
    )
    files = {rules.KUBERNETES: rules.as_kubernetes(found)}
    if not kubernetes:
        files = {rules.FILE: rules.as_prometheus(found)} | rules.alertmanager()
    write(folder, files | ({rules.UNIT_TESTS: rules.as_unit_tests(values)} if unit_tests else {}))
    where = folder.resolve()
    if kubernetes:
        say(f"next: kubectl apply -f {where / rules.KUBERNETES}")
    else:
        mails = where / "alertmanager"
        say(f'next, for Prometheus: rule_files: ["{where / rules.FILE}"]; then promtool check config, and reload it')
        say(f"next, for Alertmanager: adapt {mails / 'alertmanager.yml'}; copy {mails}/* beside its configuration")
