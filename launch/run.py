"""Start a job on several hosts: DeepSpeed's own launcher, once what it is to hand to them is known to be harmless.

python launch/run.py --hostfile launch/hostfile.example --num_gpus 8 launch/pretrain.py --deepspeed ds_config/zero1.json

Takes what `deepspeed` takes, and becomes it after checking hostfile, environment files and arguments (exit code 78)
and that every host lets us in (exit code 70). With one host, or none, it is `deepspeed`.
"""

from __future__ import annotations

import argparse
import os
import sys

from distil import errors, hosts, options, remote

FLAGS = (
    "module", "no_python", "no_local_rank", "no_ssh", "no_ssh_check", "force_multi", "save_pid", "bind_cores_to_rank",
)  # fmt: skip
NUMBERS = {"num_nodes": -1, "node_rank": -1, "master_port": 29500, "ssh_port": None}
WORDS = (
    "master_addr", "launcher_args", "enable_each_rank_log", "autotuning", "bind_core_list", "venv_script", "log_level",
)  # fmt: skip
# Of pdsh's own options those that choose neither hosts nor user, and name no program.
PDSH_FLAGS, PDSH_VALUES = ("-k", "-b", "-d", "-N"), ("-t", "-u", "-f")


def parse(arguments: list[str]) -> argparse.Namespace:
    """The options of DeepSpeed's launcher, by their full names. Raises ConfigError."""
    parser = options.Parser(description=__doc__, allow_abbrev=False, formatter_class=options.Formatter)
    parser.add_argument("-H", "--hostfile", help=f"lines HOST slots=N; without it {hosts.DEFAULT_HOSTFILE}, if any")
    parser.add_argument("-i", "--include", default="", help="HOST, HOST:0,1 or several joined by @")
    parser.add_argument("-e", "--exclude", default="", help="as --include")
    parser.add_argument("--num_gpus", "--num_accelerators", type=int, default=-1, help="ranks a host")
    parser.add_argument("--launcher", default="pdsh", help="pdsh; other launchers are started by deepspeed itself")
    parser.add_argument("-q", "--quiet", action="store_true")
    for name in FLAGS:
        parser.add_argument(f"--{name}", action="store_true")
    for name, default in NUMBERS.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    for name in WORDS:
        parser.add_argument(f"--{name}", default="")
    parser.add_argument("user_script", help="the program, launch/pretrain.py")
    parser.add_argument("user_args", nargs=argparse.REMAINDER, help="its arguments")
    return parser.parse_args(arguments)


def check(chosen: argparse.Namespace) -> None:
    """Raise ConfigError for anything that another host's shell, ssh or pdsh would not take as it is meant."""
    if chosen.launcher.lower() != "pdsh":
        raise errors.ConfigError(f"--launcher {chosen.launcher}: only pdsh is known here; start others by deepspeed")
    hosts.check_handed_over()
    for name in ("user_script", "enable_each_rank_log", "venv_script"):
        if getattr(chosen, name):
            hosts.check_word(getattr(chosen, name), name)
    for argument in chosen.user_args:
        hosts.check_word(argument, "argument", spaces=True)
    words = iter(chosen.launcher_args.split())
    for word in words:
        if word not in PDSH_FLAGS and not (word in PDSH_VALUES and next(words, "-").isalnum()):
            known = " ".join(PDSH_FLAGS + PDSH_VALUES)
            raise errors.ConfigError(f"--launcher_args: {word!r} is none of {known}, or lacks its value")
    remote.check_pdsh()


def main() -> None:
    """Check, ask the hosts, and become DeepSpeed's launcher."""
    chosen = parse(sys.argv[1:])
    more = []
    for name in ("master_port", "ssh_port"):
        hosts.check_port(getattr(chosen, name), f"--{name}")
    if chosen.master_addr:
        hosts.check_host_name(chosen.master_addr, "--master_addr")
    if chosen.hostfile or os.path.isfile(hosts.DEFAULT_HOSTFILE):
        slots = hosts.read_hostfile(chosen.hostfile or hosts.DEFAULT_HOSTFILE)
        active = hosts.select(slots, chosen.include, chosen.exclude, chosen.num_nodes)
        if (len(active) > 1 or chosen.force_multi) and not chosen.no_ssh:
            check(chosen)
            remote.must_answer(active, chosen.ssh_port)
            os.environ |= remote.pdsh_environment()
            if not chosen.master_addr:  # DeepSpeed would ask, too, and hand the answer to every host's shell unseen
                more = ["--master_addr", remote.meeting_address(active[0], chosen.ssh_port)]
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, "-m", "deepspeed.launcher.runner", *more, *sys.argv[1:]])


if __name__ == "__main__":
    sys.exit(errors.run(main))
