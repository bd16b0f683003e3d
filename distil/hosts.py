"""Which hosts a job runs on, and everything that DeepSpeed's launcher hands to another machine's shell, checked.

The launcher writes host names into a command line of ssh, and the training arguments, the folder and the exported
environment into one line that pdsh sends to a shell on every host. A name such as ``-oProxyCommand=...`` is an option
there, and ``$(...)`` runs, quoted or not. So names and words are held against what is known to be harmless.
"""

from __future__ import annotations

import ipaddress
import os
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from distil.errors import ConfigError

DEFAULT_HOSTFILE = "/job/hostfile"  # DeepSpeed reads it where it exists, asked or not
# Prefixes of the variables that DeepSpeed exports to all hosts, on CPUs and on NVIDIA's GPUs.
EXPORTED = ("MLFLOW", "PYTHON", "MV2", "UCX", "NCCL")
MOST_SLOTS = 64

_LABEL = re.compile(r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?")
_ENTRY = re.compile(r"(\S+)[ \t]+slots=([0-9]{1,4})([ \t]+#.*)?")
_NODE = re.compile(r"([^:@]+)(?::([0-9]{1,4}(?:,[0-9]{1,4})*))?")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
# DeepSpeed quotes a value that holds anything but \w @%+=:,./- and an argument that holds a space. Left out of what may
# be quoted: what acts within double quotes, and % which pdsh replaces. Left out bare: all that a shell acts on.
_VALUE = re.compile(r"[\w@+=:,./^*~()\[\]{} -]*")
_WORD = re.compile(r"[\w@+=:,./-]+")
_ARGUMENT = re.compile(r"[\w@+=:,./ -]+")


def is_host_name(name: str) -> bool:
    """Whether it is a name by RFC 1123 or an address: no option, no pattern, nothing of a shell's."""
    if len(name) <= 253 and all(_LABEL.fullmatch(label) for label in name.split(".")):
        return True
    try:
        return "%" not in name and bool(ipaddress.ip_address(name))
    except ValueError:
        return False


def check_host_name(name: str, where: str) -> None:
    """Raise ConfigError for what is no host name; ``where`` says where it was read."""
    if not is_host_name(name):
        raise ConfigError(f"{where}: {_shown(name)} is no host name; give a name by RFC 1123, or an address")


def read_hostfile(path: str | Path) -> dict[str, int]:
    """{host: slots} of a hostfile, in its order. Raises ConfigError with file and line."""
    if os.path.exists(path) and not os.path.isfile(path):
        raise ConfigError(f"hostfile {path} is no regular file, and DeepSpeed would ignore it; give a file")
    found: dict[str, int] = {}
    seen: dict[str, int] = {}
    for number, line in _lines(path):
        where = f"hostfile {path}, line {number}"
        line = line.strip(" \t\r\n")
        if not line or line.startswith("#"):
            continue
        entry = _ENTRY.fullmatch(line)
        if entry is None:
            raise ConfigError(f"{where}: {_shown(line)} is not of the form HOST slots=NUMBER")
        name, slots = entry[1], int(entry[2])
        check_host_name(name, where)
        if ":" in name:
            raise ConfigError(f"{where}: {name} is an IPv6 address, which pdsh does not take; give the host's name")
        if name.lower() in seen:
            raise ConfigError(f"{where}: host {name} is on line {seen[name.lower()]} already; name each host once")
        if not 1 <= slots <= MOST_SLOTS:
            raise ConfigError(f"{where}: slots is {slots}; it must be from 1 to {MOST_SLOTS}, the GPUs of the host")
        seen[name.lower()], found[name] = number, slots
    if not found:
        raise ConfigError(f"hostfile {path} names no host; a line is HOST slots=NUMBER")
    return found


def check_port(number: int | None, option: str) -> None:
    """Raise ConfigError for what is no port; None is one not given."""
    if number is not None and not 1 <= number <= 65535:
        raise ConfigError(f"{option} is {number}; it must be from 1 to 65535")


def select(slots: Mapping[str, int], include: str, exclude: str, num_nodes: int) -> list[str]:
    """The hosts of a hostfile that DeepSpeed's --include, --exclude and --num_nodes leave. Raises ConfigError."""
    if include and exclude:
        raise ConfigError("--include and --exclude exclude each other; give one of them")
    left = {host: set(range(count)) for host, count in slots.items()}
    named = dict.fromkeys(slots, frozenset())
    option, text = ("--include", include) if include else ("--exclude", exclude)
    for node in text.split("@") if text else []:
        parts = _NODE.fullmatch(node)
        if parts is None or parts[1] not in slots:
            raise ConfigError(f"{option}: {_shown(node)} names no host of the hostfile; the form is HOST:0,1@HOST")
        wanted = set(map(int, parts[2].split(","))) if parts[2] else left[parts[1]]
        if not wanted <= left[parts[1]]:
            raise ConfigError(f"{option}: {node}: host {parts[1]} has slots 0 to {slots[parts[1]] - 1}")
        named[parts[1]] |= wanted
    hosts = [host for host in slots if (named[host] if include else left[host] - named[host])]
    if not hosts:
        raise ConfigError(f"{option} {_shown(text)} leaves no host")
    return hosts[:num_nodes] if num_nodes > 0 else hosts


def read_environment() -> dict[str, str]:
    """What DeepSpeed's environment files (~/.deepspeed_env, ./.deepspeed_env, or DS_ENV_FILE) export to all hosts.

    Raises ConfigError with file and line, also for empty lines and comments, on which DeepSpeed breaks.
    """
    name = os.environ.get("DS_ENV_FILE", ".deepspeed_env")
    exported: dict[str, str] = {}
    for path in dict.fromkeys(os.path.join(folder, name) for folder in (os.path.expanduser("~"), ".")):
        if not os.path.isfile(path):
            continue
        for number, line in _lines(path):
            where = f"environment file {path}, line {number}"
            key, equals, value = line.rstrip("\n").partition("=")
            if not equals:
                raise ConfigError(
                    f"{where}: {_shown(key)} is not NAME=VALUE; DeepSpeed takes no other line, not even #"
                )
            _check_variable(key.strip(), value.strip(), where)
            exported[key.strip()] = value.strip()
    return exported


def check_exported(environment: Mapping[str, str]) -> None:
    """Raise ConfigError for a variable of our own environment that DeepSpeed would export and a shell would act on."""
    for name, value in environment.items():
        if name.startswith(EXPORTED):
            _check_variable(name, value.strip(), "environment, exported to all hosts")


def check_handed_over() -> dict[str, str]:
    """Check all that DeepSpeed hands to every host besides arguments, and return what environment files export.

    That is the environment, the working directory and this python. Raises ConfigError.
    """
    exported = read_environment()
    check_exported(os.environ)
    check_word(os.getcwd(), "the working directory")
    check_word(sys.executable, "the path of python")
    return exported


def check_word(word: str, what: str, spaces: bool = False) -> None:
    """Raise ConfigError where a shell on another host would not read ``word`` as it stands."""
    if not (_ARGUMENT if spaces else _WORD).fullmatch(word):
        raise ConfigError(
            f"{what} {_shown(word)} would not reach the other hosts as it is: pdsh hands it to a shell there; "
            "use letters, digits and @ + = : , . / - _"
        )


def _check_variable(name: str, value: str, where: str) -> None:
    if not _VARIABLE.fullmatch(name):
        raise ConfigError(f"{where}: {_shown(name)} is no name of a variable")
    if not _VALUE.fullmatch(value):
        raise ConfigError(
            f"{where}: the value of {name}, {_shown(value)}, would be acted on by a shell on every host; "
            "leave out $ ` \" ' \\ ; & | < > ! # % and line ends"
        )


def _lines(path: str | Path) -> Iterator[tuple[int, str]]:
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            yield from enumerate(file, 1)
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from error


def _shown(text: str) -> str:
    return ascii(text if len(text) <= 80 else f"{text[:77]}...")
