"""`[sites.engine] profile` as a name or a file: what is taken, and what an agent refuses to start with."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
from support.measured import document_of, row_of

from fleet.config import ConfigError
from fleet.profile import LLAMA_70B_H100_TP4, LLAMA_70B_H100_TP8, PerformanceProfile
from site_agent.config import SiteConfig, load

SITE = """
[[sites]]
site_id = "north"
farm_id = "farm"
state_dir = "north"
safe_floor_watts = 2000
firm_power_source = "grid"
"""


def measured(path: Path, profile: PerformanceProfile = LLAMA_70B_H100_TP4, **engine: Any) -> str:
    """A file of a sweep over batches, prompts and clocks; its name."""
    rows = [
        row_of(profile, batch, prompt, clock)
        for batch, prompt, clock in itertools.product((1, 16, 64), (512, 4096), (1980, 1200, 800))
    ]
    facts = {"idle_watts": profile.idle_watts, "tensor_parallel_degree": profile.tensor_parallel_degree}
    path.write_text(json.dumps(document_of(rows, **facts | engine).model_dump(mode="json")))
    return path.name


def read(tmp_path: Path, *engine: str) -> SiteConfig:
    """A fleet's file with these keys of the engine."""
    path = tmp_path / "fleet.toml"
    path.write_text(SITE + "[sites.engine]\n" + "\n".join(engine))
    return load(path, environment={})[1]


VLLM = ('kind = "vllm"', 'model = "mine"', "gpus_per_instance = 4", "instances = 2")


def test_a_file_beside_the_configuration_is_the_sites_profile(tmp_path: Path) -> None:
    """Its clocks are the ladder's rungs, its watts the cap's, what the table says completes it."""
    measured(tmp_path / "mine.json")
    config = read(tmp_path, *VLLM, 'profile = "mine.json"', "assumed_stopped_watts = 300")
    model = config.site_model()
    assert model.clocks_mhz == (800, 1200, 1980)
    assert model.server_idle_watts == pytest.approx(1.1 * (2 * 300 + 600))
    worst = {clock: model.worst_watts(model.uniform(2), clock) for clock in model.clocks_mhz}
    assert worst[800] < worst[1200] < worst[1980]
    assert config.profiles.references() == {model.profile.profile_id: str(tmp_path / "mine.json")}
    assert config.performance_profile() is config.performance_profile(), "read once"


def test_other_degrees_have_files_of_their_own(tmp_path: Path) -> None:
    """Of the same model and GPU."""
    measured(tmp_path / "tp4.json")
    measured(tmp_path / "tp8.json", LLAMA_70B_H100_TP8)
    keys = ('profile = "tp4.json"', "other_tensor_parallel_degrees = [8]")
    with pytest.raises(ConfigError, match=r"no profile of llama-3.1-70b on NVIDIA H100.* at 8; there are 4"):
        read(tmp_path, *VLLM, *keys)
    config = read(tmp_path, *VLLM, *keys, 'other_profiles = ["tp8.json"]')
    assert list(config.site_model().profiles) == [4, 8]
    measured(tmp_path / "tp8.json", LLAMA_70B_H100_TP8, gpu_model="NVIDIA B200")
    with pytest.raises(ConfigError, match="at 8"):
        read(tmp_path, *VLLM, *keys, 'other_profiles = ["tp8.json"]')


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (('profile = "nothing.json"',), r"engine.profile: .*nothing.json: is not there, or is no file"),
        (('profile = "bad.json"',), r"engine.profile: .*bad.json: row 1, watts = -1: .*\n.*row 2, clock_mhz"),
        (('profile = "~nosuchuser/x.json"',), r"engine.profile: ~nosuchuser/x.json: there is no such h"),
        (('other_profiles = ["~nosuchuser/x.json"]',), r"engine.other_profiles: ~nosuchuser/x.json: there"),
        (('profile = "dark.json"',), r"engine.profile: .*dark.json: no row has watts.*--gpus, or set"),
        (('profile = "text.json"',), r"engine.profile: .*text.json: is no JSON"),
        (('profile = "mine"',), r"engine.profile: 'mine' is no profile: known are llama-3.1-70b/h100/tp2"),
        (('profile = "tp8.json"',), r"measured at tensor-parallel 8, engine.gpus_per_instance is 4"),
        (('profile = "tp4.json"', 'other_profiles = ["x"]'), "engine.other_profiles: 'x' is no profile"),
    ],
)
def test_a_profile_that_cannot_be_used_is_refused_at_the_start(
    keys: tuple[str, ...], message: str, tmp_path: Path
) -> None:
    """With the configuration's file and key, the profile's file, its row, and what is allowed."""
    measured(tmp_path / "tp4.json")
    measured(tmp_path / "tp8.json", LLAMA_70B_H100_TP8)
    (tmp_path / "text.json").write_text("kind: profile")
    dark = json.loads((tmp_path / "tp4.json").read_text())
    dark["rows"] = [one | {"watts": None} for one in dark["rows"]]
    (tmp_path / "dark.json").write_text(json.dumps(dark))
    bad = json.loads((tmp_path / "tp4.json").read_text())
    bad["rows"][0]["watts"], bad["rows"][1]["clock_mhz"] = -1, "fast"
    (tmp_path / "bad.json").write_text(json.dumps(bad))
    with pytest.raises(ConfigError, match=message) as caught:
        read(tmp_path, *VLLM, *keys)
    assert str(caught.value).startswith(f"{tmp_path / 'fleet.toml'}: [sites]: ")


def test_an_agent_whose_watts_nobody_measured_says_so_at_its_start(tmp_path: Path) -> None:
    """Set by the operator they are taken; of a file that has them there is nothing to say."""
    measured(tmp_path / "mine.json")
    assert read(tmp_path, *VLLM, 'profile = "mine.json"').profiles.warnings() == []
    dark = json.loads((tmp_path / "mine.json").read_text())
    dark["rows"] = [one | {"watts": None} for one in dark["rows"]]
    (tmp_path / "mine.json").write_text(json.dumps(dark))
    config = read(tmp_path, *VLLM, 'profile = "mine.json"', "assumed_busy_watts = 2200")
    [sentence] = config.profiles.warnings()
    assert "no watts were measured" in sentence
    assert "mine.json" in sentence


def test_fake_hardware_may_do_something_else_than_the_site_reckons_with(tmp_path: Path) -> None:
    """Of the same degree only, and in one layout."""
    measured(tmp_path / "mine.json")
    keys = ('kind = "emulated"', 'profile = "mine.json"')
    hardware = 'hardware_profile = "llama-3.1-70b/h100/tp4"'
    assert read(tmp_path, *keys, hardware).performance_profile().gpu_model.startswith("NVIDIA")
    with pytest.raises(ConfigError, match="hardware_profile: must be of tensor-parallel 4"):
        read(tmp_path, *keys, 'hardware_profile = "llama-3.1-70b/h100/tp8"')
    with pytest.raises(ConfigError, match="hardware_profile: not together with"):
        read(
            tmp_path,
            'kind = "emulated"',
            "instances = 2",
            "other_tensor_parallel_degrees = [8]",
            hardware,
        )
