"""The example for Kubernetes: it is valid, fits the image, and its sidecar may read what a real Postfix writes."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from tests.conftest import ROOT, Run
from tests.servers.buildah import alone
from tests.servers.debian import Debian
from tests.servers.net import wait_until

MANIFESTS = list(yaml.safe_load_all((ROOT / "packaging/kubernetes.yaml").read_text()))
POD: dict[str, Any] = MANIFESTS[-1]["spec"]["template"]["spec"]
FOLDERS, SIDECAR = POD["initContainers"]
(POSTFIX,) = POD["containers"]
IMAGE = (ROOT / "packaging/Containerfile").read_text()


@pytest.mark.parametrize("version", ["1.29", "1.37"])
def test_it_is_valid(version: str) -> None:
    for manifest in MANIFESTS:
        kubernetes_validate.validate(manifest, version, strict=True)


def test_it_fits_the_image() -> None:
    allowed = SIDECAR["securityContext"]
    assert f"USER {allowed['runAsUser']}:{allowed['runAsGroup']}\n" in IMAGE
    assert f"EXPOSE {SIDECAR['ports'][0]['containerPort']}\n" in IMAGE
    mounted = {each["name"]: each["mountPath"] for each in SIDECAR["volumeMounts"]}
    assert f"VOLUME {mounted['state']}\n" in IMAGE
    assert f"maillog_file={SIDECAR['args'][1]} " in POSTFIX["command"][-1]
    assert SIDECAR["args"][1].startswith(f"{mounted['log']}/")
    annotations = MANIFESTS[-1]["spec"]["template"]["metadata"]["annotations"]
    assert annotations["prometheus.io/port"] == str(SIDECAR["ports"][0]["containerPort"])


def test_the_pod_monitor_finds_the_sidecar() -> None:
    (text,) = re.findall(r"```yaml\n(.+?)```", (ROOT / "docs/containers.md").read_text(), re.DOTALL)
    spec = yaml.safe_load(text)["spec"]
    assert spec["selector"] == MANIFESTS[-1]["spec"]["selector"]
    assert spec["podMetricsEndpoints"][0]["port"] == SIDECAR["ports"][0]["name"]


@pytest.mark.needs("debian")
@pytest.mark.slow
def test_the_sidecar_may_read_what_postfix_writes_also_after_a_rotation(bouncemeter: Run) -> None:
    log = SIDECAR["args"][1]
    user = SIDECAR["securityContext"]["runAsUser"]
    with Debian("13") as debian:

        def read() -> str:
            words = ["chroot", f"--userspec={user}:{user}", "--groups=", str(debian.root), "cat", log]
            return subprocess.run(words, capture_output=True, text=True, check=False, timeout=60).stdout

        debian.run("apt-get", "install", "-y", "-qq", "--no-install-recommends", "postfix")
        debian.run(*FOLDERS["command"])
        command = ["unshare", "--pid", "--fork", "--kill-child", *debian.command(*POSTFIX["command"])]
        with subprocess.Popen(alone(*command), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as postfix:
            children = Path(f"/proc/{postfix.pid}/task/{postfix.pid}/children")
            wait_until(lambda: postfix.poll() is not None or children.read_text() != "", 60, "Postfix does not start")
            first = children.read_text().strip()
            try:
                wait_until(lambda: "daemon started" in read(), 120, "Postfix does not start")
                debian.run("sh", "-c", "echo | sendmail nobody-there@localhost")
                wait_until(lambda: "status=bounced" in read(), 120, "nothing is bounced")
                found = bouncemeter("report", "--format", "json", "-", stdin=read().encode())
                assert json.loads(found.stdout)["bounces"]["hard"] == 1
                rotate = ["nsenter", f"--target={first}", "--pid", *debian.command("postfix", "logrotate")]
                subprocess.run(rotate, check=True, capture_output=True, timeout=120)
                wait_until(lambda: "status=bounced" not in read(), 120, "nothing is rotated")
                debian.run("sh", "-c", "echo | sendmail nobody-there@localhost")
                wait_until(lambda: "status=bounced" in read(), 120, "nothing is written after the rotation")
            finally:
                os.kill(int(first), signal.SIGKILL)  # and with it everything in its namespace
