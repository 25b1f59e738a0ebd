"""The variables that dashboards share. Each one narrows the choices of the next."""

from __future__ import annotations

from bouncemeter_exporter.grafana.dashboards.pages import variable
from bouncemeter_exporter.grafana.dashboards.queries import Queries

__all__ = ["CLASS", "CODE", "KIND", "PROVIDER", "REASON", "SERVERS"]


def _narrowed(label: str, title: str, metric: str, name: str, *before: str) -> dict[str, object]:
    return variable(label, title, f"label_values({Queries(*before).select(metric, name)}, {label})")


SERVERS = [
    variable("job", "Job", "label_values(bouncemeter_build_info, job)"),
    variable("instance", "Instance", 'label_values(bouncemeter_build_info{job=~"$job"}, instance)'),
    _narrowed("mta", "Mail server", "mail_bounces_by_class", "mail_bounces_by_class_total"),
]
PROVIDER = _narrowed("provider", "Provider", "mail_recipients", "mail_recipients_total", "mta")
KIND = _narrowed("kind", "Kind", "mail_bounces_by_class", "mail_bounces_by_class_total", "mta")
CLASS = _narrowed("class", "Class", "mail_bounces_by_class", "mail_bounces_by_class_total", "mta", "kind")
CODE = _narrowed("code", "Code", "mail_bounces", "mail_bounces_total", "mta", "provider", "kind", "class")
REASON = _narrowed("reason", "Reason", "mail_bounces", "mail_bounces_total", "mta", "provider", "kind", "class", "code")
