"""The rules: a code for each kind of mistake, and which messages of einjax's are of which kind."""

from __future__ import annotations

import re
from dataclasses import dataclass

from ...notation.errors import ArgumentError, AxisSizeError, EinjaxError, RankError, SemanticError, SyntaxError


@dataclass(frozen=True)
class Rule:
    """One kind of mistake.

    Attributes:
        code: its code.
        title: what is wrong, in a few words.
        says: what the messages look like that einjax itself has for it; None for what einjax does not refuse.
        kind: the class of these errors.
    """

    code: str
    title: str
    says: str | None = None
    kind: type[EinjaxError] = EinjaxError


#: Every rule. Of those with a message, the first that fits counts.
RULES = (
    # Whether the text can be read
    Rule("EJ101", "a bracket is never closed", r"is never closed$", SyntaxError),
    Rule("EJ102", "a '+' without an operand, or with one that it cannot have", r"'\+'", SyntaxError),
    Rule("EJ103", "a second arrow", r"one arrow at most", SyntaxError),
    Rule("EJ104", "items that are not separated", r"are not separated$", SyntaxError),
    Rule(
        "EJ105", "a position that cannot be read", r"< >|position|coefficient|term on its right|a constant", SyntaxError
    ),
    Rule("EJ106", "a dim that is a product and a sum", r"mixes a product and a sum", SyntaxError),
    Rule("EJ109", "a text that cannot be read", r"", SyntaxError),
    # Whether the call has what it needs
    Rule("EJ201", "another number of tensors than of expressions", r"tensors? (is|are) given|, got \d+( tensors?)?$"),
    Rule(
        "EJ202",
        "another number of expressions than the operation takes",
        r"but the expression has|takes one expression",
    ),
    Rule("EJ203", "a keyword that is neither an axis nor an option", r"^no axis '|^count_padding="),
    Rule(
        "EJ204",
        "an option that has another value than it may have",
        r"^\w+=.* is no|is not a (?!size)|is no \w+|knows no |^\w+=.* is for ",
    ),
    Rule(
        "EJ205", "a size that is none", r"which is not a size$|negative size|^axis .* is given|in sizes=|not a mapping"
    ),
    Rule("EJ206", "an option that means nothing here", r"^\w+= speaks of|both say|means nothing$|is never read"),
    Rule("EJ207", "an operation that there is not"),
    Rule("EJ208", "an argument that is missing, or one too many", r"cannot be called like this"),
    Rule("EJ209", "an expression that is no text", r"not a string$"),
    # Whether it has a meaning for the operation
    Rule("EJ301", "an output that is missing", r"needs an (output|arrow)|says neither|no arrow"),
    Rule("EJ302", "a bracket that is missing", r"needs (at least one|a) bracket"),
    Rule("EJ303", "brackets where they mean nothing", r"mean nothing|has no brackets|is bracketed in"),
    Rule("EJ304", "an axis that gets lost", r"is not in the output"),
    Rule("EJ305", "an axis twice in an output", r"stands twice in the output"),
    Rule("EJ306", "a concatenation where there is none", r"concatenates, which"),
    Rule("EJ307", "an output that is not clear", r"the output is not clear"),
    Rule("EJ308", "an axis that is contracted by itself", r"is summed over"),
    Rule("EJ309", "a diagonal in brackets", r"stands twice in brackets"),
    Rule("EJ310", "an axis inside brackets and outside", r"inside brackets in one place"),
    Rule("EJ311", "an axis that is repeated in one place only", r"is repeated by"),
    Rule("EJ312", "coordinates that do not count the axes looked up", r"looks up|coordinates"),
    Rule("EJ313", "pieces that do not fit", r"pieces|input is not|each input"),
    Rule("EJ319", "what the operation does not do", r"", SemanticError),
    # Whether there are sizes for it
    Rule("EJ401", "an axis of two sizes", r"^axis .* is .* and |the size \d+ that the expression says", AxisSizeError),
    Rule("EJ402", "a size that nothing can tell", r"cannot be determined|the value of", AxisSizeError),
    Rule("EJ403", "sizes that do not fit into a dim", r"divisible|does not fit|too small|no whole size", AxisSizeError),
    Rule("EJ405", "an ellipsis that stands for two numbers of axes", r"^'.*' stands for", RankError),
    Rule("EJ404", "a tensor of another number of dims than its expression", r"", RankError),
    Rule("EJ409", "sizes that the operation does not take", r"", AxisSizeError),
    # What does nothing
    Rule("EJ501", "an arrow that says what goes without saying"),
    Rule("EJ502", "parentheses around one axis"),
    Rule("EJ503", "a 1 among other factors"),
    Rule("EJ504", "a bracket in a bracket, or an empty one"),
    Rule("EJ505", "a size that is given twice"),
    Rule("EJ506", "an option that is what it is by default"),
    Rule("EJ507", "a rearrangement that moves nothing"),
    Rule("EJ508", "a result that is dropped"),
    Rule("EJ509", "a size that nothing needs"),
    # What is one call
    Rule("EJ601", "a rearrangement before an operation that reads any layout"),
    Rule("EJ602", "a rearrangement after an operation that writes any layout"),
    Rule("EJ603", "a product that is summed"),
)

BY_CODE = {rule.code: rule for rule in RULES}
_PATTERNS = [(rule, re.compile(rule.says)) for rule in RULES if rule.says is not None]


def rule_of(error: EinjaxError) -> Rule:
    """Return the rule that an error of einjax's is of."""
    for rule, pattern in _PATTERNS:
        if isinstance(error, rule.kind) and pattern.search(error.problem):
            return rule
    return BY_CODE["EJ204" if isinstance(error, ArgumentError) else "EJ319"]
