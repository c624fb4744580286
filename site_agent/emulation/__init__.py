"""Fake hardware: emulated vLLM engines and GPUs of one site, in one process that says that it is fake.

`python -m site_agent.emulation` runs it; `site_agent/drivers/emulated.py` starts it for an agent. Real are
the HTTP, the sockets, the process and the time everything takes (continuous batching by the measured
profile); not real are the words and the watts.

Pure: `tokens`, `request`, `answer`, `engine`, `gpu`, `statistics`. Around them: `generation` (one request
being answered), `http` (an engine's API), `metrics`, `running` (one engine with its port and its timer),
`host` (the site: engines, GPUs), `power_log`, `control` (the control API).
"""
