"""Two hosts on one machine: two network namespaces joined by a wire, each with an sshd of its own.

Files under /etc/netns/NAME stand over those in /etc for whatever runs in the namespace, so each host has its own
/etc/hosts and its own /etc/ssh: keys, configuration of client and server. Nothing outside is touched, and
``ssh HOST`` needs no option there, just as on a cluster that is set up.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

OVERLAYS = Path("/etc/netns")
SSHD = "/usr/sbin/sshd"
NEEDED = {
    "ip": "iproute2", "pdsh": "pdsh", "ssh": "openssh-client", "ssh-keygen": "openssh-client", SSHD: "openssh-server",
    "nsenter": "util-linux",
}  # fmt: skip
CLIENT = """
Host *
    IdentityFile /etc/ssh/id
    IdentitiesOnly yes
    StrictHostKeyChecking no
    UserKnownHostsFile /dev/null
    LogLevel ERROR
"""
SERVER = """
HostKey /etc/ssh/host_key
AuthorizedKeysFile /etc/ssh/id.pub
PermitRootLogin prohibit-password
PasswordAuthentication no
UsePAM no
PidFile none
"""


def missing() -> str:
    """Why two hosts cannot be made here, or an empty string."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    for program, package in NEEDED.items():
        if not shutil.which(program):
            return f"no {program}; apt-get install {package}"
    probe = f"probe{os.getpid()}"
    made = subprocess.run(["ip", "netns", "add", probe], capture_output=True, text=True)
    subprocess.run(["ip", "netns", "del", probe], capture_output=True)
    return f"no network namespaces: {made.stderr.strip()}" if made.returncode else ""


@dataclass(frozen=True)
class Host:
    """One of the two: its namespace, its name on the wire and its address."""

    namespace: str
    name: str
    address: str

    def inside(self, command: Sequence[object]) -> list[str]:
        """The command line that runs a command on this host."""
        return ["ip", "netns", "exec", self.namespace, *map(str, command)]

    def link(self, state: str) -> None:
        """Pull the wire out of this host (``down``), or put it back (``up``)."""
        _run("ip", "-n", self.namespace, "link", "set", "eth0", state)

    def processes(self) -> dict[int, str]:
        """Command lines of all that runs on this host, by process number, but for its sshd's."""
        found = {}
        for number in subprocess.check_output(["ip", "netns", "pids", self.namespace], text=True).split():
            with contextlib.suppress(psutil.Error):
                process = psutil.Process(int(number))
                if process.name() != "sshd" and process.status() != psutil.STATUS_ZOMBIE:
                    found[process.pid] = " ".join(process.cmdline())
        return found

    @contextlib.contextmanager
    def seeing(self, source: Path, target: Path) -> Iterator[None]:
        """Let whoever logs in to this host see ``source`` in the place of ``target``."""
        enter = ["nsenter", "--mount", f"--target={self._sshd()[0]}"]
        _run(*enter, "mount", "--bind", str(source), str(target))
        try:
            yield
        finally:
            _run(*enter, "umount", str(target))

    def _sshd(self) -> list[int]:
        numbers = map(int, subprocess.check_output(["ip", "netns", "pids", self.namespace], text=True).split())
        return [number for number in numbers if psutil.Process(number).name() == "sshd"]

    def start_sshd(self) -> None:
        """Let others in; ended with everything else on the host."""
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        _run(*self.inside([SSHD, "-f", "/etc/ssh/sshd_config"]))

    def stop_sshd(self) -> None:
        """The host stays up, but nobody gets in."""
        for number in self._sshd():
            os.kill(number, signal.SIGKILL)


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr}"


@contextlib.contextmanager
def two_hosts() -> Iterator[tuple[Host, Host]]:
    """Hosts ``one`` and ``two``, joined by a wire; every trace of them is gone afterwards."""
    _sweep()
    ssh_was_there = Path("/run/sshd").exists()
    net = f"10.203.{os.getpid() % 250 + 1}"
    hosts = tuple(Host(f"distil{os.getpid()}-{name}", name, f"{net}.{i}") for i, name in enumerate(("one", "two"), 1))
    try:
        _make_overlays(hosts)
        for host in hosts:
            _run("ip", "netns", "add", host.namespace)
        wire = ["netns", hosts[0].namespace, "type", "veth", "peer", "name", "eth0", "netns", hosts[1].namespace]
        _run("ip", "link", "add", "eth0", *wire)
        for host in hosts:
            _run("ip", "-n", host.namespace, "address", "add", f"{host.address}/24", "dev", "eth0")
            _run("ip", "-n", host.namespace, "link", "set", "lo", "up")
            host.link("up")
            host.start_sshd()
        _wait_for_logins(hosts)
        yield hosts
    finally:
        for host in hosts:
            _remove(host)
        with contextlib.suppress(OSError):
            OVERLAYS.rmdir()
            if not ssh_was_there:
                Path("/run/sshd").rmdir()


def _sweep() -> None:
    """Remove what is left of earlier tests that were killed."""
    listed = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True).stdout.split("\n")
    left = {line.split()[0] for line in listed if line} | {path.name for path in OVERLAYS.glob("*")}
    for name in left:
        made = re.fullmatch(r"distil([0-9]+)-(one|two)", name)
        if made and not psutil.pid_exists(int(made[1])):
            _remove(Host(name, made[2], ""))


def _make_overlays(hosts: Sequence[Host]) -> None:
    first, second = (OVERLAYS / host.namespace / "ssh" for host in hosts)
    first.mkdir(parents=True)
    for key in ("id", "host_key"):
        _run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(first / key))
    (first / "ssh_config").write_text(CLIENT)
    shutil.copytree(first, second)
    (second / "host_key").unlink()
    (second / "host_key.pub").unlink()
    _run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(second / "host_key"))
    for host, folder in zip(hosts, (first, second), strict=True):
        (folder / "sshd_config").write_text(f"ListenAddress {host.address}\n{SERVER}")
        names = "".join(f"{other.address} {other.name}\n" for other in hosts)
        (folder.parent / "hosts").write_text(f"127.0.0.1 localhost\n{names}{host.address} {socket.gethostname()}\n")


def _wait_for_logins(hosts: Sequence[Host]) -> None:
    for host in hosts:
        for _ in range(50):
            login = hosts[0].inside(["ssh", "-o", "BatchMode=yes", "-o", "ConnectTimeout=2", host.name, "true"])
            done = subprocess.run(login, capture_output=True, text=True)
            if done.returncode == 0:
                break
            time.sleep(0.1)
        assert done.returncode == 0, f"{host.name}: {done.stderr}"


def _remove(host: Host) -> None:
    listed = subprocess.run(["ip", "netns", "pids", host.namespace], capture_output=True, text=True)
    for number in listed.stdout.split():
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(number), signal.SIGKILL)
    subprocess.run(["ip", "netns", "del", host.namespace], capture_output=True)
    shutil.rmtree(OVERLAYS / host.namespace, ignore_errors=True)
