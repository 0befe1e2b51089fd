"""How good rankings are, whether differences are more than luck, and whether anybody was told the answers.

From the bottom up: `metrics` and what is kept of a ranking; `evaluation`, which asks; `significance`, which compares;
`protocol` and `leaks`, which keep the questions fair; `audit`, which asks what a catalogue's parts are worth.
"""

from multimodal_rec.evaluation.evaluation import METRICS, Evaluation, ScoreQueries, evaluate_ranking

__all__ = ["METRICS", "Evaluation", "ScoreQueries", "evaluate_ranking"]
