"""What the simulated router knows of a request on its arrival, from what it has learnt of others."""

from __future__ import annotations

import random
from collections.abc import Iterable

from fleet.request import ANONYMOUS, ClassCutoffs, RequestFeatures
from router.policy.body import DEFAULT_OUTPUT_TOKENS
from router.policy.output_length import OutputLengths
from simulator.settings import RouterSettings

CUTOFFS = ClassCutoffs()


class Guess:
    """As `router.policy.body.features_of` makes them: of the answer's length only what was learnt."""

    def __init__(self, settings: RouterSettings, model: str, rng: random.Random) -> None:
        self._class_slos = settings.class_slos
        self._error_ratio = settings.length_error_ratio
        self._model = model
        self._rng = rng
        self.lengths = OutputLengths()

    def learn(self, lengths: Iterable[tuple[int, int]]) -> None:
        """(prompt, answer) in tokens, of what has ended."""
        for prompt_tokens, output_tokens in lengths:
            self.lengths.observe(self._model, ANONYMOUS, None, prompt_tokens, output_tokens)

    def features(self, prompt_tokens: int) -> RequestFeatures:
        """Of a request that comes."""
        learnt = self.lengths.expect(self._model, ANONYMOUS, None, prompt_tokens)
        expected = DEFAULT_OUTPUT_TOKENS if learnt is None else round(learnt.mean_tokens) or 1
        if self._error_ratio:
            error = self._rng.gauss(1.0, self._error_ratio)
            expected = max(1, round(expected * max(0.05, error)))
        name = CUTOFFS.classify(prompt_tokens, expected)
        slo = self._class_slos.get(name)
        return RequestFeatures(self._model, name, prompt_tokens, expected, True, slo=slo)
