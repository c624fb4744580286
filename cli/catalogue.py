"""The official data files: where they are published, under which licence, and how to know them again. Pure.

Rule: a file is what its SHA-256 says it is, wherever it came from. None of them is part of this project.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

DataKind = Literal["trace", "wind", "profile"]

_RAW = "https://raw.githubusercontent.com"
_AZURE = f"{_RAW}/Azure/AzurePublicDataset/b469a113cedca53ddc3bdea71a143dc4b7d8700c/data"
_AZURE_WEEK = "https://github.com/Azure/AzurePublicDataset/releases/download/dataset-llm-2024"
_AZURE_BLOB = "https://azurepublicdatasettraces.blob.core.windows.net/azurellminfererencetrace"
_AZURE_BINS = (
    f"{_RAW}/cybsbbb/LLM_energy_optimization_rl/7c51799405a40362da780e6d2588b6dea47465ff"
    "/data/llm_inference_trace/processed/2024"
)
_RTS = f"{_RAW}/GridMod/RTS-GMLC/bbadcf8b863b4e5d1809d8a579c1e9e468886e4b/RTS_Data/timeseries_data_files/WIND"
_FTS = (
    f"{_RAW}/HaoLi9401/Dataset_of_flexibility_test_system_FTS-213"
    "/d453e754fe682a24c2e78ba76005fc4e03051407/Time_series_data"
)
_SPLITWISE = f"{_RAW}/Mutinifni/splitwise-sim/8f99e7dc9b407f4ce2488d03dd44c0b8b946dab0/data"
_VIDUR = f"{_RAW}/microsoft/vidur/7d47513363ec447a741ac5e47241580b47724fbf/data/profiling"
_ML_ENERGY = f"{_RAW}/ml-energy/leaderboard/0cd52dab897c5d91a45f4d413038f3b8b4251b0f/public/data"

_CC_BY_2023 = "CC-BY 4.0; cite Splitwise (ISCA 2024)"
_CC_BY_2024 = "CC-BY 4.0; cite DynamoLLM (HPCA 2025)"
_BINS_LICENCE = "Apache-2.0, data CC-BY 4.0; cite DynamoLLM (HPCA 2025)"
_NREL = (
    "NREL data use disclaimer: free for any use; copies must carry the notice in the README of "
    "GridMod/RTS-GMLC; credit DOE/NREL/ALLIANCE"
)
_NO_LICENCE = 'no licence stated: do not redistribute; cite "The ML.ENERGY Benchmark" (NeurIPS D&B 2025)'


@dataclass(frozen=True, slots=True, kw_only=True)
class DataFile:
    """One published file."""

    name: str
    """What it is called on the command line."""
    kind: DataKind
    title: str
    folder: str
    """Where mirrors may keep it."""
    file: str
    """Its name on disk."""
    urls: tuple[str, ...]
    """Tried in turn."""
    licence: str
    sha256: str | None
    """None: nobody published one, and it is not known here."""
    size_bytes: int | None
    rows: int | None = None
    """Data rows, where they are published and the checksum is not."""


CATALOGUE: tuple[DataFile, ...] = (
    DataFile(
        name="azure-2023-code",
        kind="trace",
        title="Azure LLM inference 2023, coding, one hour, 8,819 requests",
        folder="llm_traces",
        file="AzureLLMInferenceTrace_code.csv",
        urls=(f"{_AZURE}/AzureLLMInferenceTrace_code.csv",),
        licence=_CC_BY_2023,
        sha256="54e9a6d2a4bd06ba1e060304b900abbc74cbea53de96506e60fe5bb4f2277fb6",
        size_bytes=320_117,
    ),
    DataFile(
        name="azure-2023-conv",
        kind="trace",
        title="Azure LLM inference 2023, conversation, one hour, 19,366 requests",
        folder="llm_traces",
        file="AzureLLMInferenceTrace_conv.csv",
        urls=(f"{_AZURE}/AzureLLMInferenceTrace_conv.csv",),
        licence=_CC_BY_2023,
        sha256="2f1e5b666d4e3055fdbba98598ce2ec307767b9064e03e2fa46676dbcc7d0bf8",
        size_bytes=719_188,
    ),
    DataFile(
        name="azure-2024-code-week",
        kind="trace",
        title="Azure LLM inference 2024, coding, one week, 16.8 million requests (about 0.7 GB)",
        folder="llm_traces",
        file="AzureLLMInferenceTrace_code_1week.csv",
        urls=(
            f"{_AZURE_WEEK}/AzureLLMInferenceTrace_code_1week.csv",
            f"{_AZURE_BLOB}/AzureLLMInferenceTrace_code_1week.csv",
        ),
        licence=_CC_BY_2024,
        sha256=None,
        size_bytes=None,
        rows=16_803_695,
    ),
    DataFile(
        name="azure-2024-conv-week",
        kind="trace",
        title="Azure LLM inference 2024, conversation, one week, 27.3 million requests (about 1.1 GB)",
        folder="llm_traces",
        file="AzureLLMInferenceTrace_conv_1week.csv",
        urls=(
            f"{_AZURE_WEEK}/AzureLLMInferenceTrace_conv_1week.csv",
            f"{_AZURE_BLOB}/AzureLLMInferenceTrace_conv_1week.csv",
        ),
        licence=_CC_BY_2024,
        sha256=None,
        size_bytes=None,
        rows=27_303_999,
    ),
    DataFile(
        name="azure-2024-code-10s",
        kind="trace",
        title="Azure LLM inference 2024, coding, requests per 10 s over the week (counts only)",
        folder="llm_traces",
        file="azure2024_code_1week_invocations_10s.csv",
        urls=(f"{_AZURE_BINS}/invocations_ten_second_Coding.csv",),
        licence=_BINS_LICENCE,
        sha256="d398148bd0d00a5fb3b7dda8e2fc6da4612695b6953606d8c6f92a1f0848c3f5",
        size_bytes=1_436_679,
    ),
    DataFile(
        name="azure-2024-conv-10s",
        kind="trace",
        title="Azure LLM inference 2024, conversation, requests per 10 s over the week (counts only)",
        folder="llm_traces",
        file="azure2024_conv_1week_invocations_10s.csv",
        urls=(f"{_AZURE_BINS}/invocations_ten_second_Conversation.csv",),
        licence=_BINS_LICENCE,
        sha256="ccc249c85bbb40608c35ea6d29e8cd3f0a30205dbf519ad8b0adda434dc90485",
        size_bytes=1_451_559,
    ),
    DataFile(
        name="rts-gmlc-wind",
        kind="wind",
        title="RTS-GMLC, 4 sites near each other, 2020, 5-minute steps",
        folder="wind",
        file="rts_gmlc_REAL_TIME_wind.csv",
        urls=(f"{_RTS}/REAL_TIME_wind.csv",),
        licence=_NREL,
        sha256="fc88ecb030cec9e60a796dae9c6139855640c0fca1aa7cc76e821de24d38efb4",
        size_bytes=3_513_232,
    ),
    DataFile(
        name="rts-gmlc-wind-day-ahead",
        kind="wind",
        title="RTS-GMLC, the same sites' day-ahead forecast, hourly",
        folder="wind",
        file="rts_gmlc_DAY_AHEAD_wind.csv",
        urls=(f"{_RTS}/DAY_AHEAD_wind.csv",),
        licence=_NREL,
        sha256="6a1a8dc7d10a518523b3b319902ecc1ca1c400223832b26c6edb3a6e69d01dbc",
        size_bytes=279_519,
    ),
    DataFile(
        name="fts-213-wind",
        kind="wind",
        title="FTS-213, 5 areas far from each other, one year, 15-minute steps",
        folder="wind",
        file="fts213_Wind_data.csv",
        urls=(f"{_FTS}/Wind_data.csv",),
        licence="CC-BY 4.0; cite the FTS-213 test system (doi 10.1109/TPWRS.2020.3019983)",
        sha256="6b411cb4002e6ed1961549c1a79047cae77d20115501e5afa25c00aecc8f6163",
        size_bytes=2_009_317,
    ),
    DataFile(
        name="splitwise-profile",
        kind="profile",
        title="Splitwise: Llama-2-70B and BLOOM-176B on A100 and H100, times per phase",
        folder="llm_profiles",
        file="splitwise_perf_model.csv",
        urls=(f"{_SPLITWISE}/perf_model.csv",),
        licence="MIT",
        sha256="dbbe505d1d64fc4bd1ec03c50edf944643586de4f68a81e94cbd55dd5bdfbf41",
        size_bytes=127_281,
    ),
    DataFile(
        name="vidur-llama-2-70b-a100",
        kind="profile",
        title="Vidur: Llama-2-70B on A100, times per operator",
        folder="llm_profiles",
        file="vidur_a100_meta-llama_Llama-2-70b-hf_mlp.csv",
        urls=(f"{_VIDUR}/compute/a100/meta-llama/Llama-2-70b-hf/mlp.csv",),
        licence="MIT",
        sha256="d690ce601f94ab80586e1d5a6a92ea0d64114dc3e0895bf32b3bee270f3d9b7f",
        size_bytes=688_286,
    ),
    DataFile(
        name="vidur-llama-2-70b-h100",
        kind="profile",
        title="Vidur: Llama-2-70B on H100, times per operator",
        folder="llm_profiles",
        file="vidur_h100_meta-llama_Llama-2-70b-hf_mlp.csv",
        urls=(f"{_VIDUR}/compute/h100/meta-llama/Llama-2-70b-hf/mlp.csv",),
        licence="MIT",
        sha256="fb3581ade7c02caab8a0f7d1ca1ad06a7b0fbac3d9f32a9ed46ae55d95fd6bb3",
        size_bytes=691_493,
    ),
    DataFile(
        name="vidur-llama-3-70b-a100",
        kind="profile",
        title="Vidur: Llama-3-70B on A100, times per operator",
        folder="llm_profiles",
        file="vidur_a100_meta-llama_Meta-Llama-3-70B_mlp.csv",
        urls=(f"{_VIDUR}/compute/a100/meta-llama/Meta-Llama-3-70B/mlp.csv",),
        licence="MIT",
        sha256="6929c6f4afae67f7d91a7938ebdb350a47923b077a1b1c2a4e1911f5ec9e601f",
        size_bytes=1_180_692,
    ),
    DataFile(
        name="vidur-all-reduce-a100",
        kind="profile",
        title="Vidur: all-reduce times in a DGX A100",
        folder="llm_profiles",
        file="vidur_a100_dgx_all_reduce.csv",
        urls=(f"{_VIDUR}/network/a100_dgx/all_reduce.csv",),
        licence="MIT",
        sha256="5ea3f3c229fee1ef70ea308881fff420d60ab6f30e86edda1ed6146b12eb28ef",
        size_bytes=645_190,
    ),
    DataFile(
        name="vidur-all-reduce-h100",
        kind="profile",
        title="Vidur: all-reduce times in a DGX H100",
        folder="llm_profiles",
        file="vidur_h100_dgx_all_reduce.csv",
        urls=(f"{_VIDUR}/network/h100_dgx/all_reduce.csv",),
        licence="MIT",
        sha256="7bc107da2ca2790ab5aa6585eba71603bf7359dd7e7cba1b586f885cae8bcb81",
        size_bytes=274_142,
    ),
    DataFile(
        name="ml-energy-llama-3.1-70b",
        kind="profile",
        title="ML.ENERGY v3: Llama-3.1-70B on H100 and B200, watts and speed by batch size",
        folder="llm_profiles",
        file="mlenergy_v3_meta-llama__Llama-3.1-70B-Instruct__lm-arena-chat.json",
        urls=(f"{_ML_ENERGY}/models/meta-llama__Llama-3.1-70B-Instruct__lm-arena-chat.json",),
        licence=_NO_LICENCE,
        sha256="bafc501076c3ad0c28640d0be931983074e8c5f6da7ed93178cd8a9edfe2fc90",
        size_bytes=57_479,
    ),
    DataFile(
        name="ml-energy-llama-3.1-8b",
        kind="profile",
        title="ML.ENERGY v3: Llama-3.1-8B on H100 and B200, watts and speed by batch size",
        folder="llm_profiles",
        file="mlenergy_v3_meta-llama__Llama-3.1-8B-Instruct__lm-arena-chat.json",
        urls=(f"{_ML_ENERGY}/models/meta-llama__Llama-3.1-8B-Instruct__lm-arena-chat.json",),
        licence=_NO_LICENCE,
        sha256="3db897caac1af5057fe2915a85c27cccaa5d734362f4c745d6f499cc308c0fe3",
        size_bytes=52_495,
    ),
    DataFile(
        name="ml-energy-lm-arena-chat",
        kind="profile",
        title="ML.ENERGY v3: every model of the chat task on H100 and B200",
        folder="llm_profiles",
        file="mlenergy_v3_lm-arena-chat.json",
        urls=(f"{_ML_ENERGY}/tasks/lm-arena-chat.json",),
        licence=_NO_LICENCE,
        sha256="24e25d46cdd6a9d9d58f8de63928d6f42601f9966d22e4d7a478e5f11f89a7ec",
        size_bytes=286_127,
    ),
)
BY_NAME: dict[str, DataFile] = {file.name: file for file in CATALOGUE}
