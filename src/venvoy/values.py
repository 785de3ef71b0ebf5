"""How values travel, as far as users have a say in it: `register` for classes of their own, `Record` for what comes."""

from venvoy_worker.contract.records import Record
from venvoy_worker.contract.reducers import register

__all__ = ["Record", "register"]
