"""A SLURM cluster on this machine that lives for a test: own munged, controller and two nodes, of real daemons.

Each node claims 40 CPUs and eight V100s which are plain files, so that scripts are submitted as they stand. Everything
is in one folder and on ports of its own; at the end no process and no file is left.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import psutil

NODES = ("n1", "n2")
DAEMONS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scontrol", "scancel")
ENDED = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY")
SECONDS_TO_START = 60

# cred_expire is also how long a job that is requeued waits; the defaults (120 s, 60 s, 30 s ...) are for real clusters.
SLURM_CONF = """
ClusterName=throwaway
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket,cred_expire=6
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
SlurmdParameters=config_overrides
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SwitchType=switch/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerType=sched/builtin
SchedulerParameters=sched_interval=1,batch_sched_delay=0
ReturnToService=1
KillWait={kill_wait}
JobRequeue=1
GresTypes=gpu
{nodes}
PartitionName=all Nodes={names} Default=YES MaxTime=INFINITE State=UP
"""
NODE = "NodeName={name} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs=40 Gres=gpu:v100:8 State=UNKNOWN"


def missing() -> str:
    """Why no cluster can be had here, or nothing."""
    if os.name != "posix" or os.geteuid() != 0:
        return "a SLURM cluster of one's own needs root"
    absent = [name for name in DAEMONS if shutil.which(name) is None]
    return f"{', '.join(absent)} not installed: apt-get install slurm-wlm munge" if absent else ""


def free_ports(count: int) -> list[int]:
    """So many ports that nobody listens at."""
    with contextlib.ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]


class Cluster:
    """A running cluster; ``environment`` is what its commands need."""

    def __init__(self, folder: Path, kill_wait: int = 10) -> None:
        self.folder, self.configuration = folder, folder / "slurm.conf"
        self.environment = {**os.environ, "SLURM_CONF": str(self.configuration)}
        self._daemons: list[subprocess.Popen[bytes]] = []
        self._kill_wait = kill_wait

    def start(self) -> None:
        """Write the configuration, start the daemons and wait until both nodes are idle."""
        self._configure()
        munge = self.folder / "munge"
        self._daemon("munged", "--foreground", f"--key-file={munge}/key", f"--socket={munge}/socket",
                     f"--pid-file={munge}/pid", f"--log-file={munge}/log", f"--seed-file={munge}/seed")  # fmt: skip
        self.until((munge / "socket").exists, "munged listens", SECONDS_TO_START)
        self._daemon("slurmctld", "-D")
        for name in NODES:
            self._daemon("slurmd", "-D", "-N", name)
        self.until(lambda: set(self.nodes().values()) == {"idle"}, "both nodes are idle", SECONDS_TO_START)

    def stop(self) -> None:
        """End all jobs, the daemons and whatever else is left of them."""
        with contextlib.suppress(AssertionError, subprocess.SubprocessError):  # what ails the cluster was told before
            self.cancel_all()
        left = list(self._processes())
        try:
            for daemon in reversed(self._daemons):
                daemon.send_signal(signal.SIGTERM)
            for daemon in self._daemons:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    daemon.wait(timeout=10)
        finally:
            while left:
                for process in left:
                    with contextlib.suppress(psutil.NoSuchProcess):
                        process.kill()
                psutil.wait_procs(left, timeout=10)
                left = list(self._processes())  # one that was killed may just have started another
        for daemon in self._daemons:
            daemon.wait(timeout=10)

    def run(self, *command: object, check: bool = True) -> str:
        """Output of one of SLURM's commands."""
        words = [str(word) for word in command]
        result = subprocess.run(words, env=self.environment, capture_output=True, text=True, timeout=60)
        assert not check or result.returncode == 0, f"{words}: {result.stderr}"
        return result.stdout.strip()

    def submit(
        self, script: str, options: Sequence[object], arguments: Sequence[object], folder: Path, env: Mapping[str, str]
    ) -> str:
        """Submit a script from a folder, with an environment that names this cluster; returns the job's number."""
        command = ["sbatch", "--parsable", *map(str, options), script, *map(str, arguments)]
        result = subprocess.run(command, cwd=folder, env=dict(env), capture_output=True, text=True, timeout=60)
        assert result.returncode == 0, f"{command}: {result.stderr}"
        return result.stdout.strip()

    def cancel_all(self) -> None:
        """Cancel all jobs and wait until nothing of them runs any more."""
        self.run("scancel", "--user=root")
        self.until(lambda: not self.run("squeue", "--noheader"), "no job is left", 60)

    def job(self, number: str) -> Mapping[str, str]:
        """What the controller knows of a job, by its names: JobState, Restarts, ExitCode, NodeList ..."""
        words = self.run("scontrol", "--oneliner", "show", "job", number).split()
        return dict(word.split("=", 1) for word in words if "=" in word)

    def nodes(self) -> dict[str, str]:
        """State of each node, as sinfo has it."""
        lines = self.run("sinfo", "--noheader", "--Node", "--format=%N %T", check=False).splitlines()
        return dict(line.split() for line in lines)

    def until(self, holds: Callable[[], bool], what: str, seconds: float) -> None:
        """Wait until something holds; AssertionError with the ends of all logs where it never does."""
        end = time.monotonic() + seconds
        while not holds():
            broken = [daemon.args for daemon in self._daemons if daemon.poll() is not None]
            assert not broken, f"waiting until {what}: ended: {broken}\n{self._logs()}"
            assert time.monotonic() < end, f"not within {seconds} s: {what}\n{self._logs()}"
            time.sleep(0.2)

    def ended(self, number: str, seconds: float) -> Mapping[str, str]:
        """Wait for the end of a job; returns what is known of it."""
        self.until(lambda: self.job(number)["JobState"] in ENDED, f"job {number} has ended", seconds)
        return self.job(number)

    def _configure(self) -> None:
        for name in ("munge", "state", "gpus", *(f"spool-{node}" for node in NODES)):
            (self.folder / name).mkdir(mode=0o711)
        key = self.folder / "munge" / "key"
        key.touch(mode=0o600)
        key.write_bytes(os.urandom(128))
        controller, *ports = free_ports(1 + len(NODES))
        host = socket.gethostname().split(".")[0]
        nodes = [NODE.format(name=name, host=host, port=port) for name, port in zip(NODES, ports, strict=True)]
        self.configuration.write_text(SLURM_CONF.format(
            host=host, controller_port=controller, folder=self.folder, kill_wait=self._kill_wait,
            nodes="\n".join(nodes), names=",".join(NODES),
        ))  # fmt: skip
        gpus = [self.folder / "gpus" / f"v100-{i}" for i in range(8)]
        for gpu in gpus:
            gpu.touch()
        (self.folder / "gres.conf").write_text("".join(f"Name=gpu Type=v100 File={gpu}\n" for gpu in gpus))

    def _daemon(self, *command: str) -> None:
        with (self.folder / f"{len(self._daemons)}-{command[0]}.out").open("wb") as output:
            self._daemons.append(
                subprocess.Popen(command, env=self.environment, stdout=output, stderr=output, start_new_session=True)
            )

    def _processes(self) -> Iterator[psutil.Process]:
        """The processes that were started with this cluster's configuration, and what stands between two of them."""
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error, OSError):
                # A slurmstepd writes its title over its environment.
                family = [process, *process.parents()[:1], *process.children()]
                if any(map(self._is_ours, family if process.name().startswith("slurmstepd") else [process])):
                    yield process

    def _is_ours(self, process: psutil.Process) -> bool:
        with contextlib.suppress(psutil.Error, OSError):
            return process.pid != os.getpid() and process.environ().get("SLURM_CONF") == str(self.configuration)
        return False

    def _logs(self) -> str:
        logs = sorted([*self.folder.glob("*.log"), *self.folder.glob("*.out"), self.folder / "munge" / "log"])
        return "\n".join(f"== {log.name}\n{log.read_text()[-3000:]}" for log in logs if log.exists())


@contextlib.contextmanager
def cluster(kill_wait: int = 10) -> Iterator[Cluster]:
    """A cluster for the length of a with statement."""
    folder = Path(tempfile.mkdtemp(prefix="slurm-"))
    folder.chmod(0o711)  # munge wants its clients to reach the socket
    made = Cluster(folder, kill_wait)
    try:
        made.start()
        yield made
    finally:
        try:
            made.stop()
        finally:
            shutil.rmtree(folder)
