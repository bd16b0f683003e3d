"""The material of the end-to-end tests, for the faults too, and what they measured, told at the end."""

from __future__ import annotations

import functools
from collections.abc import Callable

import pytest
from families import MATERIALS
from harness import Material

MEASURED: list[tuple[str, str]] = []


@pytest.fixture(scope="session")
def materials(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Material]:
    """Objective in, its tiny job out; made when it is first asked for."""
    return functools.cache(lambda objective: MATERIALS[objective](tmp_path_factory.mktemp(objective)))


@pytest.fixture(scope="session")
def material(materials: Callable[[str], Material]) -> Material:
    return materials("mlm")


@pytest.fixture
def measured(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Note a figure under the test's name."""
    return lambda figure: MEASURED.append((request.node.name, figure))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if MEASURED:
        terminalreporter.section("measured: exit code, seconds from the fault to the last process, checkpoints")
        for name, figure in MEASURED:
            terminalreporter.line(f"{name:<60} {figure}")
