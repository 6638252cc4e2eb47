"""attention() by the workers of a dask cluster, and by processes of any kind.

`client` is what the caller's process does, `meeting` what runs on the workers.
"""

from subquad.cluster.client import AbandonedError, ProcessFleet, attention

__all__ = ["AbandonedError", "ProcessFleet", "attention"]
