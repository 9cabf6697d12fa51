"""Rollouts: who gets a model or settings when, and what stops it.

`rules` is pure: batches, budgets, limits. `lifecycle` has the tables of states. `rows` keeps rollouts, orders and
reports in the store, `audit` what was done by whom; `conductor` moves rollouts on and tells the devices.
"""
