"""Fixtures of the tests that read whole shards."""

from tests.shard_fixtures import compiled, repository, server

__all__ = ["compiled", "repository", "server"]
