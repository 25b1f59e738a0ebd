"""A private Exim: its own configuration, spool and log; Debian's programs."""

from __future__ import annotations

import shutil
import smtplib
import subprocess
import time
from pathlib import Path

from .net import free_port, stopping_on_failure, wait_for
from .programs import program

CONFIG = """\
exim_path = {binary}
spool_directory = {base}/spool
log_file_path = {base}/%slog
exim_user = Debian-exim
exim_group = Debian-exim
primary_hostname = mta.test
local_interfaces = 127.0.0.1
daemon_smtp_ports = {port} : {back}
{tls}
host_lookup =
rfc1413_hosts =
smtp_accept_max = 200
smtp_accept_queue_per_connection = 1000
queue_run_max = 20
remote_max_parallel = 10
never_users =
keep_environment = LD_LIBRARY_PATH
queue_only
delay_warning =
acl_smtp_rcpt = check_rcpt
{settings}

begin acl
check_rcpt:
  deny  message = no such user here
        local_parts = refused
  defer message = try again later
        local_parts = tempfail
  accept

begin routers
alias:
  driver = redirect
  domains = alias.test
  data = ${{lookup{{$local_part}}lsearch{{{base}/aliases}}}}
mailbox:
  driver = accept
  domains = local.test
  local_parts = lsearch;{base}/mailusers
  transport = mailbox
blackhole:
  driver = redirect
  domains = hole.test
  data = :blackhole:
nowhere:
  driver = redirect
  domains = nowhere.test
  allow_fail
  data = :fail: no such road
filter:
  driver = manualroute
  domains = filtered.test
  condition = ${{if !eq{{$received_port}}{{{back}}}}}
  route_list = * "127.0.0.1" byname
  self = send
  transport = filter
relay:
  driver = manualroute
  domains = !closed.test
  route_list = * "127.0.0.1" byname
  self = send
  transport = relay
closed:
  driver = manualroute
  domains = closed.test
  route_list = * "127.0.0.2" byname
  self = send
  transport = closed

begin transports
relay:
  driver = smtp
  port = {relay}
  hosts_try_fastopen =
  allow_localhost
mailbox:
  driver = appendfile
  file = {base}/mailboxes/$local_part_data
  create_directory
  user = Debian-exim
filter:
  driver = smtp
  port = {filter}
  hosts_try_fastopen =
  allow_localhost
closed:
  driver = smtp
  port = 1
  allow_localhost

begin retry
expire.test * F,{lifetime}s,1s
* * F,1h,1s
"""


ALIASES = "two: ok-901@dest.test, unknown-902@dest.test\n"


class Exim:
    """One Exim instance that relays all mail to `relay` on loopback.

    Domains with a meaning: `alias.test` (the file `aliases`), `hole.test`, `nowhere.test` (no route),
    `closed.test` (connection refused), `expire.test` (gives up after `lifetime`), `local.test` (mailboxes),
    `filtered.test` (goes to a filter on the port `filter`, which hands it back on the port `back`).

    Args:
        base: An empty directory that other users may enter.
        relay: The port of the next hop.
        settings: Further lines of the main section, `log_selector` for one.
        aliases: Lines of the file `aliases`.
        lifetime: Seconds that mail to `expire.test` may wait.
        certificate: A file with its certificate and key; with it, clients may use TLS, and are asked for a certificate.
    """

    def __init__(
        self,
        base: Path,
        relay: int,
        settings: str = "",
        *,
        aliases: str = ALIASES,
        lifetime: int = 1,
        certificate: Path | None = None,
    ) -> None:
        self.base, self.port, self.back, self.filter = base, free_port(), free_port(), free_port()
        self.binary = program("exim4", "exim") or Path("exim4")
        self.config, self.log = base / "exim.conf", base / "mainlog"
        for directory in (base, base / "spool"):
            directory.mkdir(parents=True, exist_ok=True)
            directory.chmod(0o755)
            shutil.chown(directory, "Debian-exim", "Debian-exim")
        config = CONFIG.format(
            base=base,
            port=self.port,
            back=self.back,
            filter=self.filter,
            relay=relay,
            binary=self.binary,
            settings=settings,
            lifetime=lifetime,
            tls="tls_advertise_hosts ="
            if certificate is None
            else f"tls_certificate = {certificate}\ntls_try_verify_hosts = *",
        )
        self.config.write_text(config)
        (base / "aliases").write_text(aliases)
        self.open_mailboxes()
        self._daemon: subprocess.Popen[bytes] | None = None

    def open_mailboxes(self, *, closed: bool = False) -> None:
        """Let `ann` and `bob` at `local.test` get mail, or have it deferred."""
        users = "ann:\nbob:\n" if closed else "ann: ann\nbob: bob\n"
        (self.base / "mailusers").write_text(users)

    def command(self, *words: str, check: bool = True) -> str:
        """Run exim on this instance and return what it printed."""
        command = [str(self.binary), "-C", str(self.config), *words]
        return subprocess.run(command, check=check, capture_output=True, text=True, timeout=600).stdout

    def __enter__(self) -> Exim:
        self._daemon = subprocess.Popen([str(self.binary), "-C", str(self.config), "-bdf"])
        with stopping_on_failure(self):
            wait_for(self.port)
        return self

    def __exit__(self, *_: object) -> None:
        if self._daemon is not None:
            self._daemon.terminate()
            self._daemon.wait(timeout=120)

    def send(self, sender: str, recipients: list[str], body: str = "Subject: test\n\nHello.\n") -> None:
        """Submit one message by SMTP."""
        with smtplib.SMTP("127.0.0.1", self.port, local_hostname="client.test", timeout=120) as client:
            client.sendmail(sender, recipients, body)

    def queued(self) -> int:
        """Messages in the queue."""
        return int(self.command("-bpc"))

    def run_queue(self, *, force: bool = True) -> None:
        """Try every message in the queue, by several queue runners at a time.

        Args:
            force: Try also what is not due (`-qff`); without it Exim's retry times hold.
        """
        command = [str(self.binary), "-C", str(self.config), "-qff" if force else "-q"]
        runners = [subprocess.Popen(command) for _ in range(4)]
        codes = [runner.wait(timeout=600) for runner in runners]
        assert not any(codes), codes

    def drain(self, left: int = 0, seconds: float = 600, *, force: bool = True) -> None:
        """Run the queue until at most `left` messages are in it; see `run_queue`."""
        end = time.monotonic() + seconds
        while self.queued() > left:
            if time.monotonic() > end:
                raise TimeoutError(f"{self.queued()} messages still queued; the log is {self.log}")
            self.run_queue(force=force)
            time.sleep(0.2)
