"""The store: cached features of one backbone and one sampling, a folder of sealed shards (docs/store-format.md)."""

from .ledger import Failure, append_failure, append_failures, read_failures
from .reader import FeatureStore, describe_store
from .records import ClipFeatures, Origin, Spec, combine_digests
from .sandbox import DatasetUnreadable, ForeignDataset, ForeignFile
from .shard import shard_paths
from .verify import Verification, verify_store
from .writer import SealLimits, ShardWriter

__all__ = [
    "ClipFeatures",
    "DatasetUnreadable",
    "Failure",
    "FeatureStore",
    "ForeignDataset",
    "ForeignFile",
    "Origin",
    "SealLimits",
    "ShardWriter",
    "Spec",
    "Verification",
    "append_failure",
    "append_failures",
    "combine_digests",
    "describe_store",
    "read_failures",
    "shard_paths",
    "verify_store",
]
