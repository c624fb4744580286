"""The fake meter's log file."""

from __future__ import annotations

from pathlib import Path

from site_agent.emulation.power_log import PowerLog

HEADER = "unix_seconds,site_watts,fake_gpu_0_watts,fake_gpu_1_watts"


def test_every_line_is_there_at_once_under_a_header(tmp_path: Path) -> None:
    """Judges read the file while it is written."""
    path = tmp_path / "power.csv"
    log = PowerLog(path, (0, 1))
    assert path.read_text() == HEADER + "\n"
    log.write(1700000000.1234, 1234.56, (600.04, 634.5))
    assert path.read_text().splitlines() == [HEADER, "1700000000.123,1234.6,600.0,634.5"]
    log.close()


def test_clock_set_back_does_not_turn_the_log_back(tmp_path: Path) -> None:
    """The last instant is repeated until the clock has caught up."""
    path = tmp_path / "power.csv"
    log = PowerLog(path, ())
    for unix_seconds in (10.0, 9.0, 11.0):
        log.write(unix_seconds, 1.0, ())
    log.close()
    assert [line.split(",")[0] for line in path.read_text().splitlines()[1:]] == [
        "10.000",
        "10.000",
        "11.000",
    ]


def test_later_process_appends_after_the_last_whole_line(tmp_path: Path) -> None:
    """A killed process may have left half a line."""
    path = tmp_path / "power.csv"
    log = PowerLog(path, (0, 1))
    log.write(1.0, 2.0, (3.0, 4.0))
    log.close()
    with path.open("a") as file:
        file.write("2.000,17")
    log = PowerLog(path, (0, 1))
    log.write(3.0, 2.0, (3.0, 4.0))
    log.close()
    assert path.read_text().splitlines() == [HEADER, "1.000,2.0,3.0,4.0", "3.000,2.0,3.0,4.0"]


def test_log_of_other_gpus_is_put_aside(tmp_path: Path) -> None:
    """Columns never change within a file."""
    path = tmp_path / "power.csv"
    PowerLog(path, (0,)).close()
    PowerLog(path, (0, 1)).close()
    assert path.read_text() == HEADER + "\n"
    assert (tmp_path / "power.csv.1").read_text() == "unix_seconds,site_watts,fake_gpu_0_watts\n"


def test_full_log_starts_anew(tmp_path: Path) -> None:
    """Two files at most, each bounded."""
    path = tmp_path / "power.csv"
    log = PowerLog(path, (), max_bytes=60)
    for second in range(6):
        log.write(float(second), 1.0, ())
    log.close()
    assert path.stat().st_size < 60
    assert path.read_text().startswith("unix_seconds,site_watts\n")
    assert (tmp_path / "power.csv.1").exists()
