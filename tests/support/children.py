"""Processes of others: which children they have, and whether they have ended."""

from pathlib import Path


def children_of(pid: int) -> list[int]:
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(word) for word in text.split()]


def has_ended(pid: int) -> bool:
    """Ended; a zombie whose new parent does not reap has ended too."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return True
    return state == "Z"
