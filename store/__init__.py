"""The store: cached features of one backbone and one sampling, a folder of sealed shards (docs/store-format.md)."""

from .export import EXPORTS, export_store
from .ledger import Failure, append_failure, append_failures, read_failures
from .lost import Lost, find_lost
from .merge import LARGE, Merge, merge_stores
from .reader import FeatureStore, describe_store
from .records import ClipFeatures, Origin, Spec, combine_digests
from .repair import set_changed_aside, set_damaged_aside
from .rows import RowReader
from .sandbox import DatasetUnreadable, ForeignDataset, ForeignFile
from .shard import shard_paths
from .verify import Verification, parse_sample, verify_store
from .writer import SealLimits, ShardWriter

__all__ = [
    "EXPORTS",
    "LARGE",
    "ClipFeatures",
    "DatasetUnreadable",
    "Failure",
    "FeatureStore",
    "ForeignDataset",
    "ForeignFile",
    "Lost",
    "Merge",
    "Origin",
    "RowReader",
    "SealLimits",
    "ShardWriter",
    "Spec",
    "Verification",
    "append_failure",
    "append_failures",
    "combine_digests",
    "describe_store",
    "export_store",
    "find_lost",
    "merge_stores",
    "parse_sample",
    "read_failures",
    "set_changed_aside",
    "set_damaged_aside",
    "shard_paths",
    "verify_store",
]
