"""The night's batch: every frame of a day is answered again, shard by shard, and what came of it is reported.

The unit of work is a shard: one file in, one file out, written whole or not at all and skipped when it is there. So any
engine is a map over shards, and a run that was killed is resumed by running it again.
"""
