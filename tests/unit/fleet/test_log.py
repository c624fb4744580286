"""JSON logs: one object a line, the same keys from every service."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator

import pytest

from fleet.log import JsonFormatter, configure_logging


def entry(**attributes: object) -> logging.LogRecord:
    return logging.makeLogRecord(
        {"name": "router.live", "levelno": 30, "levelname": "WARNING", "created": 1732320000.25, **attributes}
    )


def formatted(record: logging.LogRecord) -> dict[str, object]:
    line = JsonFormatter("router").format(record)
    assert "\n" not in line
    value: dict[str, object] = json.loads(line)
    return value


@pytest.fixture
def untouched_logging() -> Iterator[None]:
    """Puts every logger that `configure_logging` changes back as it was."""
    names = (None, "uvicorn", "uvicorn.error", "uvicorn.access", "httpx", "httpcore", "asyncio")
    loggers = [logging.getLogger(name) for name in names]
    before = [(each, each.level, each.handlers[:], each.propagate) for each in loggers]
    yield
    for each, level, handlers, propagate in before:
        each.setLevel(level)
        each.handlers[:] = handlers
        each.propagate = propagate


def test_a_line_has_time_level_service_logger_and_message() -> None:
    """UTC to the millisecond; arguments are filled in."""
    assert formatted(entry(msg="site %s is gone", args=("north",))) == {
        "time": "2024-11-23T00:00:00.250+00:00",
        "level": "warning",
        "service": "router",
        "logger": "router.live",
        "message": "site north is gone",
    }


def test_extra_fields_become_keys() -> None:
    """A request id is found by its key, not inside a sentence."""
    line = formatted(entry(msg="done", request_id="r-1", seconds=0.5))
    assert (line["request_id"], line["seconds"]) == ("r-1", 0.5)


def test_a_field_that_json_does_not_know_is_written_as_text() -> None:
    """A log call never fails over what it is given."""
    assert formatted(entry(msg="done", kind=ValueError))["kind"] == "<class 'ValueError'>"


@pytest.mark.parametrize("value", [{1: 2}, {(1, 2): 3}, 1 << 80, "\ud800", float("nan"), b"\xff"])
def test_a_field_that_json_cannot_hold_does_not_cost_the_line(value: object) -> None:
    """The rest of it is what an operator needs."""
    line = formatted(entry(msg="done \ud800" if isinstance(value, str) else "done", field=value))
    assert str(line["message"]).startswith("done")
    assert "field" in line


def test_an_exception_stays_on_one_line() -> None:
    """With its traceback, line ends escaped."""
    try:
        int("why")
    except ValueError:
        line = formatted(entry(msg="failed", exc_info=sys.exc_info()))
    assert "Traceback" in str(line["exception"])
    assert "ValueError: invalid literal" in str(line["exception"])


def test_a_process_logs_json_to_stderr_from_its_level_up(
    untouched_logging: None, capsys: pytest.CaptureFixture[str]
) -> None:
    """Once configured, and once only however often it is called."""
    configure_logging("site-agent")
    configure_logging("site-agent")
    logging.getLogger("site_agent.app").debug("not said")
    logging.getLogger("site_agent.app").info("said")
    for chatty in ("uvicorn.access", "uvicorn.error", "httpx", "asyncio"):
        logging.getLogger(chatty).info("one line for every request")
    out, err = capsys.readouterr()
    lines = [json.loads(line) for line in err.splitlines()]
    assert out == ""
    assert [(line["service"], line["message"]) for line in lines] == [("site-agent", "said")]
