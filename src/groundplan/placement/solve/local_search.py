"""Local search: plans are repaired and improved by moving one part at a time; the penalty price of an exceeded row
grows until no row is exceeded.

Fast and without a proof. All amounts are integers except the prices that guide the search.
"""

from __future__ import annotations

import numpy as np

from groundplan.placement.problem import Flags, Indices, Ints
from groundplan.placement.solve.arrays import Arrays, Floats, max_capacity

_GROWTH = 1.6
_MAX_RAISES = 150
"""after this many raises of prices a plan is unlikely, and prices would outgrow the range of floats"""
_TABU_MOVES = 12
"""moves for which a part that was just moved may not move again"""


class LocalSearch:
    """A choice with its use of rows, and the penalty price of each row's excess."""

    def __init__(self, data: Arrays, choice: Ints, value: Floats, keep: Flags | None = None) -> None:
        self.data = data
        self.choice = choice.astype(np.int64)
        self.value = value
        """[O] the values to minimise: reduced or plain prices"""
        self.keep = keep
        self.limit = max_capacity(data.problem)
        self.used = data.row_usage(self.choice)
        self.users: Indices = np.bincount(data.site[self.choice], minlength=data.site_count + 1).astype(np.int32)
        spread = float(np.median(np.abs(data.price)) + 1.0)
        size = np.ones(data.row_count + 1)
        np.maximum.at(size, data.row.reshape(-1), np.abs(data.use.reshape(-1)).astype(np.float64))
        self.price = spread / size
        self.tabu_until = np.zeros(data.part_count, dtype=np.int64)
        self.moves = 0

    def exceeded_rows(self) -> Ints:
        """Rows whose capacity is exceeded, the most expensive excess first."""
        excess = (self.used - self.limit)[:-1]
        rows = np.flatnonzero(excess > 0)
        found: Ints = rows[np.argsort(-(excess[rows] * self.price[rows]), kind="stable")]
        return found

    def repair(self, moves: int) -> bool:
        """Move parts until no row is exceeded; False where that many moves were not enough."""
        raised = 0
        for _ in range(moves):
            rows = self.exceeded_rows()
            if not len(rows):
                return True
            if not self._relieve_row(int(rows[0])):
                self.price[rows] *= _GROWTH
                raised += 1
                if raised > _MAX_RAISES:
                    return False
        return not len(self.exceeded_rows())

    def _relieve_row(self, row: int) -> bool:
        """Make the best move of a part that uses this row; False where none helps."""
        taking = (self.data.row[self.choice] == row) & (self.data.use[self.choice] > 0)
        users = np.flatnonzero(taking.any(axis=1) & (self.tabu_until <= self.moves))
        options = self.alternatives(users)
        if not len(options):
            self.moves += 1
            return False
        change = self.move_cost(options)
        at = int(np.argmin(change))
        if change[at] >= 0:
            self.moves += 1
            return False
        self.move(int(options[at]))
        return True

    def alternatives(self, parts: Ints) -> Ints:
        """The kept options of these parts without their present ones."""
        first = self.data.part_start
        counts = first[parts + 1] - first[parts]
        begins = np.repeat(first[parts] - np.append(0, np.cumsum(counts)[:-1]), counts)
        options = begins + np.arange(int(counts.sum()))
        wanted = options != self.choice[self.data.part[options]]
        if self.keep is not None:
            wanted &= self.keep[options]
        found: Ints = options[wanted]
        return found

    def move_cost(self, options: Ints) -> Floats:
        """[n] the change of cost by moving to each option: its value, openings and the price of excess."""
        data = self.data
        current = self.choice[data.part[options]]
        change: Floats = self.value[options] - self.value[current]
        change = change + np.where(self.users[data.site[options]] == 0, data.opening[data.site[options]], 0)
        change = change - np.where(
            (self.users[data.site[current]] == 1) & (data.site[current] != data.site[options]),
            data.opening[data.site[current]],
            0,
        )
        return change + self._excess_cost(options, current)

    def _excess_cost(self, options: Ints, current: Ints) -> Floats:
        """[n] the price of the excess that each move adds and removes, exact for rows that an option uses once."""
        data = self.data
        rows, uses = data.row[options], data.use[options]
        old_rows, old_uses = data.row[current], data.use[current]
        freed = np.zeros(rows.shape, dtype=np.int64)
        for k in range(rows.shape[1]):
            freed += np.where(rows == old_rows[:, k : k + 1], old_uses[:, k : k + 1], 0)
        excess = self.used - self.limit
        before = excess[rows] - freed
        added = np.maximum(before + uses, 0) - np.maximum(before, 0)
        removed = np.maximum(excess[old_rows] - old_uses, 0) - np.maximum(excess[old_rows], 0)
        cost: Floats = (added * self.price[rows]).sum(axis=1) + (removed * self.price[old_rows]).sum(axis=1)
        return cost

    def move(self, option: int) -> None:
        """Move the option's part to this option."""
        data = self.data
        part = int(data.part[option])
        current = int(self.choice[part])
        np.subtract.at(self.used, data.row[current], data.use[current])
        np.add.at(self.used, data.row[option], data.use[option])
        self.users[data.site[current]] -= 1
        self.users[data.site[option]] += 1
        self.choice[part] = option
        self.moves += 1
        self.tabu_until[part] = self.moves + _TABU_MOVES

    def polish(self, rounds: int) -> None:
        """Move parts to cheaper options that fit, the largest gain first, until no move gains. No row may be exceeded
        before."""
        data = self.data
        self.price = np.maximum(self.price, 1.0) * 1e6
        for _ in range(rounds):
            options = self.alternatives(np.arange(data.part_count))
            change = self.move_cost(options)
            gaining = np.flatnonzero(change < 0)
            gaining = gaining[np.argsort(change[gaining], kind="stable")][: 4 * data.part_count]
            moved: set[int] = set()
            for at in gaining:
                option = int(options[at])
                part = int(data.part[option])
                if part not in moved and self.move_cost(options[at : at + 1])[0] < 0:
                    self.move(option)
                    moved.add(part)
            if not moved:
                return
