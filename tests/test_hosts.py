"""Hostfiles, environment files and words for other machines' shells: what is taken and what is refused."""

from __future__ import annotations

import argparse
import os
import subprocess
from importlib.util import module_from_spec, spec_from_file_location

import pytest
from deepspeed.accelerator.cuda_accelerator import CUDA_Accelerator
from deepspeed.launcher import runner

from distil import hosts
from distil.errors import ConfigError

EVIL_NAMES = [
    "-oProxyCommand=touch${IFS}x", "--", "-", "$(id)", "`id`", "a;id", "a|id", "a&id", "a,b", "n[1-9]", "^file", "/x/",
    "root@a", "ssh:a", "a'b", 'a"b', "a\\b", "a%h", "fe80::1%eth0", "a_b", "a..b", "a-", "*", "~", "é", "a\x0bb",
    "x" * 64, "\udc80",
]  # fmt: skip


@pytest.mark.parametrize("name", EVIL_NAMES)
def test_what_is_no_host_name_is_refused_with_file_and_line(name, tmp_path):
    (tmp_path / "h").write_text(f"# ours\ngood slots=1\n{name} slots=1\n", errors="surrogateescape")
    with pytest.raises(ConfigError, match=r"hostfile .*/h, line 3: "):
        hosts.read_hostfile(tmp_path / "h")
    with pytest.raises(ConfigError, match="--master_addr"):
        hosts.check_host_name(name, "--master_addr")


def test_a_hostfile_is_read_as_deepspeed_reads_it(tmp_path):
    text = "# comment\n\nworker-0 slots=8\n  worker-1.cluster.example \t slots=16  # the new one\n10.0.0.7 slots=1\n"
    (tmp_path / "h").write_text(text)
    read = hosts.read_hostfile(tmp_path / "h")
    assert read == {"worker-0": 8, "worker-1.cluster.example": 16, "10.0.0.7": 1}
    assert read == dict(runner.fetch_hostfile(str(tmp_path / "h")))


def test_the_example_is_a_hostfile():
    assert hosts.read_hostfile("launch/hostfile.example") == {"worker-0": 8, "worker-1": 8}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a slots=0", "line 1: slots is 0"), ("a slots=65", "slots is 65"), ("a", "HOST slots="), ("", "names no host"),
        ("a slots=1 max=2", "HOST slots="), ("a slots=1\nA slots=2", "line 2: host A is on line 1"),
        ("a slots=1\n::1 slots=1", "line 2: ::1 is an IPv6"), ("a slots=٣", "HOST slots="),
        ("a slots=1;id", "HOST slots="),
    ],
)  # fmt: skip
def test_other_mistakes_in_a_hostfile(text, said, tmp_path):
    (tmp_path / "h").write_text(text)
    with pytest.raises(ConfigError, match=said):
        hosts.read_hostfile(tmp_path / "h")


def test_a_hostfile_that_is_not_there():
    with pytest.raises(ConfigError, match="nowhere cannot be read: No such file"):
        hosts.read_hostfile("nowhere")


def test_a_pipe_is_refused_which_deepspeed_would_ignore(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    assert runner.fetch_hostfile(str(tmp_path / "pipe")) is None
    for path in (tmp_path / "pipe", tmp_path):
        with pytest.raises(ConfigError, match="no regular file"):
            hosts.read_hostfile(path)


@pytest.mark.parametrize("port", [0, -1, 65536, 99999])
def test_ports(port):
    for fine in (None, 1, 65535):
        hosts.check_port(fine, "--master_port")
    with pytest.raises(ConfigError, match=f"--master_port is {port}"):
        hosts.check_port(port, "--master_port")


SLOTS = {"a": 2, "b": 2, "c": 1}


@pytest.mark.parametrize(
    ("include", "exclude", "nodes"),
    [("", "", -1), ("", "", 2), ("a@c:0", "", -1), ("a:1@a:0", "", -1), ("", "b", -1), ("", "a:0@b:0,1", -1)],
)
def test_the_hosts_left_are_those_of_deepspeed(include, exclude, nodes):
    theirs = runner.apply_num_nodes_and_gpus(runner.parse_inclusion_exclusion(SLOTS, include, exclude), nodes, -1)
    assert hosts.select(SLOTS, include, exclude, nodes) == list(theirs)


@pytest.mark.parametrize("text", ["d", "a:2", "a:x", "a@", "a:0:1", "$(id)", "a@-oProxyCommand=id"])
def test_a_selection_of_what_is_not_there_is_refused(text):
    for pair in ((text, ""), ("", text)):
        with pytest.raises(ConfigError, match="--(in|ex)clude"):
            hosts.select(SLOTS, *pair, -1)


def test_all_hosts_left_out():
    with pytest.raises(ConfigError, match="leaves no host"):
        hosts.select(SLOTS, "", "a@b@c", -1)


EVIL_VALUES = ["$(id)", "`id`", "a;id", 'a"b', "a'b", "a\\b", "a|b", "a&b", "a>b", "a!b", "a#b", "%h", "a\tb", "${X}"]


@pytest.mark.parametrize(
    "line", [*(f"X={v}" for v in EVIL_VALUES), "X;id=1", "1X=1", "X", "", "# a", "# a=b", "export X=1", "=1", "X Y=1"]
)
def test_environment_files(line, tmp_path, monkeypatch):
    monkeypatch.setenv("DS_ENV_FILE", str(tmp_path / "e"))
    (tmp_path / "e").write_text(f"NCCL_SOCKET_IFNAME=^docker0,lo\nA=b c\n{line}\n")
    with pytest.raises(ConfigError, match=r"environment file .*/e, line 3: "):
        hosts.read_environment()
    (tmp_path / "e").write_text("NCCL_SOCKET_IFNAME=^docker0,lo\nA=b c\nD=\n")
    assert hosts.read_environment() == {"NCCL_SOCKET_IFNAME": "^docker0,lo", "A": "b c", "D": ""}


def test_environment_files_are_sought_where_deepspeed_seeks_them(tmp_path, monkeypatch):
    assert runner.DEEPSPEED_ENVIRONMENT_PATHS[1:] == ["."] and runner.DEEPSPEED_ENVIRONMENT_NAME == ".deepspeed_env"
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / ".deepspeed_env").write_text("A=1\nB=1\n")
    (tmp_path / ".deepspeed_env").write_text("B=2\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert hosts.read_environment() == {"A": "1", "B": "2"}


def test_exported_variables_are_those_of_deepspeed():
    assert set(hosts.EXPORTED) == {*runner.EXPORT_ENVS, *CUDA_Accelerator.export_envs(None)}
    hosts.check_exported({"PYTHONPATH": "/a b/c", "NCCL_IB_HCA": "=mlx5_0:1", "OTHER": "$(id)", "BASH_FUNC_x%%": "()"})
    for name, value in {"PYTHONX": "$(id)", "NCCL;id": "1", "UCX_X": "a\nb"}.items():
        with pytest.raises(ConfigError, match="environment, exported to all hosts"):
            hosts.check_exported({name: value})


@pytest.mark.parametrize("word", ["runs/a-b_c.1", "--lr=1e-3", "a:0.7", "zürich"])
def test_harmless_words_reach_a_shell_as_they_are(word):
    hosts.check_word(word, "argument")
    assert subprocess.run(["sh", "-c", f"printf %s {word}"], capture_output=True, text=True).stdout == word


@pytest.mark.parametrize("word", ["", "a b", "*", "a?", "~", "{a,b}", *EVIL_VALUES])
def test_other_words_are_refused(word):
    with pytest.raises(ConfigError, match="argument"):
        hosts.check_word(word, "argument")


def test_run_knows_every_option_of_deepspeed(monkeypatch):

    spec = spec_from_file_location("run", "launch/run.py")
    run = module_from_spec(spec)
    spec.loader.exec_module(run)
    parsers = []

    def parse_args(parser, args=None):
        parsers.append({s: (a.nargs, a.type or str) for a in parser._actions for s in a.option_strings or [a.dest]})

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse_args)
    runner.parse_args([])
    run.parse([])
    assert parsers[0] == parsers[1]
