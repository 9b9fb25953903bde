"""Local search: plans made and mended by moving one part at a time, rows that hold too much get a growing price until
none does.

Fast and without a proof; everything is counted in integers but the prices that steer it.
"""

from __future__ import annotations

import numpy as np

from groundplan.placement.problem import Flags, Indices, Ints
from groundplan.placement.solve.arrays import Arrays, Floats, most

_GROWTH = 1.6
_MOST_RAISES = 150
"""without a plan after so many there will hardly be one, and prices would outgrow what floats hold"""
_RESTS = 12
"""moves for which a part that was just moved stays"""


class Shift:
    """A choice with what it uses, and the price of every row that holds too much."""

    def __init__(self, data: Arrays, choice: Ints, value: Floats, keep: Flags | None = None) -> None:
        self.data = data
        self.choice = choice.astype(np.int64)
        self.value = value
        """[O] what steers: reduced or plain prices"""
        self.keep = keep
        self.limit = most(data.problem)
        self.used = data.used(self.choice)
        self.users: Indices = np.bincount(data.site[self.choice], minlength=data.sites + 1).astype(np.int32)
        spread = float(np.median(np.abs(data.price)) + 1.0)
        size = np.ones(data.rows + 1)
        np.maximum.at(size, data.row.reshape(-1), np.abs(data.use.reshape(-1)).astype(np.float64))
        self.price = spread / size
        self.rest = np.zeros(data.parts, dtype=np.int64)
        self.moves = 0

    def over(self) -> Ints:
        """Rows that hold too much, the worst first."""
        excess = (self.used - self.limit)[:-1]
        rows = np.flatnonzero(excess > 0)
        found: Ints = rows[np.argsort(-(excess[rows] * self.price[rows]), kind="stable")]
        return found

    def mend(self, moves: int) -> bool:
        """Move parts until every row holds; False where that many moves were not enough."""
        raised = 0
        for _ in range(moves):
            rows = self.over()
            if not len(rows):
                return True
            if not self._relieve(int(rows[0])):
                self.price[rows] *= _GROWTH
                raised += 1
                if raised > _MOST_RAISES:
                    return False
        return not len(self.over())

    def _relieve(self, row: int) -> bool:
        """Make the best move of a part that uses this row; False where none helps."""
        taking = (self.data.row[self.choice] == row) & (self.data.use[self.choice] > 0)
        users = np.flatnonzero(taking.any(axis=1) & (self.rest <= self.moves))
        options = self.options_of(users)
        if not len(options):
            self.moves += 1
            return False
        change = self.change(options)
        at = int(np.argmin(change))
        if change[at] >= 0:
            self.moves += 1
            return False
        self.move(int(options[at]))
        return True

    def options_of(self, parts: Ints) -> Ints:
        """The kept options of these parts but their present ones."""
        first = self.data.first
        counts = first[parts + 1] - first[parts]
        begins = np.repeat(first[parts] - np.append(0, np.cumsum(counts)[:-1]), counts)
        options = begins + np.arange(int(counts.sum()))
        wanted = options != self.choice[self.data.part[options]]
        if self.keep is not None:
            wanted &= self.keep[options]
        found: Ints = options[wanted]
        return found

    def change(self, options: Ints) -> Floats:
        """What moving to each option changes: its value, openings, and rows that hold too much."""
        data = self.data
        now = self.choice[data.part[options]]
        change: Floats = self.value[options] - self.value[now]
        change = change + np.where(self.users[data.site[options]] == 0, data.opening[data.site[options]], 0)
        change = change - np.where(
            (self.users[data.site[now]] == 1) & (data.site[now] != data.site[options]), data.opening[data.site[now]], 0
        )
        return change + self._crowding(options, now)

    def _crowding(self, options: Ints, now: Ints) -> Floats:
        """The price of the excess that moves make and take away, exact for rows that an option names once."""
        data = self.data
        rows, uses = data.row[options], data.use[options]
        old_rows, old_uses = data.row[now], data.use[now]
        freed = np.zeros(rows.shape, dtype=np.int64)
        for k in range(rows.shape[1]):
            freed += np.where(rows == old_rows[:, k : k + 1], old_uses[:, k : k + 1], 0)
        excess = self.used - self.limit
        before = excess[rows] - freed
        added = np.maximum(before + uses, 0) - np.maximum(before, 0)
        gone = np.maximum(excess[old_rows] - old_uses, 0) - np.maximum(excess[old_rows], 0)
        cost: Floats = (added * self.price[rows]).sum(axis=1) + (gone * self.price[old_rows]).sum(axis=1)
        return cost

    def move(self, option: int) -> None:
        """Take another option for its part."""
        data = self.data
        part = int(data.part[option])
        now = int(self.choice[part])
        np.subtract.at(self.used, data.row[now], data.use[now])
        np.add.at(self.used, data.row[option], data.use[option])
        self.users[data.site[now]] -= 1
        self.users[data.site[option]] += 1
        self.choice[part] = option
        self.moves += 1
        self.rest[part] = self.moves + _RESTS

    def polish(self, rounds: int) -> None:
        """Move parts to cheaper options that fit, the largest gain first, until nothing gains. Rows must hold."""
        data = self.data
        self.price = np.maximum(self.price, 1.0) * 1e6
        for _ in range(rounds):
            options = self.options_of(np.arange(data.parts))
            change = self.change(options)
            gaining = np.flatnonzero(change < 0)
            gaining = gaining[np.argsort(change[gaining], kind="stable")][: 4 * data.parts]
            moved: set[int] = set()
            for at in gaining:
                option = int(options[at])
                part = int(data.part[option])
                if part not in moved and self.change(options[at : at + 1])[0] < 0:
                    self.move(option)
                    moved.add(part)
            if not moved:
                return
