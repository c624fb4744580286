"""The instances of a site in every layout."""

from __future__ import annotations

from fleet.profile import PROFILES, SitePowerModel
from site_agent.layouts import instance_specs
from site_agent.site_model import SiteModel

TP = {degree: PROFILES[f"llama-3.1-70b/h100/tp{degree}"] for degree in (2, 4, 8)}
MODEL = SiteModel(
    profile=TP[4],
    power=SitePowerModel(),
    instances=2,
    max_concurrency=32,
    clocks_mhz=TP[4].clocks_mhz,
    other_profiles=(TP[8], TP[2]),
    other_max_concurrency=(64, 16),
)


def test_the_own_degree_comes_first_and_keeps_its_names() -> None:
    """Ids and order do not depend on what else is possible."""
    specs = instance_specs("north", MODEL, model_name="m", first_port=8000)
    assert [spec.instance_id for spec in specs] == [
        *("north-0", "north-1"),
        *("north-tp2-0", "north-tp2-1", "north-tp2-2", "north-tp2-3"),
        "north-tp8-0",
    ]
    assert [spec.index for spec in specs] == list(range(7))
    assert [spec.port for spec in specs] == list(range(8000, 8007))
    assert specs[3].gpu_indices == (2, 3)
    assert specs[6].gpu_indices == tuple(range(8))
    assert specs[6].tensor_parallel_degree == 8


def test_engines_without_gpus_share_none() -> None:
    """The CPU build."""
    specs = instance_specs("north", MODEL, model_name="m", gpus_per_instance=0)
    assert specs[0].gpu_indices == specs[1].gpu_indices == ()


def test_the_model_counts_gpus_not_instances() -> None:
    """Watts of a layout: what is awake, and every other GPU stopped; slots by degree."""
    assert MODEL.gpu_count == 8
    assert [MODEL.most(degree) for degree in (1, 2, 4, 8)] == [0, 4, 2, 1]
    assert MODEL.slots(((2, 2), (4, 1))) == 2 * 16 + 32
    mixed = MODEL.worst_watts(((2, 2), (4, 1)), 1980)
    assert (
        mixed
        == (
            2 * max(TP[2].prefill_watts(1980), *[TP[2].watts(row, 1980) for row in (1, 8, 16)])
            + max(TP[4].prefill_watts(1980), *[TP[4].watts(row, 1980) for row in (1, 8, 16, 32)])
        )
        * 1.1
    )
    assert MODEL.worst_watts((), 1980) == MODEL.server_idle_watts == 8 * 70 * 1.1
    assert MODEL.modelled_watts([0], 1980, [8]) == TP[8].watts(0, 1980) * 1.1


def test_prefill_counts_in_the_worst_case() -> None:
    """GPUs draw more in prefill than in decode at a small batch."""
    real = SiteModel(
        profile=TP[4],
        power=SitePowerModel(),
        instances=2,
        max_concurrency=16,
        clocks_mhz=TP[4].clocks_mhz,
    )
    assert real.worst_watts(real.uniform(2), 1980) == 2 * TP[4].prefill_watts(1980) * 1.1
