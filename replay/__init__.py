"""The load generator: replays Azure traces, or synthetic ones, against any OpenAI endpoint, and reports.

Rule: it judges from outside. It knows no router and no site; what it counts, it saw on its own sockets. Pure:
trace, synthetic, schedule, prompts, answer, outcome, measures, results, progress, report; the shell around
them: load (opens files), client, runner.
"""
