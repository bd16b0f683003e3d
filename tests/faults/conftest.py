"""The material of the end-to-end tests, for the faults too, and what they measured, told at the end."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from harness import Material, make_material

MEASURED: list[tuple[str, str]] = []


@pytest.fixture(scope="session")
def material(tmp_path_factory: pytest.TempPathFactory) -> Material:
    return make_material(tmp_path_factory.mktemp("material"))


@pytest.fixture
def measured(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Note a figure under the test's name."""
    return lambda figure: MEASURED.append((request.node.name, figure))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if MEASURED:
        terminalreporter.section("measured: exit code, seconds from the fault to the last process, checkpoints")
        for name, figure in MEASURED:
            terminalreporter.line(f"{name:<60} {figure}")
