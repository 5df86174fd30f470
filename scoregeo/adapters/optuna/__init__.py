"""Optuna: settings of metrics and of networks, searched for by its sampler TPE against a stated objective.

`search_metric` looks for the noise level and the ratio of a metric, judged by its geodesics; `search_network` for the
size and the learning rate of a network, judged by the held-out loss of J v. Both end bad trials early, and both keep
every trial in a SQLite file of Optuna's, from which the same call goes on.

Optuna is imported when a search begins: ``pip install "scoregeo[tune]"``.
"""

from .metric import DistanceToData, MetricSearch, metric_of, search_metric
from .network import NetworkSearch, search_network
from .report import SearchReport, TrialRecord

__all__ = [
    "DistanceToData",
    "MetricSearch",
    "NetworkSearch",
    "SearchReport",
    "TrialRecord",
    "metric_of",
    "search_metric",
    "search_network",
]
