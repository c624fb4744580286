"""What an engine and its GPUs say of themselves."""

from __future__ import annotations

from typing import Any

import pytest
from support import official_data

from cli.profile_facts import engine_facts, kv_tokens, max_model_len
from replay.profile_sweep import SweepError
from site_agent.drivers.fake_nvml import FakeNvml, FakeNvmlError

SAID = {"kv_tokens": 1000, "max_model_len": 500}


@pytest.mark.parametrize(
    ("line", "tokens"),
    [
        ('vllm:cache_config_info{block_size="16",kv_cache_size_tokens="2097152"} 1.0', 2_097_152),
        ('vllm:cache_config_info{block_size="16",num_gpu_blocks="100"} 1.0', 1600),
        ('vllm:cache_config_info{block_size="None",num_gpu_blocks="None"} 1.0', None),
        ('vllm:cache_config_info{kv_cache_size_tokens="-5"} 1.0', None),
        ("vllm:cache_config_info{", None),
        ("# nothing", None),
    ],
)
def test_the_cache_is_what_the_engines_page_says(line: str, tokens: int | None) -> None:
    """In tokens, in blocks, or unknown; engines of one server together."""
    assert kv_tokens(f"# HELP\n{line}\n") == tokens
    assert kv_tokens(f"{line}\n{line}") == (None if tokens is None else 2 * tokens)


@pytest.mark.official_data
def test_the_cache_of_a_real_vllm_is_found() -> None:
    """On the page captured from 0.32."""
    assert kv_tokens(official_data.path("metrics-0.32.txt").read_text()) == 2_097_152


def test_the_length_is_that_of_the_models_card() -> None:
    """Unknown where it is no number."""
    cards: list[dict[str, Any]] = [{"id": "a", "max_model_len": 7}, {"id": "b", "max_model_len": "x"}]
    assert [max_model_len(cards, name) for name in "abc"] == [7, None, None]


def test_gpus_are_asked_and_left_as_they_are() -> None:
    """Their name, how many, the highest clock; no lock is set or taken."""
    library = FakeNvml()
    library.devices[0].locked = (345, 900)
    facts = engine_facts(SAID, gpus=(0, 1), tensor_parallel_degree=None, library=library)
    assert (facts.gpu_model, facts.tensor_parallel_degree, facts.full_clock_mhz) == ("FAKE GPU", 2, 1980)
    assert (facts.kv_tokens, facts.max_model_len, facts.power_limit_watts) == (1000, 500, 1400.0)
    assert library.devices[0].locked == (345, 900)


def test_without_gpus_the_degree_is_what_is_said() -> None:
    """And the rest unknown."""
    assert engine_facts(SAID, gpus=(), tensor_parallel_degree=8).tensor_parallel_degree == 8
    assert engine_facts(SAID, gpus=(), tensor_parallel_degree=None).gpu_model is None
    with pytest.raises(SweepError, match=r"tensor_parallel_degree = 0: .*1"):
        engine_facts(SAID, gpus=(), tensor_parallel_degree=0)


def test_gpus_that_are_not_there_or_differ_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """An engine runs on GPUs of one kind."""
    with pytest.raises(SweepError, match="no such GPU"):
        engine_facts(SAID, gpus=(9,), tensor_parallel_degree=None, library=FakeNvml())
    with pytest.raises(SweepError, match="NVML"):
        engine_facts(SAID, gpus=(0,), tensor_parallel_degree=None, library=FakeNvml(has_driver=False))
    library = FakeNvml()
    monkeypatch.setattr(library, "nvmlDeviceGetName", lambda device: device.uuid)
    with pytest.raises(SweepError, match="different GPUs"):
        engine_facts(SAID, gpus=(0, 1), tensor_parallel_degree=None, library=library)


def test_a_card_that_keeps_its_clocks_to_itself_leaves_them_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    """The fit then takes the highest that was set."""
    library = FakeNvml()

    def refuse(_device: Any) -> list[int]:
        raise FakeNvmlError(3)

    monkeypatch.setattr(library, "nvmlDeviceGetSupportedMemoryClocks", refuse)
    assert engine_facts(SAID, gpus=(0,), tensor_parallel_degree=None, library=library).full_clock_mhz is None
