"""What `vllm serve` is started with: arguments, environment, and what a log says about an early end. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

from site_agent.drivers.interface import DriverError, InstanceSpec
from site_agent.drivers.options import VLLM_FORBIDDEN_ENVIRONMENT, VllmOptions

HOST = "127.0.0.1"
"""Engines are reached through their agent only."""
CUDA_VISIBLE_DEVICES = "CUDA_VISIBLE_DEVICES"
RESPONSES_STORE = "VLLM_ENABLE_RESPONSES_API_STORE"
DEV_MODE = "VLLM_SERVER_DEV_MODE"
SCALE_OUT = "--enable-scale-out"
"""Has engines say what token ids mean: else no stream with reasoning or tool calls goes on elsewhere."""
_OWN_PYTHON = ("PYTHONHOME", "PYTHONPATH", "VIRTUAL_ENV")
"""Of the agent's own interpreter; vLLM has another."""

MAX_SHOWN_CHARACTERS = 4000
MAX_LINE_CHARACTERS = 1000

_HINTS = (
    (
        ("out of memory", "outofmemoryerror", "not enough memory", "cannot allocate memory"),
        (
            "out of memory: give it more GPUs (gpus_per_instance), or lower --max-model-len, "
            "--gpu-memory-utilization or cpu_kv_cache_gib"
        ),
    ),
    (
        (
            "less than desired gpu memory utilization",
            "less than the engine's budget",
        ),
        ("out of memory: something else holds the GPU's memory; stop it, or lower --gpu-memory-utilization"),
    ),
    (
        (
            "no available memory for the cache blocks",
            "to serve at least one request with the model's max seq len",
        ),
        (
            "out of memory: no room for the KV cache; raise --gpu-memory-utilization, lower "
            "--max-model-len, or give it more GPUs (gpus_per_instance)"
        ),
    ),
    (
        ("available memory on node",),
        "out of memory: the machine has less than cpu_kv_cache_gib asks for; lower it",
    ),
    (("address already in use",), "the port is in use: another program took it meanwhile; see first_port"),
    (
        (
            "no cuda gpus are available",
            "cuda driver",
            "failed to infer device type",
            "invalid device ordinal",
            "is larger than the number of available gpus",
        ),
        "no usable GPU: check nvidia-smi and gpus_per_instance (0 is for vLLM's CPU build)",
    ),
    (
        (
            "is not a local folder and is not a valid model identifier",
            "repo id must be in the form",
            "repository not found",
            "no config.json",
            "can't load the configuration",
            "cannot find model",
            "cannot find any model weights",
            "outgoing traffic has been disabled",
            "gatedrepoerror",
            "is not a valid model identifier",
        ),
        "the model cannot be loaded: check model_path",
    ),
    (("unrecognized arguments",), "this vLLM does not know an argument: see engine.arguments"),
    (
        ("than the derived max_model_len",),
        "--max-model-len is longer than the model's own context: lower it",
    ),
)
"""Lower-case text in a log's tail → what to do."""


def model_path(options: VllmOptions) -> str:
    """What the engine loads: a directory or a hub id."""
    return options.model_path or options.model


def is_local(path: str) -> bool:
    """Whether a model path names a directory rather than a hub id (`owner/name`)."""
    return path.startswith(("/", "./", "../", "~")) or Path(path).is_dir()


def max_requests(spec: InstanceSpec, options: VllmOptions) -> int:
    """That this engine runs at once, by its tensor-parallel degree: the same as admission counts."""
    degrees = options.other_tensor_parallel_degrees
    if not options.other_max_concurrency or spec.tensor_parallel_degree not in degrees:
        return options.max_concurrency
    return options.other_max_concurrency[degrees.index(spec.tensor_parallel_degree)]


def build_arguments(
    spec: InstanceSpec, options: VllmOptions, port: int, *, flags: Collection[str] = ()
) -> tuple[str, ...]:
    """The whole command line. `[sites.engine] arguments` come last, and so win.

    `flags` are those that the build is known to have, for what not every version does.
    """
    path = model_path(options)
    made = [
        *options.command,
        "serve",
        str(Path(path).expanduser().absolute()) if is_local(path) else path,
        *("--host", HOST, "--port", str(port)),
        *("--served-model-name", spec.model),
        *("--max-num-seqs", str(max_requests(spec, options))),
        "--disable-uvicorn-access-log",
    ]
    if len(spec.gpu_indices) > 1:
        made += ["--tensor-parallel-size", str(len(spec.gpu_indices))]
    if options.sleep and spec.gpu_indices:  # on a CPU vLLM refuses to start with it
        made.append("--enable-sleep-mode")
    if not spec.gpu_indices:
        # Compiling takes a minute and a CPU gains nothing from it.
        made += ["--dtype", "bfloat16", "--enforce-eager"]
    if SCALE_OUT in flags:
        made.append(SCALE_OUT)
    return (*made, *options.arguments)


def keeps_responses(options: VllmOptions, inherited: Mapping[str, str]) -> bool:
    """Whether the engines' environment has them keep what `/v1/responses` made."""
    value = {**inherited, **options.environment}.get(RESPONSES_STORE, "0")
    return value.strip().isdecimal() and int(value) != 0  # as vLLM reads it


def build_environment(
    spec: InstanceSpec, options: VllmOptions, inherited: Mapping[str, str]
) -> dict[str, str]:
    """The engine's environment: the agent's, less what is Heron's and what would open vLLM's control routes.

    Raises:
        DriverError: the agent itself may see too few GPUs.
    """
    made = {
        name: value
        for name, value in inherited.items()
        if not name.startswith("HERON_") and name not in VLLM_FORBIDDEN_ENVIRONMENT + _OWN_PYTHON
    }
    made["VLLM_NO_USAGE_STATS"] = "1"
    if options.sleep:
        made[DEV_MODE] = "1"
    if is_local(model_path(options)):
        made["HF_HUB_OFFLINE"] = "1"
    if spec.gpu_indices:
        made.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")  # as nvidia-smi counts them
        made[CUDA_VISIBLE_DEVICES] = _visible_devices(spec, inherited.get(CUDA_VISIBLE_DEVICES))
    else:
        made["VLLM_CPU_KVCACHE_SPACE"] = str(options.cpu_kv_cache_gib)
        made["VLLM_CPU_OMP_THREADS_BIND"] = options.cpu_threads_bind
    return made | options.environment


def _visible_devices(spec: InstanceSpec, visible: str | None) -> str:
    """The instance's GPUs; counted among those that the agent itself may see."""
    if visible is None:
        return ",".join(map(str, spec.gpu_indices))
    devices = [name.strip() for name in visible.split(",") if name.strip()]
    if spec.gpu_indices[-1] >= len(devices):
        raise DriverError(
            "missing_gpu",
            f"{spec.instance_id} needs GPUs {list(spec.gpu_indices)}, but the agent sees {len(devices)}: "
            f"{CUDA_VISIBLE_DEVICES}={visible!r}; lower instances or gpus_per_instance",
        )
    return ",".join(devices[index] for index in spec.gpu_indices)


def explain_exit(instance_id: str, status: int, log: str, log_path: Path) -> str:
    """Why an engine ended by itself, as far as can be known, with its log's last lines.

    `log` is the log's end, long enough to hold the cause: vLLM's parent process adds pages after it.
    """
    tail = log[-MAX_SHOWN_CHARACTERS:]
    how = f"was killed by signal {-status}" if status < 0 else f"ended with status {status}"
    hint, line = _cause(log)
    if hint is None and status == -9:
        hint = "perhaps out of the machine's memory: see the kernel's log"
    said = "" if line is None or line in tail else f"{line} … "
    return f"vLLM of {instance_id} {how}{'' if hint is None else f' ({hint})'}; {log_path}: {said}{tail}"


def _cause(log: str) -> tuple[str | None, str | None]:
    """(what to do, the line that says why) of the last line with a known cause."""
    for line in reversed(log.splitlines()):
        lower = line.lower()
        for texts, hint in _HINTS:
            if any(text in lower for text in texts):
                return hint, line.strip()[:MAX_LINE_CHARACTERS]
    return None, None
