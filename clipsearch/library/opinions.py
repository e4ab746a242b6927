"""What a person said of pictures: these two are no duplicates, this one answers that query."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from clipsearch.library.database import Database


@dataclass(frozen=True)
class Answered:
    """A thumb up or down: whether an item is what a query was meant to find."""

    query: str
    item: int
    relevant: bool
    given_at: str  # ISO 8601, UTC


class Opinions:
    """Reads and writes opinions. Each is a short transaction, also while an index run goes on."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def told_apart(self) -> set[tuple[int, int]]:
        """The pairs of items that are not duplicates, the smaller id first."""
        return {(row[0], row[1]) for row in self._rows("SELECT * FROM not_duplicate")}

    def tell_apart(self, one: int, other: int) -> None:
        """Remembers that two known, different items are not duplicates."""
        self._write("INSERT OR IGNORE INTO not_duplicate VALUES (?, ?)", *sorted((one, other)))

    def take_back_apart(self, one: int, other: int) -> None:
        """Forgets that two items were told apart."""
        self._write(
            "DELETE FROM not_duplicate WHERE item_id = ? AND other_id = ?", *sorted((one, other))
        )

    def answer(self, query: str, item: int, *, relevant: bool | None) -> None:
        """Keeps whether a known item answers a query; None takes the answer back."""
        if relevant is None:
            self._write("DELETE FROM feedback WHERE query = ? AND item_id = ?", query, item)
            return
        self._write(
            "INSERT OR REPLACE INTO feedback VALUES (?, ?, ?, ?)",
            query,
            item,
            int(relevant),
            datetime.now(UTC).isoformat(timespec="seconds"),
        )

    def answers(self, query: str | None = None) -> list[Answered]:
        """The answers given to a query, or to all, the oldest first."""
        rows = self._rows(
            """SELECT query, item_id, relevant, given_at FROM feedback
            WHERE ? IS NULL OR query = ? ORDER BY given_at, query, item_id""",
            query,
            query,
        )
        return [Answered(row[0], row[1], bool(row[2]), row[3]) for row in rows]

    def _rows(self, statement: str, *values: Any) -> list[Any]:
        with self._database.reading() as connection:
            return connection.execute(statement, values).fetchall()

    def _write(self, statement: str, *values: Any) -> None:
        with self._database.writing() as connection:
            connection.exec_driver_sql(statement, values)
