"""Other hosts over ssh: no password is asked for, no word is interpreted, nothing waits for ever."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from distil.errors import ConfigError, RunError
from distil.hosts import is_host_name

CONNECT_SECONDS = 5
SECONDS = 20
SSH_FAILED = 255
# How pdsh is to call ssh: it asks nothing, and notices within a minute that a host has gone, on which it would
# otherwise wait for ever. What a user sets comes first, which for ssh is what counts.
PDSH_OPTIONS = "-oBatchMode=yes -oServerAliveInterval=15 -oServerAliveCountMax=4"
_PDSH_VARIABLE = "PDSH_SSH_ARGS_APPEND"


@dataclass(frozen=True)
class Answer:
    """What came of a command on a host; ``problem`` is empty where ssh reached it and the command returned 0.

    ``code`` is the command's, or SSH_FAILED; ``began`` and ``ended`` are by our clock.
    """

    host: str
    output: str
    problem: str = ""
    code: int = 0
    began: float = 0.0
    ended: float = 0.0


def ask(
    host: str, command: Sequence[str], *, port: int | None = None, stdin: str = "", seconds: float = SECONDS
) -> Answer:
    """Run a command on a host that is a checked name; each word arrives there as it is."""
    options = ["-o", "BatchMode=yes", "-o", f"ConnectTimeout={CONNECT_SECONDS}", "-T", "-x"]
    options += (["-p", str(port)] if port else []) + os.environ.get(_PDSH_VARIABLE, "").split()
    began = time.time()
    try:
        done = subprocess.run(
            ["ssh", *options, "--", host, shlex.join(command)],
            input=stdin, capture_output=True, text=True, errors="replace", timeout=seconds,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return Answer(host, "", f"no answer within {seconds:g} s", SSH_FAILED)
    except FileNotFoundError as error:
        raise ConfigError("there is no ssh; apt-get install openssh-client") from error
    problem = ""
    if done.returncode:
        problem = f"{(done.stderr.strip().splitlines() or ['it says nothing'])[-1][:200]} (exit code {done.returncode})"
    return Answer(host, done.stdout, problem, done.returncode, began, time.time())


def ask_all(hosts: Sequence[str], command: Sequence[str], **how: object) -> list[Answer]:
    """As ``ask``, of all hosts at once, in their order."""
    with ThreadPoolExecutor(len(hosts)) as pool:
        return list(pool.map(lambda host: ask(host, command, **how), hosts))


def must_answer(hosts: Sequence[str], port: int | None = None) -> None:
    """Raise RunError naming every host on which one cannot log in, within SECONDS."""
    silent = [answer for answer in ask_all(hosts, ["true"], port=port) if answer.problem]
    if silent:
        named = "; ".join(f"{answer.host}: {answer.problem}" for answer in silent)
        raise RunError(
            f"{len(silent)} of {len(hosts)} hosts do not answer over ssh ({named}); see that each is up and that "
            f"'ssh {silent[0].host} true' asks for nothing, or leave it out: --exclude {silent[0].host}"
        )


def meeting_address(host: str, port: int | None = None) -> str:
    """The address at which DeepSpeed lets ranks meet on their first host. Raises RunError where it states none."""
    answer = ask(host, ["hostname", "-I"], port=port)
    address = (answer.output.split() or [""])[0]
    if answer.problem or not is_host_name(address):
        raise RunError(
            f"host {host} states no address of its own ('hostname -I': {answer.problem or ascii(address[:80])}); "
            "give the one at which the others reach it: --master_addr"
        )
    return address


def check_pdsh() -> None:
    """Raise ConfigError where there is no pdsh."""
    if not shutil.which("pdsh"):
        raise ConfigError("there is no pdsh, by which DeepSpeed starts hosts; apt-get install pdsh")


def pdsh_environment() -> dict[str, str]:
    """What pdsh is to find in its environment."""
    return {_PDSH_VARIABLE: f"{os.environ.get(_PDSH_VARIABLE, '')} {PDSH_OPTIONS}".strip()}
