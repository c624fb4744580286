"""Reading wind files: three forms, hostile rows, files of another kind."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import official_data

from power_feed.wind_files import MAX_LINE_BYTES, WindOptions, read_wind, read_wind_file
from power_feed.wind_series import MAX_EXAMPLES, WindFileError, WindSeries

RTS = "Year,Month,Day,Period,309_WIND_1,317_WIND_1\n"
FTS = "Day,Time,Area1,Area2\n"
PLAIN = "time,north,coast\n"


def read(text: str, options: WindOptions | None = None) -> WindSeries:
    return read_wind(text.splitlines(keepends=True), name="wind.csv", options=options)


def plain(*rows: str) -> WindSeries:
    return read(PLAIN + "\n".join(rows) + "\n")


def test_rts_gmlc_is_megawatts_over_the_known_nameplate() -> None:
    """RTS-GMLC's columns are divided by their published nameplates, and Period sets the step."""
    series = read(RTS + "2020,1,1,1,148.3,799.1\n2020,1,1,2,74.15,0\n")
    assert series.period_seconds == 300.0
    assert series.first_unix_seconds == 1577836800.0
    assert list(series.ratios["309_WIND_1"]) == [1.0, 0.5]
    assert list(series.ratios["317_WIND_1"]) == [1.0, 0.0]
    assert series.refusals.total == 0


def test_rts_gmlc_hourly_file_is_recognised_by_its_last_period() -> None:
    """Twenty-four Periods a day are hours."""
    rows = "".join(f"2020,1,{day},{period},1,1\n" for day in (1, 2) for period in range(1, 25))
    series = read(RTS + rows)
    assert series.period_seconds == 3600.0
    assert series.steps == 48


def test_a_stray_period_does_not_change_the_step() -> None:
    """One absurd Period among hourly rows is refused; the file stays hourly."""
    rows = "".join(f"2020,1,{day},{period},1,1\n" for day in (1, 2, 3) for period in range(1, 25))
    series = read(RTS + rows.replace("2020,1,2,5,", "2020,1,2,200,"))
    assert series.period_seconds == 3600.0
    assert series.refusals.total == 1
    assert series.missing_steps == 1


def test_a_column_without_a_known_nameplate_takes_its_largest_value_and_says_so() -> None:
    """An unknown site in a file of MW is scaled by its own maximum, loudly."""
    series = read(
        "Year,Month,Day,Period,999_WIND_9\n2020,1,1,1,20\n2020,1,1,2,40\n",
    )
    assert list(series.ratios["999_WIND_9"]) == [0.5, 1.0]
    assert any("nameplate of 999_WIND_9 is not known" in note for note in series.notes)


def test_what_megawatts_were_divided_by_is_known() -> None:
    """By site: as given for all, as given for one, the largest value; nothing of a file of shares."""
    rows = PLAIN + "0,10,1\n1,20,4\n"
    assert read(rows).nameplates_megawatts == {"north": 20.0, "coast": 4.0}
    options = WindOptions(nameplate_megawatts=25.0, nameplates_megawatts={"coast": 5.0})
    assert read(rows, options).nameplates_megawatts == {"north": 25.0, "coast": 5.0}
    assert plain("0,0.1,1.1", "1,0.3,0.4").nameplates_megawatts == {}


def test_a_note_ends_with_the_callers_advice() -> None:
    """The feed's keys unless the caller has other words."""
    rows = PLAIN + "0,10,1\n1,20,4\n"
    assert [note.rpartition("; ")[2] for note in read(rows).notes] == [
        "say unit = per_unit or mw to be sure",
        *["say nameplate_megawatts to be sure"] * 2,
    ]
    own = read(rows, WindOptions(unit_advice="say it", nameplate_advice="say how much"))
    assert [note.rpartition("; ")[2] for note in own.notes] == ["say it", *["say how much"] * 2]


def test_a_given_nameplate_wins() -> None:
    """Configuration says the nameplate; nothing is guessed."""
    series = read(
        "Year,Month,Day,Period,999_WIND_9\n2020,1,1,1,20\n2020,1,1,2,40\n",
        WindOptions(nameplates_megawatts={"999_WIND_9": 80.0}),
    )
    assert list(series.ratios["999_WIND_9"]) == [0.25, 0.5]
    assert not any("not known" in note for note in series.notes)


def test_fts_213_is_shares_of_capacity() -> None:
    """FTS-213's Day and h:mm make 15-minute steps; its values are taken as they are."""
    series = read(FTS + "1,0:00,0.25,0\n1,0:15,0.5,1\n1,0:30,0.75,0.1\n")
    assert series.period_seconds == 900.0
    assert series.first_unix_seconds is None
    assert list(series.ratios["Area1"]) == [0.25, 0.5, 0.75]


@pytest.mark.parametrize(
    "stamps",
    [
        ("2024-05-01T00:00:00Z", "2024-05-01T00:10:00Z"),
        ("2024-05-01 00:00:00", "2024-05-01 00:10"),
        ("2024-05-01T02:00:00+02:00", "2024-05-01T00:10:00Z"),
        ("1714521600", "1714522200"),
        ("1714521600.0", "1714522200.0"),
    ],
)
def test_a_plain_file_takes_iso_and_unix_times(stamps: tuple[str, str]) -> None:
    """The same two instants in every accepted form are ten minutes apart from the same first one."""
    series = plain(f"{stamps[0]},0.1,0.2", f"{stamps[1]},0.3,0.4")
    assert series.period_seconds == 600.0
    assert series.first_unix_seconds == 1714521600.0


def test_a_plain_file_of_small_values_is_shares_of_nameplate() -> None:
    """99 % of values at most 1.2: per unit, and the note says on what grounds."""
    series = plain("0,0.1,1.1", "1,0.3,0.4")
    assert list(series.ratios["coast"]) == [1.1, 0.4]
    assert "taken as shares of nameplate, since 4 of 4 values" in series.notes[0]


def test_a_plain_file_of_large_values_is_megawatts() -> None:
    """Anything else is MW, scaled by the column's largest value unless a nameplate is given."""
    series = plain("0,10,1", "1,20,4")
    assert list(series.ratios["north"]) == [0.5, 1.0]
    assert list(series.ratios["coast"]) == [0.25, 1.0]


def test_the_unit_can_be_said() -> None:
    """`unit` overrules the rule: 20 per unit is then beyond any plausible farm, and refused."""
    series = read(PLAIN + "0,0.5,0.5\n1,20,0.5\n", WindOptions(unit="per_unit"))
    assert series.ratio("north", 1) is None
    assert series.refusals.examples[0].reason == "north: 20 times nameplate"


def test_windows_line_ends_quotes_and_a_byte_order_mark_are_read() -> None:
    """What spreadsheets write is read as what it means."""
    series = read('\ufeff"time","north, old"\r\n"0","0.5"\r\n"60","0.25"\r\n')
    assert series.sites == ("north, old",)
    assert list(series.ratios["north, old"]) == [0.5, 0.25]


def test_a_bad_cell_leaves_its_step_unmeasured_and_the_others_as_they_are() -> None:
    """Each kind of bad cell is refused with its line and column; nothing is invented."""
    series = plain("0,0.1,0.1", "60,,0.2", "120,nan,0.3", "180,-0.5,0.4", "240,x,0.5", "300,1e999,0.6")
    assert [series.ratio("north", step) for step in range(6)] == [0.1, None, None, None, None, None]
    assert [series.ratio("coast", step) for step in range(6)] == [0.1, 0.2, 0.3, 0.4, 0.5, 0.6]
    assert series.refusals.total == 5
    assert [str(row) for row in series.refusals.examples] == [
        "line 3: north: missing",
        "line 4: north: NaN: 'nan'",
        "line 5: north: negative: '-0.5'",
        "line 6: north: not a number: 'x'",
        "line 7: north: not finite: '1e999'",
    ]


def test_rows_with_too_few_or_too_many_columns_are_refused_whole() -> None:
    """Which column is missing cannot be known, so no cell of such a row is used."""
    series = plain("0,0.1,0.1", "60,0.2", "120,0.3,0.3,0.3", "180,0.4,0.4", "240,0.5,0.5")
    assert series.refusals.total == 2
    assert series.missing_steps == 2
    assert series.ratio("north", 1) is None
    assert series.ratio("north", 3) == 0.4


def test_duplicate_and_misplaced_rows_are_refused() -> None:
    """A time that is there twice counts once; a row that steps back is refused."""
    series = plain("0,0.1,0", "60,0.2,0", "60,0.9,0", "120,0.3,0", "30,0.8,0", "180,0.4,0")
    reasons = {row.line: row.reason for row in series.refusals.examples}
    assert reasons == {4: "duplicate time", 6: "out of order of time"}
    assert list(series.ratios["north"]) == [0.1, 0.2, 0.3, 0.4]


def test_one_stray_stamp_costs_one_row() -> None:
    """A typing error that jumps ahead does not put every later row out of order."""
    rows = [f"{60 * step},0.5,0.5" for step in range(100)]
    rows[10] = "90000000,0.5,0.5"
    series = plain(*rows)
    assert series.refusals.total == 1
    assert series.refusals.examples[0].line == 12
    assert series.steps == 100
    assert series.ratio("north", 10) is None


def test_blank_lines_count_inside_and_not_at_the_end() -> None:
    """A trailing blank line is no row; one in the middle is reported."""
    series = plain("0,0.1,0", "", "60,0.2,0", "", "")
    assert series.refusals.total == 1
    assert series.refusals.examples[0].reason == "empty line"


def test_a_gap_is_steps_without_measurement() -> None:
    """Rows that are not there are gaps of the grid, counted."""
    series = plain("0,0.1,0", "60,0.2,0", "120,0.3,0", "300,0.4,0")
    assert series.steps == 6
    assert series.missing_steps == 2
    assert series.ratio("north", 3) is None


def test_reported_examples_are_bounded_and_the_total_is_not() -> None:
    """A thousand broken rows give twenty reasons and the number 1,000."""
    rows = [f"{60 * step},{'x' if step % 2 else 0.5},0.5" for step in range(2000)]
    series = plain(*rows)
    assert series.refusals.total == 1000
    assert len(series.refusals.examples) == MAX_EXAMPLES
    assert series.refusals.describe().endswith("…and 980 more")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "empty"),
        ("\n1,2\n", "line 1 is empty"),
        ('{"wind": [1, 2]}\n', "JSON"),
        ("[1, 2]\n", "JSON"),
        ("<!DOCTYPE html>\n", "HTML"),
        ("time;north\n0;1\n", "separated by commas"),
        ("TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:17:03.9,1,2\n", "--trace"),
        ("Time,TIMESTAMP\n2024-05-10 00:00:00,146\n", "counts of LLM requests"),
        ("0,0.5\n60,0.25\n", "no header"),
        ("time,0.5\n60,0.25\n", "no header"),
        ("model,hardware\nx,y\n", "no header"),
        ("time,north,north\n0,1,1\n", "there twice"),
        ("time,,north\n0,1,1\n", "has no name"),
        ("Day,Time\n1,0:00\n", "no column for a site"),
        (PLAIN, "there is none"),
        (PLAIN + "0,1,1\n", "at least two are needed"),
        (PLAIN + "x,1,1\ny,1,1\n", "none of its rows can be used; 2 rows refused: line 2"),
        (",north\n0,1\n1,2\n", "none of its rows can be used"),
    ],
)
def test_a_file_of_another_kind_is_refused_with_what_was_expected(text: str, says: str) -> None:
    """The message says what the file is and what it should have been."""
    with pytest.raises(WindFileError) as raised:
        read(text)
    assert says in str(raised.value)
    assert "expected" in str(raised.value) or "twice" in says or "least two" in says or "there twice" in says


def test_a_form_that_was_asked_for_must_be_the_files() -> None:
    """`format = fts213` on an RTS-GMLC file is an error, not a guess."""
    with pytest.raises(WindFileError, match="format fts213 was asked for, the header is rts_gmlc's"):
        read(RTS + "2020,1,1,1,1,1\n", WindOptions(format="fts213"))


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"\x1f\x8b\x08\x00", "gzip"),
        (b"PK\x03\x04rest", "ZIP"),
        (b"PAR1....", "Parquet"),
        (b"time,north\n\x00\x01\x02\n", "binary"),
        (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS pointer"),
        (b"", "empty"),
        (b"time,north\n0,0.5\n" + b"9" * (MAX_LINE_BYTES + 1), "line 3 has more than"),
    ],
)
def test_a_file_that_is_no_text_is_refused(tmp_path: Path, content: bytes, says: str) -> None:
    """Compressed, binary and absurd files are named for what they are."""
    path = tmp_path / "wind.csv"
    path.write_bytes(content)
    with pytest.raises(WindFileError, match=says):
        read_wind_file(path)


def test_a_file_that_cannot_be_opened_says_why(tmp_path: Path) -> None:
    """No file and a directory are errors with the path in them."""
    with pytest.raises(WindFileError, match=r"nothing\.csv: cannot be read: No such file"):
        read_wind_file(tmp_path / "nothing.csv")
    with pytest.raises(WindFileError, match="cannot be read"):
        read_wind_file(tmp_path)


def test_bytes_that_are_no_utf_8_are_a_bad_cell(tmp_path: Path) -> None:
    """One mangled cell does not cost the file."""
    path = tmp_path / "wind.csv"
    path.write_bytes(b"time,north\n0,0.5\n60,\xff\xfe\n120,0.25\n")
    series = read_wind_file(path)
    assert [series.ratio("north", step) for step in range(3)] == [0.5, None, 0.25]


def test_a_flag_column_keeps_its_values() -> None:
    """A curtailment flag is neither scaled nor counted when the unit is guessed."""
    series = read(PLAIN + "0,10,1\n60,20,0\n", WindOptions(flag_columns=frozenset({"coast"})))
    assert list(series.ratios["coast"]) == [1.0, 0.0]
    assert list(series.ratios["north"]) == [0.5, 1.0]


CELLS = st.one_of(
    st.floats(allow_nan=True, allow_infinity=True).map(str),
    st.integers(min_value=-(10**20), max_value=10**20).map(str),
    st.text(alphabet=st.characters(exclude_characters="\n\r"), max_size=12),
    st.sampled_from(["", "0.5", "NaN", "1_0", "１", "2024-02-30", "0:60", "1e-400", '"', ","]),
)


@given(
    rows=st.lists(st.lists(CELLS, max_size=7).map(",".join), max_size=30), header=st.sampled_from([0, 1, 2])
)
@settings(max_examples=200, deadline=None)
def test_hostile_rows_are_counted_or_used_and_nothing_else(rows: list[str], header: int) -> None:
    """Whatever the rows hold, the result is a finite, bounded series or a stated error."""
    head, good = [
        (RTS, "2020,1,1,{n},1,1"),
        (FTS, "1,{n}:00,0.5,0.5"),
        (PLAIN, "2024-01-01T0{n}:00:00,0.5,0.5"),
    ][header]
    text = [head, *(good.format(n=n) for n in (1, 2, 3)), *rows]
    try:
        series = read_wind(text, name="wind.csv")
    except WindFileError:
        return
    assert series.steps >= 2
    for values in series.ratios.values():
        assert len(values) == series.steps
        assert all(math.isnan(value) or 0 <= value <= 10 for value in values)
    assert 0 <= series.refusals.total <= len(rows) + 3
    used = series.steps - series.missing_steps
    assert used <= len(rows) + 3


@given(
    broken=st.sets(st.integers(min_value=0, max_value=59), max_size=20),
    missing=st.sets(st.integers(min_value=1, max_value=58), max_size=20),
)
@settings(max_examples=100, deadline=None)
def test_every_row_is_accounted_for(broken: set[int], missing: set[int]) -> None:
    """Measured steps, refused rows and gaps add up to the grid, whatever is broken or left out."""
    rows = [
        f"{60 * step},{'oops' if step in broken else '0.5'},0.5" for step in range(60) if step not in missing
    ]
    series = plain(*rows)
    assert series.steps == 60
    assert series.missing_steps == len(missing)
    assert series.refusals.total == len(broken - missing)
    unmeasured = {step for step in range(60) if series.ratio("north", step) is None}
    assert unmeasured == broken | missing


@pytest.mark.official_data
@pytest.mark.parametrize(
    ("name", "period", "steps", "sites", "capacity_factor"),
    [
        ("rts_gmlc_REAL_TIME_wind.csv", 300.0, 105_408, 4, (0.27, 0.34)),
        ("rts_gmlc_DAY_AHEAD_wind.csv", 3600.0, 8_784, 4, (0.20, 0.45)),
        ("fts213_Wind_data.csv", 900.0, 35_040, 5, (0.23, 0.25)),
    ],
)
def test_the_official_files_are_read_whole(
    name: str, period: float, steps: int, sites: int, capacity_factor: tuple[float, float]
) -> None:
    """No row is refused, no step is missing, and the capacity factors are those of FACTS.md."""
    series = read_wind_file(official_data.path(name))
    assert (series.period_seconds, series.steps, len(series.sites)) == (period, steps, sites)
    assert series.refusals.total == 0
    assert series.missing_steps == 0
    for values in series.ratios.values():
        assert max(values) <= 1.0
        assert capacity_factor[0] - 0.005 <= sum(values) / steps <= capacity_factor[1] + 0.005


@pytest.mark.official_data
@pytest.mark.parametrize(
    "name",
    [
        "AzureLLMInferenceTrace_conv.csv",
        "azure2024_conv_1week_invocations_10s.csv",
        "splitwise_perf_model.csv",
        "vidur_a100_dgx_all_reduce.csv",
        "mlenergy_v3_lm-arena-chat.json",
    ],
)
def test_official_files_of_other_kinds_are_refused(name: str) -> None:
    """No trace and no profile is taken for wind."""
    with pytest.raises(WindFileError, match="expected a CSV of wind power"):
        read_wind_file(official_data.path(name))
