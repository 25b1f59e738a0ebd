"""A private Postfix: its own configuration, queue and log; Debian's programs."""

from __future__ import annotations

import os
import pwd
import shutil
import smtplib
import subprocess
import time
from pathlib import Path

from .net import free_port, stopping_on_failure, wait_for
from .programs import program

MASTER = """\
{port} inet n - n - - smtpd
pickup unix n - n 60 1 pickup
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
tlsmgr unix - - n 1000? 1 tlsmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
verify unix - - n - 1 verify
flush unix n - n 1000? 0 flush
proxymap unix - - n - - proxymap
smtp unix - - n - - smtp
relay unix - - n - - smtp -o syslog_name=${{multi_instance_name?{{$multi_instance_name}}:{{postfix}}}}/$service_name
showq unix n - n - - showq
error unix - - n - - error
retry unix - - n - - error
discard unix - - n - - discard
local unix - n n - - local
virtual unix - n n - - virtual
lmtp unix - - n - - lmtp
anvil unix - - n - 1 anvil
scache unix - - n - 1 scache
postlog unix-dgram n - n - 1 postlogd
{extra}
"""

MAIN = """\
compatibility_level = 3.6
queue_directory = {base}/queue
data_directory = {base}/data
command_directory = {commands}
daemon_directory = {daemons}
shlib_directory = {daemons}/..
meta_directory = {meta}
import_environment = MAIL_CONFIG TZ LANG=C LD_LIBRARY_PATH
mail_owner = {owner}
setgid_group = {group}
default_privs = nobody
maillog_file = {log}
maillog_file_prefixes = {base}
myhostname = mta.test
mydomain = test
myorigin = mta.test
mydestination = {local}
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
mynetworks = 127.0.0.0/8
relayhost = [127.0.0.1]:{relay}
relay_domains =
alias_maps = {aliases}
local_recipient_maps =
biff = no
smtp_host_lookup = native
smtp_dns_support_level = disabled
smtputf8_enable = no
smtpd_recipient_restrictions = permit_mynetworks, reject_unauth_destination
smtpd_client_connection_count_limit = 0
smtp_connection_cache_on_demand = no
default_destination_concurrency_limit = 20
default_destination_concurrency_failed_cohort_limit = 1000000
initial_destination_concurrency = 20
smtp_destination_recipient_limit = 10
minimal_backoff_time = 1s
maximal_backoff_time = 8s
queue_run_delay = 1s
smtpd_delay_open_until_valid_rcpt = no
bounce_queue_lifetime = {lifetime}
maximal_queue_lifetime = {lifetime}
"""


def _is_user(name: str) -> bool:
    try:
        pwd.getpwnam(name)
    except KeyError:
        return False
    return True


def _each_once(settings: str) -> str:
    """Settings of main.cf of which the last of a name holds.

    Of a name that stands there twice every program warns when it starts, postlogd too. It warns through its own
    socket, and if that is full by then (a busy machine), postlogd waits for itself, and all others for it.
    """
    last = {line.partition("=")[0].strip(): line for line in settings.splitlines() if line.strip()}
    return "\n".join(last.values()) + "\n"


class Postfix:
    """One Postfix instance that relays all mail to `relay` on loopback.

    Args:
        base: An empty directory that other users may enter.
        relay: The port of the next hop.
        settings: Further lines of main.cf.
        services: Further lines of master.cf.
        aliases: Lines of aliases(5) for the domain `local.test`.
        lifetime: How long mail may wait.
    """

    def __init__(
        self,
        base: Path,
        relay: int,
        settings: str = "",
        services: str = "",
        *,
        aliases: str = "",
        lifetime: str = "1h",
    ) -> None:
        self.base, self.port = base, free_port()
        self.config = base / "etc"
        self.log = base / "mail.log"
        for name in ("etc", "queue", "data"):
            (base / name).mkdir(parents=True, exist_ok=True)
        base.chmod(0o755)
        owner, group = ("postfix", "postdrop") if _is_user("postfix") else ("uucp", "news")
        shutil.chown(base / "data", owner)
        commands = (program("postfix") or Path("/usr/sbin/postfix")).parent
        main = MAIN.format(
            base=base,
            commands=commands,
            meta=commands.parents[1] / "etc/postfix",
            daemons=next(commands.parent.glob("lib*/postfix/**/master")).parent,
            owner=owner,
            group=group,
            log=self.log,
            relay=relay,
            lifetime=lifetime,
            local="local.test" if aliases else "",
            aliases=f"hash:{base}/etc/aliases" if aliases else "",
        )
        (self.config / "main.cf").write_text(_each_once(main + settings))
        (self.config / "aliases").write_text(aliases)
        (self.config / "master.cf").write_text(MASTER.format(port=f"127.0.0.1:{self.port}", extra=services))

    def add_filter(self) -> None:
        """Before the start: mail that comes in on the port `filtered` goes to a filter on the port `filter`, which
        hands it back on the port `back`."""
        self.filtered, self.filter, self.back = free_port(), free_port(), free_port()
        with (self.config / "master.cf").open("a") as master:
            master.write(
                f"127.0.0.1:{self.filtered} inet n - n - - smtpd -o content_filter=smtp:[127.0.0.1]:{self.filter}\n"
                f"127.0.0.1:{self.back} inet n - n - - smtpd\n"
            )

    def command(self, *words: str) -> None:
        """Run one of Postfix's own commands on this instance."""
        subprocess.run([*words[:1], "-c", str(self.config), *words[1:]], check=True, capture_output=True, timeout=300)

    def __enter__(self) -> Postfix:
        self.command("postalias", f"hash:{self.config}/aliases")
        environment = {**os.environ, "LC_ALL": "C"}
        subprocess.run(
            ["postfix", "-c", str(self.config), "start"], check=True, capture_output=True, env=environment, timeout=300
        )
        with stopping_on_failure(self):
            wait_for(self.port)
        return self

    def __exit__(self, *_: object) -> None:
        self.command("postfix", "stop")

    def send(self, sender: str, recipients: list[str], body: str = "Subject: test\n\nHello.\n") -> None:
        """Submit one message by SMTP."""
        with smtplib.SMTP("127.0.0.1", self.port, local_hostname="client.test", timeout=120) as client:
            client.sendmail(sender, recipients, body)

    def queued(self) -> int:
        """Messages in the queue."""
        listing = subprocess.run(
            ["postqueue", "-c", str(self.config), "-j"], check=True, capture_output=True, timeout=300
        ).stdout
        return len(listing.splitlines())

    def drain(self, left: int = 0, seconds: float = 600) -> None:
        """Retry what waits until at most `left` messages are queued."""
        end = time.monotonic() + seconds
        while self.queued() > left:
            if time.monotonic() > end:
                raise TimeoutError(f"{self.queued()} messages still queued; the log is {self.log}")
            self.command("postqueue", "-f")
            time.sleep(0.3)
