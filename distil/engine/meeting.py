"""How ranks find each other: rank 0 serves a store, the others come to it, and whoever cannot is named."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import struct
import time
from datetime import timedelta

import torch.distributed as dist

from distil.errors import RunError, one_line

# Ranks of a large cluster start minutes apart where they read the software over a network.
MEET_SECONDS = 600
# A host that does not answer at all is another matter: told within the minute.
REACH_SECONDS = 45
INTERFACE = "GLOO_SOCKET_IFNAME"
_SIOCGIFADDR = 0x8915  # netdevice(7)


def meet(rank: int, world: int) -> dist.TCPStore:
    """The store through which ranks find each other, served by rank 0, once all have come."""
    host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    serves = rank == 0 and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True"
    if not serves:
        _reach(host, port)
    try:
        store = dist.TCPStore(
            host, port, world, is_master=serves, timeout=timedelta(seconds=MEET_SECONDS), wait_for_workers=False
        )
    except (RuntimeError, ValueError) as error:
        if serves and ("EADDRINUSE" in str(error) or "in use" in str(error)):
            raise RunError(
                f"port {port} of {host} is taken; give another: deepspeed --master_port {_free_port()} ..."
            ) from error
        raise RunError(f"rank {rank} cannot meet the others at {host}:{port}: {one_line(error)[:300]}") from error
    store.set(f"here/{rank}", socket.gethostname())
    if rank == 0:
        _await_all(store, world)
        store.set("all here", "")
    try:
        store.wait(["all here"], timedelta(seconds=MEET_SECONDS + 30))
    except RuntimeError as error:
        raise RunError(f"rank {rank} waited in vain for all ranks at {host}:{port}") from error
    return store


def _await_all(store: dist.TCPStore, world: int) -> None:
    began, told = time.monotonic(), False
    while missing := [r for r in range(world) if not store.check([f"here/{r}"])]:
        waited = time.monotonic() - began
        names = ", ".join(map(str, missing[:8])) + (", ..." if len(missing) > 8 else "")
        if waited > MEET_SECONDS:
            raise RunError(f"of {world} ranks {len(missing)} have not come in {waited:.0f} s: {names}; see their hosts")
        if waited > 30 and not told:
            told = True
            print(f"waiting for rank(s) {names} of {world}", flush=True)
        time.sleep(0.05)


def _reach(host: str, port: int) -> None:
    """Return once somebody listens there. Raises RunError for a host that does not answer, or never listens."""
    began = time.monotonic()
    while True:
        try:
            socket.create_connection((host, port), timeout=5).close()
            return
        except OSError as error:
            waited = time.monotonic() - began
            listens_later = error.errno == errno.ECONNREFUSED
            if waited > (MEET_SECONDS if listens_later else REACH_SECONDS):
                what = "nobody listens on" if listens_later else "cannot be reached at"
                raise RunError(
                    f"rank 0: {what} {host}:{port} ({error}) for {waited:.0f} s; see --master_addr, --master_port, "
                    "firewalls, and the output of rank 0's host"
                ) from error
            time.sleep(0.2)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("", 0))
        return probe.getsockname()[1]


def choose_interface(host: str) -> None:
    """Tell gloo the network interface that leads to rank 0, unless the user has.

    By itself gloo resolves this host's own name, which on many a system is 127.0.1.1, where no other host finds it.
    """
    if INTERFACE in os.environ:
        return
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((host, 9))  # sends nothing: it only asks the routing table
            mine = probe.getsockname()[0]
            for _, name in socket.if_nameindex():
                if mine == _address(probe, name):
                    os.environ[INTERFACE] = name
                    return
        except OSError:  # gloo's own way it is
            return


def _address(probe: socket.socket, interface: str) -> str | None:
    try:
        answer = fcntl.ioctl(probe.fileno(), _SIOCGIFADDR, struct.pack("256s", interface.encode()))
    except OSError:  # has none
        return None
    return socket.inet_ntoa(answer[20:24])
