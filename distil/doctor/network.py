"""What ranks need of each other: a port to meet at, an all-reduce, and hosts that are alike."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO

import torch

from distil import hosts, remote
from distil.doctor import collective, there
from distil.doctor.finding import FAIL, OK, WARN, Finding, within
from distil.errors import ConfigError, RunError, one_line
from distil.folder import standing

ROOT = Path(__file__).parents[2]
CLOCKS_APART = 2.0  # seconds
SECONDS = collective.SECONDS + 15
SECONDS_FOR_DISK = 30


def port(number: int, needed: bool) -> Finding:
    """Whether ranks can meet at a port of this machine; a failure only where it is ``needed``."""
    with socket.socket() as probe, socket.socket() as other:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", number))
        except OSError as error:
            other.bind(("", 0))
            return Finding(
                FAIL if needed else WARN, "port", f"{number} cannot be bound: {error.strerror}",
                f"give another --master_port; {other.getsockname()[1]} is free now",
            )  # fmt: skip
    return Finding(OK, "port", f"{number} is free for ranks to meet at")


def all_reduce() -> Finding:
    """An all-reduce over this machine's GPUs, or over two processes where there are not two."""
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    backend, ranks = ("nccl", gpus) if gpus > 1 else ("gloo", 2)
    with tempfile.TemporaryDirectory() as folder:
        commands = [_rank(rank, ranks, f"file://{folder}/meet", backend) for rank in range(ranks)]
        with ThreadPoolExecutor(ranks) as pool:
            answers = list(pool.map(_locally, commands))
    return _measured(answers, f"{ranks} ranks here", backend, "see what the rank says; NCCL_DEBUG=INFO says more")


def of_hosts(hostfile: str, ssh_port: int | None, master_port: int, output_dir: str | None) -> Iterator[Finding]:
    """Hosts of a hostfile: login, versions, clock, the output folder, and an all-reduce over all of them."""
    try:
        names = list(hosts.read_hostfile(hostfile))
        exported = hosts.check_handed_over()
        remote.check_pdsh()
    except ConfigError as error:
        yield Finding(FAIL, "hosts", one_line(error))
        return
    try:
        marker = within(SECONDS_FOR_DISK, lambda: _marker(output_dir))
    except OSError as error:
        said = f"{output_dir or 'the folder for temporary files'}: {error.strerror or one_line(error)}"
        yield Finding(FAIL, "hosts", f"not asked, because no file can be shown to them in {said}", "mend that first")
        return
    with marker:
        command = [sys.executable, "-", str(ROOT), marker.name]
        source = Path(there.__file__).read_text()
        answers = remote.ask_all(names, command, port=ssh_port, stdin=source)
        here = there.report(str(ROOT), marker.name)
    findings = [_compared(answer, here, output_dir) for answer in answers]
    for found in findings:
        yield from found
    if len(names) > 1 and all(finding.state != FAIL for found in findings for finding in found):
        try:
            meet_at = remote.meeting_address(names[0], ssh_port)
        except RunError as error:
            yield Finding(FAIL, "all-reduce", one_line(error))
            return
        meet_at = f"[{meet_at}]" if ":" in meet_at else meet_at
        yield _across(names, f"tcp://{meet_at}:{master_port}", exported, ssh_port)


def _marker(output_dir: str | None) -> IO[bytes]:
    """A file that is seen on another host where that host has the same folder."""
    folder = standing(Path(output_dir)) if output_dir else Path(tempfile.gettempdir())
    return tempfile.NamedTemporaryFile(prefix=".doctor-", dir=folder)


def _compared(answer: remote.Answer, here: dict, output_dir: str | None) -> list[Finding]:
    """What a host answered, against what this one says of itself."""
    host = answer.host
    if answer.code == remote.SSH_FAILED:
        remedy = f"see that it is up and that 'ssh {host} true' asks for nothing (ssh-copy-id {host})"
        return [Finding(FAIL, "host", f"{host}: no login: {answer.problem}", remedy)]
    try:
        said = json.loads(answer.output.splitlines()[-1])
    except (IndexError, ValueError):
        found = f"{host}: {sys.executable} does not run there: {answer.problem or 'it says nothing'}"
        return [Finding(FAIL, "host", found, "have .venv under the same path on every host")]
    found = []
    there_has, here_has = said["versions"], here["versions"]
    differing = [f"{n} {there_has.get(n)} there, {v} here" for n, v in here_has.items() if there_has.get(n) != v]
    if differing:
        remedy = f"have the same repository, {ROOT}, and the same .venv on every host"
        found.append(Finding(FAIL, "host", f"{host}: {', '.join(differing)}", remedy))
    if output_dir and not said["seen"]:
        remedy = "checkpoints need a folder that all hosts share: give another --output_dir"
        found.append(Finding(FAIL, "host", f"{host}: {output_dir} is another folder there", remedy))
    apart = said["time"] - (answer.began + answer.ended) / 2
    if abs(apart) > CLOCKS_APART + (answer.ended - answer.began) / 2:
        found.append(Finding(WARN, "host", f"{host}: its clock is {apart:+.1f} s off ours", "run an NTP client there"))
    if not found:
        shared = f", {output_dir} shared" if output_dir else ""
        alike = ", ".join(f"{name} {version}" for name, version in here_has.items())
        found.append(Finding(OK, "host", f"{host}: login, {alike} as here, clock {apart:+.1f} s{shared}"))
    return found


def _rank(rank: int, ranks: int, where: str, backend: str) -> list[str]:
    return [sys.executable, "-m", collective.__name__, str(rank), str(ranks), where, backend]


def _locally(command: Sequence[str]) -> remote.Answer:
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    try:
        done = subprocess.run(
            command, env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True, timeout=SECONDS
        )
    except subprocess.TimeoutExpired:
        return remote.Answer("here", "", f"not done within {SECONDS} s")
    said = (done.stderr.strip().splitlines() or ["it says nothing"])[-1]
    return remote.Answer("here", done.stdout, f"{said} (exit code {done.returncode})" if done.returncode else "")


def _across(names: list[str], where: str, exported: dict[str, str], ssh_port: int | None) -> Finding:
    """An all-reduce with one rank on each host, in the environment that a job would have there."""
    backend = "nccl" if torch.cuda.is_available() else "gloo"
    ours = {name: value for name, value in os.environ.items() if name.startswith(hosts.EXPORTED)}
    given = ours | exported
    path = os.pathsep.join(filter(None, [str(ROOT), given.get("PYTHONPATH")]))
    variables = [f"{name}={value}" for name, value in (given | {"PYTHONPATH": path}).items()]
    commands = [["env", *variables, *_rank(rank, len(names), where, backend)] for rank in range(len(names))]
    with ThreadPoolExecutor(len(names)) as pool:
        answers = list(
            pool.map(lambda host, command: remote.ask(host, command, port=ssh_port, seconds=SECONDS), names, commands)
        )
    remedy = (
        f"open the network between the hosts, {where} first; GLOO_SOCKET_IFNAME or NCCL_SOCKET_IFNAME in "
        ".deepspeed_env says which of their networks to use"
    )
    return _measured(answers, f"{len(names)} hosts, meeting at {where}", backend, remedy)


def _measured(answers: list[remote.Answer], which: str, backend: str, remedy: str) -> Finding:
    failed = [f"rank {rank} on {a.host}: {a.problem}" for rank, a in enumerate(answers) if a.problem]
    if failed:
        return Finding(FAIL, "all-reduce", f"{which}, {backend}: {failed[0]}", remedy)
    seconds, ranks = float(answers[0].output.splitlines()[-1]), len(answers)
    # What a ring sends and receives, so that figures of different numbers of ranks compare.
    speed = collective.MIB * 2**20 * 2 * (ranks - 1) / ranks / seconds / 1e9
    found = f"{which}, {backend}: {collective.MIB} MiB in {seconds * 1e3:.0f} ms, {speed:.2f} GB/s"
    return Finding(OK, "all-reduce", found)
