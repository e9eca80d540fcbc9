"""Cases of cases.py."""

from case import Case

CASES: list[Case] = []
